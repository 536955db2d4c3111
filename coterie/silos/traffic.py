"""What went between the coordinator and each silo since the record before: bytes, and how long answers took."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass
class SiloTraffic:
    """Of one silo.

    Attributes:
        bytes_down, bytes_up: of its messages and answers, with their framing.
        seconds: the longest that an answer took; None if it gave none.
    """

    bytes_down: int = 0
    bytes_up: int = 0
    seconds: float | None = None


@dataclass
class Traffic:
    """Of all silos; each is here once something was sent to it."""

    _silos: dict[str, SiloTraffic] = field(default_factory=dict)

    def count_sent(self, sizes: Mapping[str, int]) -> None:
        """Count messages: silo -> bytes."""
        for silo, nbytes in sizes.items():
            self._silos.setdefault(silo, SiloTraffic()).bytes_down += nbytes

    def count_answer(self, silo: str, nbytes: int, seconds: float) -> None:
        """Count the answer of a silo, so many seconds after it was asked."""
        own = self._silos.setdefault(silo, SiloTraffic())
        own.bytes_up += nbytes
        own.seconds = max(own.seconds or 0.0, seconds)

    def take_record(self) -> dict[str, Any]:
        """Return what a record of a round says, and count from 0 again."""
        silos, self._silos = self._silos, {}
        return {
            "wire_bytes_up": sum(own.bytes_up for own in silos.values()),
            "wire_bytes_down": sum(own.bytes_down for own in silos.values()),
            "silos": {
                silo: {
                    "bytes_up": own.bytes_up,
                    "bytes_down": own.bytes_down,
                    "seconds": None if own.seconds is None else round(own.seconds, 3),
                }
                for silo, own in sorted(silos.items())
            },
        }
