"""The checkpoints of what goes on in a run folder: where to continue, and when the next one is due."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from coterie.loop.checkpoint import Checkpoints
from coterie.loop.plan import Resume, Round
from coterie.track import RunFolder
from coterie.track.file_writing import disk_mistakes

CHECKPOINT_SECONDS = 10.0
"""At least so long lies between the end of one checkpoint and the start of the next."""


@dataclass
class Saving:
    """What of a run the disk holds.

    Attributes:
        last: the newest round or interval that is on record; none of those that were there before.
        saved: the number of the newest checkpoint.
        pause_until: no checkpoint before this time.
    """

    folder: RunFolder
    last: Round | Resume | None = None
    saved: int = 0
    pause_until: float = 0.0

    def __post_init__(self) -> None:
        self.checkpoints = Checkpoints(self.folder.checkpoint)

    def load(self, say: Callable[[str], None]) -> Resume | None:
        """The newest checkpoint that is whole; those that are not are told. Collective.

        Raises:
            Mistake: there are checkpoints, and all of them are damaged.
        """
        found = self.checkpoints.load()
        self.saved = found.round if found else 0
        for sentence in self.checkpoints.damaged:
            say(f"{sentence}; continuing from {self.folder.unit} {self.saved}")
        return found

    @property
    def due(self) -> bool:
        """Whether it is time for a checkpoint."""
        return time.monotonic() >= self.pause_until

    def save(self) -> None:
        """A checkpoint of what is on record last. What it counts is on the disk first. Collective.

        Raises:
            Mistake: it cannot be written.
        """
        if self.last is None or self.last.round == self.saved:
            return
        began = time.monotonic()
        self.folder.rounds.sync()
        with disk_mistakes(self.folder.checkpoint):
            self.checkpoints.save(self.last)
        self.saved, now = self.last.round, time.monotonic()
        self.pause_until = now + max(CHECKPOINT_SECONDS, 20 * (now - began))  # a slow disk takes a twentieth at most
