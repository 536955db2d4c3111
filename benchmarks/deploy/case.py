"""One case of the comparison: its folder, its ports and its work."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Case:
    """One case.

    Attributes:
        folder: for all that it writes.
        silos, rounds, hidden: how many of them; see `work.Model`.
        dialled: the port that silos dial, whose bytes are counted.
        listening: the port at which the coordinator listens.
        flower: the folder with Flower's programs.
    """

    folder: Path
    silos: int
    rounds: int
    hidden: int
    dialled: int
    listening: int
    flower: Path


@dataclass(frozen=True)
class Ended:
    """How a case ended.

    Attributes:
        ends: when each round ended, seconds since 1970.
        weights: a safetensors file with the last weights.
        coordinator_mib: the sum of the peaks of the coordinator's processes.
    """

    ends: list[float]
    weights: Path
    coordinator_mib: float
