"""`coterie peer` and `coterie peer-key`: take part in a run without a server."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import Annotated

import typer

from coterie.cli.interrupts import handle_interrupts
from coterie.cli.option_names import AsJson, Quiet
from coterie.cli.output_forms import choose_output

Id = Annotated[str, typer.Option("--id", help="The client of the experiment that this participant is.")]
Key = Annotated[
    Path | None, typer.Option("--key", help="The file of its private key. [default: ~/.coterie/keys/ID.key]")
]


def peer(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="The experiment, a TOML file, the same everywhere.")],
    me: Id,
    mailbox: Annotated[
        str, typer.Option(help="A folder that all participants see, or a URL such as s3://bucket/folder.")
    ],
    overrides: Annotated[
        list[str] | None,
        typer.Argument(metavar="TABLE.KEY=VALUE", help="Keys to change, such as data.path=north.csv."),
    ] = None,
    roster: Annotated[
        Path | None, typer.Option(help="The file of all public keys. [default: trust the keys found in the mailbox]")
    ] = None,
    key: Key = None,
    out: Annotated[Path | None, typer.Option(help="The run folder. [default: runs/<name of FILE>-<ID>]")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Continue a stopped run; start if there is none.")] = False,
    deadline: Annotated[float, typer.Option(min=0.1, help="Seconds to wait for the others in a round.")] = 60.0,
    start_deadline: Annotated[float, typer.Option(min=0.1, help="Seconds to wait for all to come.")] = 600.0,
    min_clients: Annotated[int, typer.Option(min=1, help="Updates below which a round waits on.")] = 1,
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Take part in a run without a server, by signed messages."""
    from coterie.experiment.settings import load_settings
    from coterie.peers.names import spell
    from coterie.peers.pace import Pace

    folder = out or Path("runs") / f"{file.stem}-{spell(me)}"
    settings = load_settings(file, overrides or [])
    from coterie.cli.run_display import RunDisplay, show_logs  # which import PyTorch
    from coterie.experiment.peer_run import Peer
    from coterie.experiment.run import run as run_experiment

    given = ["--id", me, "--mailbox", mailbox]
    given += [] if roster is None else ["--roster", str(roster)]
    given += [] if key is None else ["--key", str(key)]
    given += [
        "--deadline",
        f"{deadline:g}",
        "--start-deadline",
        f"{start_deadline:g}",
        "--min-clients",
        str(min_clients),
    ]
    command = shlex.join(["coterie", "peer", str(file), *(overrides or []), *given, "--out", str(folder), "--resume"])
    names_own_file = any(given.partition("=")[0].strip() == "data.path" for given in overrides or [])
    pace = Pace(deadline, start_deadline, min_clients)
    with choose_output(quiet, as_json) as lines:
        display = RunDisplay(lines)
        who = Peer(me, mailbox, roster, key, pace, names_own_file, display.say)
        with handle_interrupts(command, "round"):
            with show_logs(display):
                outcome = run_experiment(settings, folder, resume, display, participation=who)
            if not outcome.ran:
                print(f"{folder}: finished already, after {outcome.summary['rounds']} rounds")
            display.show_summary(outcome.summary)
            print(folder / "report.html")
    if outcome.summary.get("failure"):
        print(f"{folder}: {outcome.summary['failure']}", file=sys.stderr)
        raise typer.Exit(1)


def peer_key(me: Id, key: Key = None) -> None:
    """Make a participant's key, and print its line of the roster."""
    from coterie.experiment.peer_run import default_key
    from coterie.peers.keys import load_key, make_key
    from coterie.peers.roster import roster_line

    path = key or default_key(me)
    found = load_key(path) if path.exists() else make_key(path)
    print(roster_line(me, found.public_key), end="")
    print(f"the private key is in {path}: keep it there, and send only the line above to the others", file=sys.stderr)


def add_to(app: typer.Typer) -> None:
    """Add the commands to `coterie`."""
    app.command()(peer)
    app.command(name="peer-key")(peer_key)
