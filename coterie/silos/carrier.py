"""The seam between the rounds and whatever carries messages: bytes alone cross it.

A carrier knows no tensor and no algorithm. It says which silos are connected, takes one message to each, and gives
their answers back as they come. It vouches for the sender of an answer, and for nothing in it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple, Protocol, TypeAlias

Answer: TypeAlias = Callable[[bytes], bytes]
"""What a silo does with a message: it returns its answer, and never raises for what is in the message."""


class Failure(NamedTuple):
    """No answer came from a silo, and the reason in a few words."""

    why: str


class Carrier(Protocol):
    """The coordinator's end."""

    def sites(self) -> Sequence[str]:
        """Return the names of the silos that are connected now."""

    def ask(self, messages: Mapping[str, bytes], deadline: float) -> Iterator[tuple[str, bytes | Failure]]:
        """Send each silo its message; yield (silo, answer or failure) as they come.

        It ends when every silo has answered or failed, or after `deadline` seconds. A silo may be missing then. An
        answer that comes too late may be yielded in a later call: who asks sees what it answers. The receiver may stop
        early, and then wants no more answers.
        """

    def renew(self) -> None:
        """Let silos in that have connected meanwhile. It is called between rounds."""

    def close(self) -> None:
        """End the connections."""


class SiloCarrier(Protocol):
    """A silo's end."""

    def serve(self, answer: Answer) -> None:
        """Answer messages, one at a time, until the carrier is closed or the process is told to stop."""
