"""The commands of `coterie`.

The exit status is 0 after success, 2 after a mistake of the user's, which one sentence explains, and 1 otherwise.
Modules that take long to import are imported in the commands that need them.
"""

from __future__ import annotations

import errno
import os
import shlex
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

from coterie.cli import data_commands, peer_commands, probe_commands, silo_commands
from coterie.cli.interrupts import handle_interrupts
from coterie.cli.option_names import AsJson, File, Overrides, Quiet, Resume, Trust
from coterie.cli.output_forms import JsonLines, choose_output
from coterie.cli.standard_streams import steady_streams
from coterie.core.errors import FolderGone, Mistake, reason
from coterie.core.printable import printable
from coterie.core.program_cache import keep_compiled_programs
from coterie.core.threads import let_waiting_threads_sleep

if TYPE_CHECKING:
    from coterie.experiment.settings import Settings
    from coterie.processes.team import Team

app = typer.Typer(
    name="coterie",
    help="Federated learning: run experiments from TOML files, report on them, and compare them.",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)

app.add_typer(data_commands.app, name="data")
app.add_typer(probe_commands.app, name="probe")
app.add_typer(silo_commands.app, name="deploy")

Folders = Annotated[list[Path], typer.Argument(metavar="DIR", help="Run folders.")]
Compared = Annotated[list[Path], typer.Argument(metavar="DIR", help="Run folders, or the folder of a sweep.")]

_OF_THE_USER = (errno.ENAMETOOLONG, errno.EACCES, errno.EPERM, errno.EROFS, errno.ELOOP, errno.ENOTDIR, errno.EISDIR)
"""What the system says of paths that a user should not have given. A full disk is another matter."""

WrongUse: Any = typer.BadParameter.__mro__[1]
"""The exception for unknown commands, options and values: typer's own, or that of the package click, by version."""


