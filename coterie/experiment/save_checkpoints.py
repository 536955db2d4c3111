"""When the checkpoints of a run or a pre-training are written, and from which one it continues."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from coterie.loop.checkpoint import Checkpoints
from coterie.loop.plan import Resume, Round
from coterie.processes.team import ALONE, Team
from coterie.track import RunFolder
from coterie.track.file_writing import disk_mistakes

MIN_PAUSE_SECONDS = 10.0
"""The least time between the end of one checkpoint and the start of the next."""
PAUSE_PER_SECOND = 20.0
"""The pause after a checkpoint, in multiples of the time that it took: a slow disk takes a twentieth of the run."""


class CheckpointSaver:
    """The checkpoints of one run, in the process that it belongs to.

    Attributes:
        newest: the newest round or interval that is on record; None before the first of this process.
        saved: the number of the newest checkpoint, 0 where there is none.
        seconds: what all checkpoints of this process took together.
        pause_until: no checkpoint is due before this time, unless one is due after `every_round`.
    """

    def __init__(self, folder: RunFolder, team: Team = ALONE, every_round: bool = False) -> None:
        self.folder, self.team, self.every_round = folder, team, every_round
        self.checkpoints = Checkpoints(folder.checkpoint, team)
        self.newest: Round | Resume | None = None
        self.saved = 0
        self.seconds = 0.0
        self.pause_until = 0.0

    def load(self) -> Resume | None:
        """Load the newest checkpoint that is not damaged; None where there is none.

        Collective: every process calls it.

        Raises:
            Mistake: there are checkpoints, and all of them are damaged.
        """
        found = self.checkpoints.load()
        self.saved = found.round if found else 0
        return found

    def warnings(self) -> list[str]:
        """Return a sentence for each damaged checkpoint that `load` has passed over."""
        return [f"{damage}; continuing from {self.folder.unit} {self.saved}" for damage in self.checkpoints.damaged]

    @property
    def due(self) -> bool:
        """Whether it is time for a checkpoint."""
        return self.every_round or time.monotonic() >= self.pause_until

    def save(self) -> None:
        """Save a checkpoint of `newest`, unless it is saved already. Its records reach the disk first.

        Collective: every process calls it.

        Raises:
            Mistake: it cannot be written.
        """
        if self.newest is None or self.newest.round == self.saved:
            return
        began = time.monotonic()
        self.folder.rounds.sync()
        with disk_mistakes(self.folder.checkpoint):
            self.checkpoints.save(self.newest, self.folder.copies() if self.team.rank == 0 else None)
        self.saved, now = self.newest.round, time.monotonic()
        self.seconds += now - began
        self.pause_until = now + max(MIN_PAUSE_SECONDS, PAUSE_PER_SECOND * (now - began))

    @contextmanager
    def save_on_interrupt(self) -> Iterator[None]:
        """Save a checkpoint if Ctrl-C interrupts the block, so that nothing that is on record is lost.

        Several processes never do: one of them cannot save alone.
        """
        try:
            yield
        except KeyboardInterrupt:
            if self.team.size == 1:
                self.save()
            raise
