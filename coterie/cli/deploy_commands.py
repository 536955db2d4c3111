"""`coterie deploy ...`: real silos and their coordinator. Each command says what to do next."""

from __future__ import annotations

import re
import shlex
import socket
import sys
from pathlib import Path
from typing import Annotated

import typer

from coterie.cli.interrupts import handle_interrupts
from coterie.cli.option_names import AsJson, File, Overrides, Quiet, Resume
from coterie.cli.output_forms import JsonLines, choose_output
from coterie.core.errors import Mistake
from coterie.core.printable import printable

app = typer.Typer(
    help="Run an experiment between silos that keep their own data.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

Project = Annotated[Path, typer.Argument(metavar="DIR", help="The project's folder, which `init` has made.")]
DEFAULT_PORT = 8002
Out = Annotated[Path | None, typer.Option(help="The run folder. [default: runs/<name of FILE>]")]


@app.command()
def rehearse(
    file: File,
    overrides: Overrides = None,
    silos: Annotated[int | None, typer.Option(help="How many silos there are. [default: one for each client]")] = None,
    out: Out = None,
    resume: Resume = False,
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Rehearse on one machine, with real processes, keys and TLS.

    It ends with a comparison to the simulation.
    """
    with choose_output(quiet, as_json) as lines:
        _rehearse(file, overrides or [], silos, out or Path("runs") / file.stem, resume, lines)


def _rehearse(
    file: Path, overrides: list[str], silos: int | None, folder: Path, resume: bool, lines: JsonLines | None
) -> None:
    from coterie.cli.run_display import RunDisplay, show_logs
    from coterie.core.packages import import_package
    from coterie.experiment.settings import load_settings
    from coterie.experiment.silos.rehearse import rehearse as rehearse_experiment
    from coterie.experiment.silos.staged_processes import StagedProcesses, make_keys

    import_package("nvflare", "coterie deploy", "deploy")
    settings = load_settings(file, overrides)
    some = [] if silos is None else ["--silos", str(silos)]
    again = ["coterie", "deploy", "rehearse", str(file), *overrides, *some, "--out", str(folder), "--resume"]
    display = RunDisplay(lines)
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
def init(
    file: File,
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="The project's folder, which is made.")],
    silos: Annotated[str, typer.Option(help="The silos' names, such as north,south,west.")],
    address: Annotated[
        str | None, typer.Option(help="HOST:PORT at which silos reach this machine. [default: its name, port 8002]")
    ] = None,
) -> None:
    """Coordinator: make a project, with an invitation for each silo."""
    from coterie.experiment.settings import load_settings
    from coterie.experiment.silos.silo_settings import refuse_simulation
    from coterie.silos.project import create_project

    refuse_simulation(load_settings(file))
    host, port = _read_address(address)
    names = [name.strip() for name in silos.split(",") if name.strip()]
    if not names:
        raise Mistake("--silos names nobody; give one silo or more, such as --silos north,south")
    stem = re.sub("[^a-z0-9]+", "-", file.stem.lower()).strip("-")[:40]
    project = create_project(folder, stem if stem[:1].isalpha() else f"p-{stem}"[:40].strip("-"), host, port, names)
    print(f"{folder}: the project, whose keys decide who may take part; let nobody else read it")
    print(f"silos will reach this machine at {project.host}:{project.port}, the one port that must be open here")
    print("next, send each silo its invitation, by a way that both of you trust:")
    for name in names:
        print(f"  {folder / 'invitations' / name}.toml")
    print(f"and compare the fingerprint in it by telephone: {project.root}")
    print("each silo then sends a request back, which you sign:")
    print(f"  coterie deploy sign {shlex.quote(str(folder))} NAME.request.pem")


@app.command()
def invite(
    folder: Project,
    silo: Annotated[str, typer.Argument(metavar="NAME", help="The silo's name.")],
) -> None:
    """Coordinator: invite one more silo; the others do nothing."""
    from coterie.silos.project import invite as invite_silo

    print(f"next, send {silo} its invitation, by a way that both of you trust:\n  {invite_silo(folder, silo)}")


@app.command()
def sign(
    folder: Project,
    request: Annotated[Path, typer.Argument(metavar="REQUEST", help="What a silo has sent: NAME.request.pem.")],
    new_key: Annotated[bool, typer.Option("--new-key", help="The silo has made a new key, as its people say.")] = False,
) -> None:
    """Coordinator: sign a silo's request, so that it may take part."""
    from coterie.silos.certificates import key_fingerprint
    from coterie.silos.project import list_silos
    from coterie.silos.project import sign as sign_request

    certificate = sign_request(folder, request, new_key=new_key)
    silo = certificate.name.partition(".")[0]
    fingerprint = key_fingerprint(request.read_bytes())
    print(f"the key of {silo} has the fingerprint {fingerprint}; compare it with its people by telephone")
    print(f"next, send {silo} its certificate, by any way:\n  {certificate}")
    print(f"there: coterie deploy join {certificate.name}")
    missing = [name for name in list_silos(folder) if not (folder / "certificates" / certificate_name(name)).exists()]
    if missing:
        print(f"still without a certificate: {', '.join(missing)}")
    else:
        print(f"all silos have one; run with\n  coterie deploy run FILE --project {shlex.quote(str(folder))}")


@app.command()
def revoke(
    folder: Project,
    silo: Annotated[str, typer.Argument(metavar="NAME", help="The silo's name.")],
) -> None:
    """Coordinator: let a silo take part no more."""
    from coterie.silos.project import read_project
    from coterie.silos.revoke import revoke as revoke_silo

    read_project(folder)
    print(f"{silo} takes part no more, also in a run that goes on; what it had is in {revoke_silo(folder, silo)}")
    print(f"if it shall come back with a new key: coterie deploy invite {shlex.quote(str(folder))} {silo}-2")


@app.command("run")
def run_between_silos(
    file: File,
    overrides: Overrides = None,
    out: Out = None,
    resume: Resume = False,
    project: Annotated[
        Path | None, typer.Option(help="The project's folder. [default: the one beside FILE or here]")
    ] = None,
    silos: Annotated[str | None, typer.Option(help="Who takes part. [default: all that have a certificate]")] = None,
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Coordinator: run an experiment between the silos."""
    with choose_output(quiet, as_json) as lines:
        _run(file, overrides or [], out or Path("runs") / file.stem, resume, project, silos, lines)


def _run(
    file: Path,
    overrides: list[str],
    folder: Path,
    resume: bool,
    project: Path | None,
    silos: str | None,
    lines: JsonLines | None,
) -> None:
    from coterie.cli.run_display import RunDisplay, show_logs
    from coterie.experiment.settings import load_settings
    from coterie.experiment.silos.find_project import find_project
    from coterie.experiment.silos.run_project import run_project

    settings = load_settings(file, overrides)
    found = find_project(file, project)
    some = [] if silos is None else ["--silos", silos]
    again = ["coterie", "deploy", "run", str(file), *overrides, "--project", str(found), *some]
    again += ["--out", str(folder), "--resume"]
    names = None if silos is None else list(dict.fromkeys(filter(None, map(str.strip, silos.split(",")))))
    display = RunDisplay(lines)
    with handle_interrupts(shlex.join(again), "round"), show_logs(display):
        outcome = run_project(settings, found, folder, names, resume, display)
    if not outcome.ran:
        print(f"{folder}: finished already, after {outcome.summary['rounds']} rounds")
    display.show_summary(outcome.summary)
    print(folder / "report.html")
    _end_if_failed(folder, outcome.summary)


@app.command()
def status(folder: Project = Path()) -> None:
    """Coordinator: show who is in, who is late, and how far it is."""
    from coterie.cli.text_table import print_table
    from coterie.experiment.silos.run_status import is_running, read_status
    from coterie.silos.project import list_silos, read_project
    from coterie.silos.revoke import list_revoked

    project, found = read_project(folder), read_status(folder)
    print(f"{project.name} at {project.host}:{project.port}")
    runs = is_running(folder)
    connected = set(found.connected) if found and runs else set()
    rows = []
    for name in list_silos(folder):
        signed = (folder / "certificates" / certificate_name(name)).exists()
        rows.append([name, "yes" if signed else "invited", "yes" if name in connected else "no"])
    rows += [[name, "revoked", "no"] for name in sorted(list_revoked(folder))]
    print_table(["silo", "certificate", "connected"], rows)
    if found is None:
        print("no run has begun; coterie deploy run begins one")
        return
    if not runs:
        rest = "the last one" if found.round and found.round == found.rounds else "the one that stopped"
        print(f"no run goes on now, so nobody is connected; coterie deploy run begins one. Of {rest}:")
    reached = "" if found.reached is None else f", in which {found.reached} updates counted"
    print(f"{found.folder}: round {found.round} of {found.rounds}{reached}, as of {found.when}")
    for client, why in found.dropped.items():
        print(f"  {printable(client)}: {printable(why)}")
    if found.privacy:
        print(f"privacy: {found.privacy}")
    if found.note:
        print(f"last note: {printable(found.note)}")


def certificate_name(silo: str) -> str:
    """Return the name of the file that a silo joins with."""
    return f"{silo}.certificate.pem"


def _read_address(address: str | None) -> tuple[str, int]:
    """Return the host and the port of an address.

    Raises:
        Mistake: it is not HOST:PORT.
    """
    host, _, port = (address or f"{socket.gethostname().lower()}:{DEFAULT_PORT}").rpartition(":")
    if not host or not port.isdecimal():
        raise Mistake(f"--address {address}: it must be HOST:PORT, such as hub.example.org:{DEFAULT_PORT}")
    return host, int(port)


def _end_if_failed(folder: Path, summary: dict[str, object]) -> None:
    """End the command with status 1 after a run that trained nothing of use."""
    if summary.get("failure"):
        print(f"{folder}: {summary['failure']}", file=sys.stderr)
        raise typer.Exit(1)
