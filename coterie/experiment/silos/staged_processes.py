"""The venue of a rehearsal as hospitals have it: a process for each silo, keys of their own, and TLS on loopback."""

from __future__ import annotations

import time
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType

from coterie.core.errors import Mistake
from coterie.experiment.run_recorder import RunWatch
from coterie.experiment.silos.rehearse import COORDINATOR, SILOS, Staged, Venue
from coterie.silos.compressed_carrier import CompressedCarrier
from coterie.silos.nvflare_carrier import NVFlareCoordinator, free_port
from coterie.silos.party_process import PartyProcess
from coterie.silos.project import create_project, join_all

SERVE_LOG = "serve.txt"
"""In a silo's folder: what `coterie deploy serve` printed in a rehearsal."""


def make_keys(venue: Venue) -> None:
    """Make the project of a rehearsal, and let every silo join it by the steps that are taken between machines.

    Raises:
        Mistake: a package is not installed.
        OSError: a folder cannot be written.
    """
    project = venue.folder / COORDINATOR
    create_project(project, "rehearsal", "localhost", free_port(), venue.silos)
    join_all(project, venue.folder / SILOS, venue.silos)


class StagedProcesses(Staged):
    """The coordinator and the silos of a rehearsal; use it in a `with` statement.

    Args:
        venue: where its keys lie.
        watch: is told what is out of the ordinary.
    """

    def __init__(self, venue: Venue, watch: RunWatch) -> None:
        self.venue, self.watch = venue, watch
        self.processes: dict[str, PartyProcess] = {}
        self._stack = ExitStack()

    def __enter__(self) -> StagedProcesses:
        with ExitStack() as stack:
            project = self.venue.folder / COORDINATOR
            coordinator = stack.enter_context(NVFlareCoordinator(project, say=self.watch.say))
            self.carrier = CompressedCarrier(coordinator)
            for silo in self.venue.silos:
                self.processes[silo] = self._start(silo)
                stack.callback(self.processes[silo].stop)
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def pause(self, seconds: float) -> None:
        """Wait, and see that no silo's process has ended.

        Raises:
            Mistake: one has; the sentence has its last line.
        """
        time.sleep(seconds)
        for silo, process in self.processes.items():
            if not process.running():
                raise Mistake(f"the process of {silo} has ended, see {process.log}: {_last_line(process.log)}")

    def _start(self, silo: str) -> PartyProcess:
        folder = self.venue.silo(silo).resolve()
        return PartyProcess("coterie", ["deploy", "serve", str(folder)], folder / SERVE_LOG, folder)


def _last_line(log: Path) -> str:
    lines = log.read_text(errors="replace").splitlines()
    return lines[-1] if lines else "it printed nothing"
