"""`coterie deploy ...`: real silos and their coordinator. Each command says what to do next."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import Annotated

import typer

from coterie.cli.interrupts import handle_interrupts
from coterie.cli.option_names import File, Overrides, Resume
from coterie.core.printable import printable

app = typer.Typer(
    help="Run an experiment between silos that keep their data: hospitals, banks, factories.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

Silo = Annotated[Path, typer.Argument(metavar="[DIR]", help="The silo's folder, which `request` has made.")]
Out = Annotated[Path | None, typer.Option(help="The run folder. [default: runs/<name of FILE>]")]


@app.command()
def rehearse(
    file: File,
    overrides: Overrides = None,
    silos: Annotated[int | None, typer.Option(help="How many silos there are. [default: one for each client]")] = None,
    out: Out = None,
    resume: Resume = False,
) -> None:
    """Rehearse it on this machine: real processes, keys and TLS, and a comparison with the simulation."""
    from coterie.cli.run_display import RunDisplay, show_logs
    from coterie.core.packages import import_package
    from coterie.experiment.settings import load_settings
    from coterie.experiment.silos.rehearse import rehearse as rehearse_experiment
    from coterie.experiment.silos.staged_processes import StagedProcesses, make_keys

    import_package("nvflare", "coterie deploy", "deploy")
    folder, settings = out or Path("runs") / file.stem, load_settings(file, overrides or [])
    some = [] if silos is None else ["--silos", str(silos)]
    again = ["coterie", "deploy", "rehearse", str(file), *(overrides or []), *some, "--out", str(folder), "--resume"]
    display = RunDisplay()
    with handle_interrupts(shlex.join(again), "round"), show_logs(display):
        done = rehearse_experiment(
            settings, folder, silos, resume, display, make_keys, lambda venue: StagedProcesses(venue, display)
        )
    display.show_summary(done.outcome.summary)
    for silo in dict.fromkeys(done.hosts.values()):
        clients = [client for client, host in done.hosts.items() if host == silo]
        print(f"{folder / 'silos' / silo}: {printable(', '.join(clients))}")
    print(folder / "report.html")
    print(done.comparison.sentence())
    _end_if_failed(folder, done.outcome.summary)


@app.command()
def serve(folder: Silo = Path()) -> None:
    """At a silo: answer the coordinator, until this is stopped."""
    from coterie.experiment.silos.serve_forever import serve_silo
    from coterie.experiment.silos.silo_service import say_here

    with handle_interrupts(shlex.join(["coterie", "deploy", "serve", str(folder)]), "round"):
        serve_silo(folder, say_here)


def _end_if_failed(folder: Path, summary: dict[str, object]) -> None:
    """End the command with status 1 after a run that trained nothing of use."""
    if summary.get("failure"):
        print(f"{folder}: {summary['failure']}", file=sys.stderr)
        raise typer.Exit(1)