@app.command()
def run(
    file: File,
    overrides: Overrides = None,
    out: Annotated[Path | None, typer.Option(help="The run folder. [default: runs/<name of FILE>]")] = None,
    resume: Resume = False,
    workers: Annotated[
        int | None, typer.Option(help="How many processes share the work; the same as engine.workers=N.")
    ] = None,
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Run an experiment, and write its folder: records, model, report."""
    with choose_output(quiet, as_json) as lines:
        _run(file, overrides or [], out, resume, workers, lines)


def _run(
    file: Path, overrides: list[str], out: Path | None, resume: bool, workers: int | None, lines: JsonLines | None
) -> None:
    from coterie.experiment.settings import load_settings
    from coterie.processes.launcher import launcher_rank, launcher_size

    folder = out or Path("runs") / file.stem
    changes = [*overrides, *([] if workers is None else [f"engine.workers={workers}"])]
    command = shlex.join(["coterie", "run", str(file), *changes, "--out", str(folder), "--resume"])
    if _is_chain(file, folder):
        from coterie.experiment.stages import load_stages

        stages = load_stages(file, changes)
        from coterie.cli.stages_command import run_chain  # which imports PyTorch

        with handle_interrupts(command, "round and interval"):
            return run_chain(stages, folder, resume, lines)
    if launcher_rank() > 0:
        _run_other_process()
    if launcher_size() is not None:
        command = f"torchrun ... -m {command}"
    with handle_interrupts(command, "round"):
        if launcher_size() is None:  # a mistake in the file is found before PyTorch is imported
            return _run_first_process(load_settings(file, changes), folder, resume, lines)
        from coterie.processes.process_group import join_team

        with join_team() as team:  # the other processes learn of a mistake
            _run_first_process(load_settings(file, changes), folder, resume, lines, team)


def _is_chain(file: Path, folder: Path) -> bool:
    """Return whether a file is a chain of stages; refuse the folder of a chain to any other run.

    Raises:
        Mistake: the file cannot be read, or the folder holds a chain that the file is not.
    """
    from coterie.experiment.toml_file import has_stages

    if has_stages(file):
        return True
    if (folder / "stages").is_dir():
        raise Mistake(f"{folder}: holds a chain of stages, which {file} is not; choose another folder with --out")
    return False


def _run_other_process() -> NoReturn:
    """Follow the first of the processes that a launcher started, print nothing, and end with an exit status."""
    from coterie.experiment.shared_run import follow
    from coterie.processes.lost import Lost
    from coterie.processes.process_group import join_team

    try:
        with join_team() as team:
            follow(team)
    except Mistake:
        raise typer.Exit(2) from None
    except Lost:
        raise typer.Exit(1) from None
    raise typer.Exit


def _run_first_process(
    settings: Settings, folder: Path, resume: bool, lines: JsonLines | None, team: Team | None = None
) -> None:
    """Run an experiment together with the team's other processes, if there are any, and show progress and results."""
    from coterie.cli.run_display import RunDisplay, show_logs
    from coterie.experiment.run import run as run_experiment
    from coterie.processes.team import ALONE

    display = RunDisplay(lines)
    with show_logs(display):
        outcome = run_experiment(settings, folder, resume, display, team or ALONE)
    if not outcome.ran:
        print(f"{folder}: finished already, after {outcome.summary['rounds']} rounds")
    display.show_summary(outcome.summary)
    print(folder / "report.html")
    if outcome.summary.get("failure"):
        print(f"{folder}: {outcome.summary['failure']}", file=sys.stderr)
        raise typer.Exit(1)


@app.command()
def pretrain(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="The pre-training, a TOML file.")],
    overrides: Annotated[
        list[str] | None,
        typer.Argument(metavar="TABLE.KEY=VALUE", help="Keys to change, such as pretrain.minutes=5."),
    ] = None,
    out: Annotated[Path | None, typer.Option(help="The run folder. [default: runs/<name of FILE>]")] = None,
    resume: Resume = False,
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Train an encoder on fractals, from which runs can start."""
    from coterie.cli.pretrain_command import run_pretraining

    with choose_output(quiet, as_json) as lines:
        run_pretraining(file, overrides or [], out, resume, lines)


@app.command()
def report(folders: Folders) -> None:
    """Write the report of run folders again."""
    from coterie.report import write_report

    for folder in folders:
        print(write_report(folder))


@app.command()
def compare(
    folders: Compared,
    out: Annotated[Path, typer.Option(help="The page to write.")] = Path("compare.html"),
    target: Annotated[float | None, typer.Option(help="Count rounds to this accuracy, not each run's own.")] = None,
    baseline: Annotated[
        str | None, typer.Option(help="The run that speed-ups refer to, by its name. [default: the first]")
    ] = None,
    csv: Annotated[
        Path | None, typer.Option("--csv", help="Also write a row for each run as CSV; - prints it.")
    ] = None,
    latex: Annotated[
        Path | None, typer.Option("--latex", help="Also write a LaTeX table with booktabs; - prints it.")
    ] = None,
) -> None:
    """Compare the settings and results of runs, or of a sweep."""
    from coterie.cli.compare_command import compare_folders

    compare_folders(folders, out, target, baseline, csv, latex)


@app.command()
def watch(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="The folder of a run, a chain or a sweep.")],
    port: Annotated[int, typer.Option(help="Where to listen on this machine. [default: a free port]")] = 0,
) -> None:
    """Show a run or a sweep in a browser while it goes on."""
    from coterie.cli.watch_command import watch_folder

    watch_folder(folder, port)


@app.command()
def sweep(
    file: File,
    values: Annotated[
        list[str] | None,
        typer.Argument(metavar="KEY=A,B,...", help="What to vary, such as lr=0.1,0.2 or lr=0.01..1:log:9."),
    ] = None,
    out: Annotated[Path | None, typer.Option(help="The sweep's folder. [default: runs/<name of FILE>-sweep]")] = None,
    jobs: Annotated[
        int | None, typer.Option(help="How many runs go on at once. [default: as the cores and the memory allow]")
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Continue a stopped sweep; start if there is none.")] = False,
    widen: Annotated[
        bool, typer.Option("--widen", help="Add learning rates until the best one lies inside the grid.")
    ] = False,
    baseline: Annotated[
        str | None, typer.Option(help="The run that speed-ups refer to, by its name. [default: the first]")
    ] = None,
    slurm: Annotated[bool, typer.Option("--slurm", help="Print an array job of Slurm, and run nothing.")] = False,
    quiet: Quiet = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the rows of sweep.csv as JSON at the end, one a line.")
    ] = False,
) -> None:
    """Run an experiment at every point of a grid, several at once."""
    from coterie.cli.sweep_command import print_array_job, run_sweep
    from coterie.sweep.grid import SweepOptions

    folder = out or Path("runs") / f"{file.stem}-sweep"
    options = SweepOptions(jobs, resume, widen, baseline)
    if slurm and (quiet or as_json):
        raise Mistake("--slurm prints a script, so it goes with neither --quiet nor --json; leave them out")
    if slurm:
        return print_array_job(file, values or [], folder, options)
    with choose_output(quiet, as_json) as lines:
        run_sweep(file, values or [], folder, options, lines)


@app.command()
def predict(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="The folder of a finished run.")],
    file: Annotated[
        Path, typer.Argument(metavar="FILE", help="A .csv, .parquet or .npz file, an image, or a folder of images.")
    ],
    client: Annotated[str | None, typer.Option(help="The client whose model is used, where each has its own.")] = None,
    out: Annotated[Path, typer.Option(help="The table to write.")] = Path("predictions.csv"),
    trust: Trust = False,
) -> None:
    """Apply a finished run's model to new examples.

    It writes a table with the most probable class of each example and the probability of every class.
    """
    from coterie.cli.predict_command import write_predictions

    write_predictions(folder, file, client, out, trust)


peer_commands.add_to(app)


def _print_version(wanted: bool) -> None:
    """Print the version and end the command, if it is wanted."""
    if wanted:
        from coterie import __version__

        print(__version__)
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Federated learning: run experiments from TOML files, report on them, and compare them."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command and end the process with its exit status; an unexpected error leaves a traceback."""
    let_waiting_threads_sleep()
    keep_compiled_programs()
    with steady_streams() as out, warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Initializing zero-element tensors")  # where it matters, a sentence follows
        status = _run_command(arguments)
        out.flush()
        if out.error is not None:
            print(f"standard output cannot be written ({out.error.strerror})", file=sys.stderr)
            status = status or 1
    sys.exit(status)


