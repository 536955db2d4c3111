"""Rehearsals with silos in this process: all of it but keys, processes and TLS."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from coterie.experiment.run_recorder import SilentRun
from coterie.experiment.settings import Settings
from coterie.experiment.silos.rehearse import Rehearsal, Staged, Venue, rehearse
from coterie.experiment.silos.silo_service import SiloService, make_run
from coterie.silos.carrier import Answer
from coterie.silos.in_process import InProcess


class StagedHere(Staged):
    """Silos in this process, each behind its policy and its audit log."""

    def __init__(self, venue: Venue, said: list[str]) -> None:
        def start(folder: Path, run: str) -> Answer:
            return make_run(folder, run, said.append)

        self.services = {name: SiloService(venue.silo(name), start) for name in venue.silos}
        self.carrier = InProcess(self.services)

    def __exit__(self, *error: Any) -> None:
        for service in self.services.values():
            service.close()


def rehearse_here(
    settings: Settings,
    out: Path,
    number: int | None = None,
    resume: bool = False,
    prepare: Callable[[Venue], None] = lambda venue: None,
    said: list[str] | None = None,
) -> Rehearsal:
    heard = [] if said is None else said
    return rehearse(settings, out, number, resume, SilentRun(), prepare, lambda venue: StagedHere(venue, heard))
