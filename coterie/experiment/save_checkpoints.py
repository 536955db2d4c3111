"""When the checkpoints of a run or a pre-training are written, and from which one it continues.

A checkpoint is written beside the training, by a thread of its own, from a copy of the server's state. The next one
waits until it is on the disk. Clients' states are not copied: nobody writes into one that is in a store.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager

import torch

from coterie.core import tree
from coterie.loop.checkpoint import Checkpoints
from coterie.loop.plan import Resume, Round
from coterie.processes.team import ALONE, Team
from coterie.track import RunFolder
from coterie.track.file_writing import disk_mistakes

MIN_PAUSE_SECONDS = 10.0
"""The least time between the end of one checkpoint and the start of the next."""
PAUSE_PER_SECOND = 20.0
"""The pause after a checkpoint, in multiples of the time that it took: a slow disk is busy a twentieth of the run."""


class CheckpointSaver:
    """The checkpoints of one run, in the process that it belongs to. Making one is collective: every process does.

    Attributes:
        newest: the newest round or interval that is on record; None before the first of this process.
        saved: the number of the newest checkpoint that is on the disk, 0 where there is none.
        seconds: how long the training waited for all checkpoints of this process.
        pause_until: no checkpoint is due before this time, unless one is due after `every_round`. Then the training
            waits for each, since others rely on what is saved.
    """

    def __init__(self, folder: RunFolder, team: Team = ALONE, every_round: bool = False) -> None:
        self.folder, self.team, self.every_round = folder, team, every_round
        self.checkpoints = Checkpoints(folder.checkpoint, team.second_channel())
        self.newest: Round | Resume | None = None
        self.saved = 0
        self.seconds = 0.0
        self.pause_until = 0.0
        self._writer = ThreadPoolExecutor(1, "checkpoint")
        self._writing: Future[None] | None = None  # the last checkpoint that the thread was given
        self._given = 0  # its number

    def load(self) -> Resume | None:
        """Load the newest checkpoint that is not damaged; None where there is none.

        Collective: every process calls it.

        Raises:
            Mistake: there are checkpoints, and all of them are damaged.
        """
        found = self.checkpoints.load()
        self.saved = self._given = found.round if found else 0
        return found

    def warnings(self) -> list[str]:
        """Return a sentence for each damaged checkpoint that `load` has passed over."""
        return [f"{damage}; continuing from {self.folder.unit} {self.saved}" for damage in self.checkpoints.damaged]

    @property
    def due(self) -> bool:
        """Whether it is time for a checkpoint. It never is while one is being written."""
        is_writing = self._writing is not None and not self._writing.done()
        return self.every_round or (not is_writing and time.monotonic() >= self.pause_until)

    def save(self) -> None:
        """Begin to write a checkpoint of `newest`, unless it has one. Its records reach the disk first.

        Collective: every process calls it.

        Raises:
            Mistake: it cannot be written, or the one before it could not.
        """
        if self.newest is None or self.newest.round == self._given:
            return
        began, newest = time.monotonic(), self.newest
        self.wait()
        self.folder.rounds.sync()
        with disk_mistakes(self.folder.checkpoint):
            files = self.folder.copies() if self.team.rank == 0 else None
        state = tree.map(lambda x: x.detach().to("cpu", copy=True, memory_format=torch.contiguous_format), newest.state)
        owned = Resume(newest.round, state, newest.store, newest.elapsed)
        self._writing = self._writer.submit(self._write, owned, files)
        self._given = newest.round
        if self.every_round:
            self.wait()
        self.seconds += time.monotonic() - began

    def _write(self, owned: Resume, files: Mapping[str, bytes] | None) -> None:
        """Write a checkpoint, in the thread. Collective: the thread of every process calls it.

        Raises:
            OSError: it cannot be written; the one before it remains.
            FolderGone: the run folder was removed or replaced. It is not made again.
        """
        began = time.monotonic()
        self.folder.rounds.require_present()
        self.checkpoints.save(owned, files)
        now = time.monotonic()
        self.saved, self.pause_until = owned.round, now + max(MIN_PAUSE_SECONDS, PAUSE_PER_SECOND * (now - began))

    def wait(self) -> None:
        """Wait until the last checkpoint is on the disk.

        Raises:
            Mistake: it could not be written.
        """
        if self._writing is not None:
            with disk_mistakes(self.folder.checkpoint):
                self._writing.result()

    def raise_failure(self) -> None:
        """Raise what went wrong with the last checkpoint; do nothing while it is being written.

        Raises:
            Mistake: it could not be written.
        """
        if self._writing is not None and self._writing.done():
            self.wait()

    @contextmanager
    def save_on_interrupt(self) -> Iterator[None]:
        """Save a checkpoint if Ctrl-C interrupts the block, so that nothing that is on record is lost.

        Several processes never do: one of them cannot save alone. At the end of the block nothing is being written.
        """
        try:
            yield
            self.wait()
        except KeyboardInterrupt:
            if self.team.size == 1:
                self.save()
                self.wait()
            raise
        finally:
            self._writer.shutdown()