def _run_command(arguments: Sequence[str] | None) -> int:
    """Run the command, and return its exit status; what ends it early is one line on standard error."""
    try:
        status = app(args=None if arguments is None else list(arguments), prog_name="coterie", standalone_mode=False)
    except Mistake as mistake:
        return _print_end(str(mistake), 2)
    except WrongUse as error:
        return _explain_use(error)
    except typer.Abort:
        return _print_end("stopped", 1)
    except FolderGone as gone:
        return _print_end(str(gone), 1)
    except OSError as error:
        if error.filename is None:
            raise
        sentence = f"{os.fsdecode(error.filename)}: cannot be used ({error.strerror})"
        return _print_end(sentence, 2 if error.errno in _OF_THE_USER else 1)
    except MemoryError as error:
        return _print_end(f"there is not enough memory ({reason(error)}); choose smaller data, models or batches", 1)
    except RuntimeError as error:
        if "can't allocate memory" not in str(error):
            raise
        return _print_end("there is not enough memory; choose smaller data, models or batches", 1)
    return status if isinstance(status, int) else 0


def _explain_use(error: WrongUse) -> int:
    """Print in a sentence how a command was used wrongly, or the help where nothing was asked for; return 2."""
    message = error.format_message()
    if "\n" in message:
        print(message, file=sys.stderr)
        return 2
    command = error.ctx.command_path if error.ctx else "coterie"
    return _print_end(f"{command}: {message.rstrip('.')}; `{command} --help` says how it is used", 2)


def _print_end(sentence: str, status: int) -> int:
    """Print a sentence to standard error, and return the exit status."""
    print(printable(sentence), file=sys.stderr)
    return status
