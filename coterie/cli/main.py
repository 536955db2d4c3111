"""The command's verbs. Exit status 0: done; 2: a mistake of the user's, in one sentence; 1: anything else."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

from coterie.cli import data, probe
from coterie.cli.interruptible import interruptible
from coterie.core.errors import Mistake
from coterie.processes.team import Lost

if TYPE_CHECKING:
    from coterie.processes.team import Team

app = typer.Typer(
    name="coterie",
    help="Federated learning: run an experiment from a TOML file, report on it, compare several.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)

app.add_typer(data.app, name="data")
app.add_typer(probe.app, name="probe")

File = Annotated[Path, typer.Argument(metavar="FILE", help="The experiment, a TOML file.")]
Overrides = Annotated[
    list[str] | None,
    typer.Argument(metavar="TABLE.KEY=VALUE", help="Keys to change, such as algorithm.lr=0.05."),
]
Folders = Annotated[list[Path], typer.Argument(metavar="DIR", help="Run folders.")]


@app.command()
def run(
    file: File,
    overrides: Overrides = None,
    out: Annotated[Path | None, typer.Option(help="The run folder. [default: runs/<the file's stem>]")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Continue what was stopped; start if nothing was.")] = False,
    workers: Annotated[
        int | None, typer.Option(help="Processes that share the work; the same as engine.workers=N.")
    ] = None,
) -> None:
    """Run an experiment; write its folder: records, model, report."""
    from coterie.processes.torchrun import join_team, launcher_rank, launcher_size

    folder = out or Path("runs") / file.stem
    changes = [*(overrides or []), *([] if workers is None else [f"engine.workers={workers}"])]
    again = shlex.join(["coterie", "run", str(file), *changes, "--out", str(folder), "--resume"])
    if launcher_rank() > 0:
        _follow()
    with interruptible(again if launcher_size() is None else f"torchrun ... -m {again}", "round"), join_team() as team:
        _lead(file, changes, folder, resume, team)


def _follow() -> NoReturn:
    """The run in a process that a launcher started, but not as the first: of what happens here, that one tells."""
    from coterie.experiment.members import follow
    from coterie.processes.torchrun import join_team

    try:
        with join_team() as team:
            follow(team)
    except Mistake:
        raise typer.Exit(2) from None
    except Lost:
        raise typer.Exit(1) from None
    raise typer.Exit


def _lead(file: Path, overrides: list[str], folder: Path, resume: bool, team: Team) -> None:
    """Run an experiment, with the others of a launcher's team if there are any."""
    from coterie.cli.terminal import Terminal, listening
    from coterie.experiment.run import run as carry_out
    from coterie.experiment.settings import load

    settings = load(file, overrides)
    terminal = Terminal()
    with listening(terminal):
        outcome = carry_out(settings, folder, resume, terminal, team)
    if not outcome.ran:
        print(f"{folder}: finished already, after {outcome.summary['rounds']} rounds")
    terminal.summary(outcome.summary)
    print(folder / "report.html")


@app.command()
def pretrain(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="The pre-training, a TOML file.")],
    overrides: Annotated[
        list[str] | None,
        typer.Argument(metavar="TABLE.KEY=VALUE", help="Keys to change, such as pretrain.minutes=5."),
    ] = None,
    out: Annotated[Path | None, typer.Option(help="The folder. [default: runs/<the file's stem>]")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Continue what was stopped; start if nothing was.")] = False,
) -> None:
    """Train an encoder on fractals, for runs to start from."""
    from coterie.cli.pretrain import pretrain as carry_out

    carry_out(file, overrides or [], out, resume)


@app.command()
def report(folders: Folders) -> None:
    """Write the report of run folders anew."""
    from coterie.report import write_report

    for folder in folders:
        print(write_report(folder))


@app.command()
def compare(
    folders: Folders,
    out: Annotated[Path, typer.Option(help="The page to write.")] = Path("compare.html"),
    target: Annotated[float | None, typer.Option(help="Count rounds to this accuracy, not to each run's own.")] = None,
) -> None:
    """Say in what runs differ and how they ended: a table and a page."""
    from coterie.cli.comparison import show
    from coterie.report import compare_runs, write_comparison

    comparison = compare_runs(folders, target)
    show(comparison)
    print(write_comparison(comparison, out))


@app.command()
def predict(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="A finished run's folder.")],
    file: Annotated[
        Path, typer.Argument(metavar="FILE", help="A .csv, .parquet or .npz, a picture, or a folder of pictures.")
    ],
    client: Annotated[str | None, typer.Option(help="Whose model, where each client has its own.")] = None,
    out: Annotated[Path, typer.Option(help="The table to write.")] = Path("predictions.csv"),
) -> None:
    """Use a finished run's model on new examples.

    It writes a table: the likeliest class of each, and how likely every class is.
    """
    from coterie.cli.predict import predict as carry_out

    carry_out(folder, file, client, out)


def _version(wanted: bool) -> None:
    if wanted:
        from coterie import __version__

        print(__version__)
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Federated learning: run an experiment from a TOML file, report on it, compare several."""


def main(arguments: Sequence[str] | None = None) -> None:
    """The command. Ends the process, except where an error leaves a traceback."""
    try:
        app(args=None if arguments is None else list(arguments), prog_name="coterie")
    except Mistake as mistake:
        print(mistake, file=sys.stderr)
        sys.exit(2)
