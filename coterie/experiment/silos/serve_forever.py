"""What `coterie deploy serve` does: connect, and answer in one run after another."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from pathlib import Path

from coterie.experiment.silos.begin import refuse
from coterie.experiment.silos.silo_service import SiloService, make_run
from coterie.silos.carrier import Answer
from coterie.silos.child import Child
from coterie.silos.compressed_carrier import compress_answers
from coterie.silos.nvflare_silo import NVFlareSilo


def serve_silo(folder: Path, say: Callable[[str], None]) -> None:
    """Answer the coordinator until the process is told to stop.

    Args:
        folder: of a silo that has joined a project.
        say: gets a sentence about what the silo does.

    Raises:
        Mistake: the folder cannot be used, or NVFlare is not installed.
    """
    with closing(SiloService(folder, start_child)) as service:
        policy = service.silo.policy
        with NVFlareSilo(folder, max_bytes=policy.max_message_bytes, say=say) as silo:
            where = f"{silo.invitation.host}:{silo.invitation.port}"
            say(f"{silo.invitation.silo} serves {where}; Ctrl-C stops it, and it can be started again at any time")
            silo.serve(compress_answers(service, refuse, policy.max_message_bytes))


def start_child(folder: Path, run: str) -> Answer:
    """Answer in a run in a process of its own."""
    return Child(make_run, folder, run)
