"""`coterie probe`: measure finished runs more closely: the loss around their models, and what they show of the data."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from coterie.cli.option_names import Trust, mistakes_in_options
from coterie.cli.privacy_command import privacy
from coterie.core.errors import require
from coterie.report.formats import format_number

if TYPE_CHECKING:
    from coterie.experiment.finished_run import FinishedRun, On, Statistics

app = typer.Typer(
    help="Measure finished runs: their loss, and what they give away.",
    no_args_is_help=True,
    rich_markup_mode=None,
)
app.command()(privacy)
Folder = Annotated[Path, typer.Argument(metavar="DIR", help="A run folder.")]
Where = Annotated[str, typer.Option("--on", help="Measure the loss on test or train examples.")]
Examples = Annotated[int, typer.Option(help="The largest number of examples.")]
Norms = Annotated[
    str,
    typer.Option(
        help="BatchNorm's statistics: measured on training examples at every place, or averaged with the weights."
    ),
]


@app.command()
def line(
    first: Folder,
    second: Folder,
    out: Annotated[Path, typer.Option(help="The page to write.")] = Path("line.html"),
    on: Where = "test",
    examples: Examples = 1000,
    statistics: Norms = "measured",
    trust: Trust = False,
) -> None:
    """Measure the loss along the line through two runs' models.

    It prints the loss at both ends and midway, the barrier and the distance, and writes a page.
    """
    from coterie.experiment.finished_run import load_comparable_runs, loss_surface
    from coterie.probes import line as measure_line
    from coterie.report.loss_pages import write_line_page

    chosen = _check_options(on, examples, statistics)
    runs = load_comparable_runs([first, second], trust)
    a, b = (run.end for run in runs)
    losses = measure_line(loss_surface(runs[0], *chosen), a, b, progress=show_progress)
    loss = dict(zip(losses.t, losses.measures["loss"], strict=True))
    print(f"loss {format_number(loss[0.0])} and {format_number(loss[1.0])}, midway {format_number(loss[0.5])}")
    barrier, distance = format_number(losses.barrier), format_number(losses.distance)
    print(f"barrier {barrier}, distance {distance}")
    facts = [*_facts(runs, *chosen), ("distance", distance), ("barrier", barrier)]
    print(write_line_page(losses, (_folder_name(first), _folder_name(second)), facts, out))


@app.command()
def plane(
    first: Folder,
    second: Folder,
    third: Folder,
    out: Annotated[Path, typer.Option(help="The page to write.")] = Path("plane.html"),
    points: Annotated[int, typer.Option(help="Places in each direction.")] = 15,
    on: Where = "test",
    examples: Examples = 1000,
    statistics: Norms = "measured",
    trust: Trust = False,
) -> None:
    """Measure the loss on the plane through three runs' models.

    It writes a page with the lines of equal loss.
    """
    from coterie.experiment.finished_run import load_comparable_runs, loss_surface
    from coterie.probes import plane as measure_plane
    from coterie.report.loss_pages import write_plane_page

    chosen = _check_options(on, examples, statistics)
    with mistakes_in_options():
        require("points", points, points >= 2, "2 or more")  # before the runs are read
    runs = load_comparable_runs([first, second, third], trust)
    a, b, c = (run.end for run in runs)
    losses = measure_plane(loss_surface(runs[0], *chosen), a, b, c, points, progress=show_progress)
    names = (_folder_name(first), _folder_name(second), _folder_name(third))
    print(write_plane_page(losses, names, [*_facts(runs, *chosen), ("places", f"{points} x {points}")], out))


@app.command()
def curvature(
    folders: Annotated[list[Path], typer.Argument(metavar="DIR", help="Run folders.")],
    on: Where = "test",
    examples: Examples = 1000,
    statistics: Norms = "measured",
    trust: Trust = False,
) -> None:
    """Measure how sharply the loss bends where runs began and ended.

    It prints the largest eigenvalue of the Hessian at the start and at the end, and the distance between the two.
    """
    from coterie.core import tree
    from coterie.experiment.finished_run import load_finished_run, loss_surface
    from coterie.probes import curvature as measure_curvature
    from coterie.probes.update_geometry import length

    chosen = _check_options(on, examples, statistics)
    for folder in folders:
        run = load_finished_run(folder, trust)
        loss = loss_surface(run, *chosen)
        for name, weights in (("start", run.start), ("end", run.end)):
            largest = measure_curvature(loss, weights)
            print(f"{run.folder}: {name} {format_number(largest.value)} (residual {largest.residual:.1e})")
        travelled = format_number(length(tree.sub(run.end["params"], run.start["params"])))
        start = format_number(length(run.start["params"]))
        print(f"{run.folder}: travelled {travelled}, from weights of length {start}")


def _check_options(on: str, examples: int, statistics: str) -> tuple[On, int, Statistics]:
    """Return the three options after checking them; refuse one that is out of its range."""
    with mistakes_in_options():
        require("on", on, on in ("test", "train"), "test or train")
        require("examples", examples, examples >= 1, "1 or more")
        require("statistics", statistics, statistics in ("measured", "averaged"), "measured or averaged")
    return on, examples, statistics  # type: ignore[return-value]


def _facts(runs: Sequence[FinishedRun], on: On, examples: int, statistics: Statistics) -> list[tuple[str, str]]:
    """Return what was measured on which data, for the table on the page."""
    from coterie.experiment.finished_run import have_same_start

    task = next(iter(runs[0].experiment.plan.tasks.values()))
    norms = {"measured": "measured on training examples at every place", "averaged": "averaged with the weights"}
    return [
        *(("run", str(run.folder)) for run in runs),
        ("began with the same weights", "yes" if have_same_start(runs) else "no"),
        ("data", f"{runs[0].experiment.source.name}, {on}, at most {examples:,} examples"),
        ("BatchNorm's statistics", norms[statistics] if task.batch_norms else "none"),
    ]


def _folder_name(folder: Path) -> str:
    return folder.resolve().name


def show_progress(places: Sequence[Any]) -> Iterable[Any]:
    """Iterate over places, with a bar on standard error in a terminal."""
    from rich.console import Console
    from rich.progress import track

    console = Console(stderr=True)
    return track(places, "measuring", console=console, transient=True, disable=not console.is_terminal)
