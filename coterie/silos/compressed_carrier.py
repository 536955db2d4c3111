"""Compression around any carrier: messages become smaller before they travel, and are bounded when they come back.

Both ends must use it. Lossless: the rounds, the audit log and the bytes that a round counts see messages as they were.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import IO

from coterie.core.compression import NotCompressed, compress, decompress
from coterie.silos.carrier import Answer, Carrier, Failure
from coterie.silos.message import MAX_BYTES

MEMORY_BYTES = 2**26
"""How much all requests of a round may take in memory. Beyond that they wait on the disk."""


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
        """See `Carrier.ask`. Large messages wait on the disk, and one at a time is in memory."""
        with tempfile.SpooledTemporaryFile(MEMORY_BYTES) as file:
            sent = _Kept(file, messages)
            self.wire_bytes_down += sent.bytes
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


class _Kept(Mapping[str, bytes]):
    """Compressed messages in a file, each read when it is looked up.

    Attributes:
        bytes: of all of them together.
    """

    def __init__(self, file: IO[bytes], messages: Mapping[str, bytes]) -> None:
        self._file, self._places = file, dict[str, tuple[int, int]]()
        for site in messages:
            start = file.tell()
            file.write(compress(messages[site]))
            self._places[site] = start, file.tell() - start
        self.bytes = file.tell()

    def __getitem__(self, site: str) -> bytes:
        start, length = self._places[site]
        self._file.seek(start)
        return self._file.read(length)

    def __iter__(self) -> Iterator[str]:
        return iter(self._places)

    def __len__(self) -> int:
        return len(self._places)


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
