"""What `coterie deploy run` does: start the coordinator of a project, and run an experiment between its silos."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from coterie.core.errors import Mistake, few
from coterie.experiment.folder_jobs import Outcome
from coterie.experiment.run_recorder import RunWatch
from coterie.experiment.settings import Settings
from coterie.experiment.silos.deployed_run import run_deployed
from coterie.experiment.silos.run_status import StatusWatch
from coterie.experiment.silos.silo_settings import refuse_simulation
from coterie.silos.compressed_carrier import CompressedCarrier
from coterie.silos.nvflare_carrier import NVFlareCoordinator
from coterie.silos.project import list_silos, read_project, silos_with_certificate
from coterie.track.folder_lock import hold_lock


def run_project(
    settings: Settings, project: Path, out: Path, silos: Sequence[str] | None, resume: bool, watch: RunWatch
) -> Outcome:
    """Run an experiment between the silos of a project.

    Args:
        settings: of the experiment file.
        project: the folder of the project.
        out, resume, watch: see `coterie.experiment.silos.deployed_run.run_deployed`.
        silos: those that take part; None: all that have a certificate.

    Raises:
        Mistake: as `run_deployed`; or there is no such silo, or none has a certificate.
    """
    refuse_simulation(settings)
    read_project(project)
    signed = silos_with_certificate(project)
    names = signed if silos is None else list(silos)
    unknown = [name for name in names if name not in signed]
    if unknown:
        raise Mistake(f"{few(unknown)} has no certificate of this project; there are {few(signed, 10) or 'none'}")
    if not names:
        raise Mistake(f"{project}: no silo has a certificate yet; sign requests with coterie deploy sign")
    waiting = [name for name in list_silos(project) if name not in signed]
    if waiting and silos is None:
        watch.say(f"{few(waiting, 10)}: invited, but without a certificate, so the run goes without")
    needed = settings.deploy.min_clients or 0
    if needed > len(names):  # known for certain once they have said how many clients they host
        watch.say(f"deploy.min_clients = {needed}, and {len(names)} silos take part: they must host as many clients")
    lock = hold_lock(project, "a run of this project goes on already; wait for it, or stop it first")
    with lock, NVFlareCoordinator(project, say=watch.say) as carrier:
        status = StatusWatch(watch, project, carrier, out)
        return run_deployed(settings, out, CompressedCarrier(carrier), names, resume, status)
