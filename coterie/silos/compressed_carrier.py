"""Compression around any carrier: messages become smaller before they travel, and are bounded when they come back.

Both ends must use it. Lossless: the rounds, the audit log and the bytes that a round counts see messages as they were.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

from coterie.core.compression import NotCompressed, compress, decompress
from coterie.silos.carrier import Answer, Carrier, Failure
from coterie.silos.message import MAX_BYTES


class CompressedCarrier:
    """The coordinator's end.

    Args:
        carrier: takes the compressed messages.
        max_bytes: of an answer once it is decompressed. What would be longer is a failure of its silo.

    Attributes:
        wire_bytes_down, wire_bytes_up: of all messages and answers so far, as they travel.
    """

    def __init__(self, carrier: Carrier, max_bytes: int = MAX_BYTES) -> None:
        self.carrier, self.max_bytes = carrier, max_bytes
        self.wire_bytes_down = self.wire_bytes_up = 0

    def sites(self) -> Sequence[str]:
        """See `Carrier.sites`."""
        return self.carrier.sites()

    def ask(self, messages: Mapping[str, bytes], deadline: float) -> Iterator[tuple[str, bytes | Failure]]:
        """See `Carrier.ask`. A message that goes to several silos is compressed once."""
        smaller = {message: compress(message) for message in set(messages.values())}
        sent = {site: smaller[message] for site, message in messages.items()}
        self.wire_bytes_down += sum(map(len, sent.values()))
        for site, answer in self.carrier.ask(sent, deadline):
            if isinstance(answer, Failure):
                yield site, answer
                continue
            self.wire_bytes_up += len(answer)
            yield site, self._decompress(answer)

    def _decompress(self, answer: bytes) -> bytes | Failure:
        try:
            return decompress(answer, self.max_bytes)
        except NotCompressed as error:
            return Failure(f"sent an answer that {error}")

    def renew(self) -> None:
        """See `Carrier.renew`."""
        self.carrier.renew()

    def close(self) -> None:
        """See `Carrier.close`."""
        self.carrier.close()


def compress_answers(answer: Answer, refuse: Callable[[bytes, str], bytes], max_bytes: int = MAX_BYTES) -> Answer:
    """Return a silo's answer for a coordinator with a `CompressedCarrier`.

    Args:
        answer: the silo's, for messages as they were.
        refuse: (request, why) -> the answer that says so, such as `coterie.silos.letters.answer_failed`. The request is
            empty: what arrived could not be decompressed.
        max_bytes: of a request once it is decompressed.
    """

    def answer_compressed(request: bytes) -> bytes:
        try:
            message = decompress(request, max_bytes)
        except NotCompressed as error:
            return compress(refuse(b"", f"the request {error}"))
        return compress(answer(message))

    return answer_compressed
