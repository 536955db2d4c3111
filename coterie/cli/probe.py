"""`coterie probe`: the loss between and around the models of finished runs."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from coterie.core.errors import Mistake
from coterie.report.formats import format_number

if TYPE_CHECKING:
    from coterie.experiment.finished import Finished, On, Statistics

app = typer.Typer(
    help="Measure the loss between and around the models of finished runs.", no_args_is_help=True, rich_markup_mode=None
)
Folder = Annotated[Path, typer.Argument(metavar="DIR", help="A run folder.")]
Where = Annotated[str, typer.Option("--on", help="test or train: which examples the loss is measured on.")]
Examples = Annotated[int, typer.Option(help="How many of them.")]
Norms = Annotated[
    str, typer.Option(help="BatchNorm's: measured on training examples at every place, or averaged with the weights.")
]


@app.command()
def line(
    first: Folder,
    second: Folder,
    out: Annotated[Path, typer.Option(help="The page to write.")] = Path("line.html"),
    on: Where = "test",
    examples: Examples = 1000,
    statistics: Norms = "measured",
) -> None:
    """The loss along the line through two runs' models."""
    from coterie.experiment.finished import surface, together
    from coterie.probes import line as along
    from coterie.report.loss_pages import write_line_page

    chosen = _checked(on, examples, statistics)
    runs = together([first, second])
    a, b = (run.end for run in runs)
    found = along(surface(runs[0], *chosen), a, b, progress=_shown)
    loss = dict(zip(found.t, found.measures["loss"], strict=True))
    print(f"loss {format_number(loss[0.0])} and {format_number(loss[1.0])}, half-way {format_number(loss[0.5])}")
    print(f"barrier {format_number(found.barrier)}, distance {format_number(found.distance)}")
    facts = [
        *_facts(runs, *chosen),
        ("distance", format_number(found.distance)),
        ("barrier", format_number(found.barrier)),
    ]
    print(write_line_page(found, (_name(first), _name(second)), facts, out))


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
) -> None:
    """The loss on the plane through three runs' models."""
    from coterie.experiment.finished import surface, together
    from coterie.probes import plane as across
    from coterie.report.loss_pages import write_plane_page

    chosen = _checked(on, examples, statistics)
    runs = together([first, second, third])
    a, b, c = (run.end for run in runs)
    found = across(surface(runs[0], *chosen), a, b, c, points, progress=_shown)
    names = (_name(first), _name(second), _name(third))
    print(write_plane_page(found, names, [*_facts(runs, *chosen), ("places", f"{points} x {points}")], out))


@app.command()
def curvature(
    folders: Annotated[list[Path], typer.Argument(metavar="DIR", help="Run folders.")],
    on: Where = "test",
    examples: Examples = 1000,
    statistics: Norms = "measured",
) -> None:
    """The Hessian's largest eigenvalue where runs began and ended.

    Also how far it is from the one to the other.
    """
    from coterie.core import tree
    from coterie.experiment.finished import finished, surface
    from coterie.probes import curvature as bend
    from coterie.probes.update_geometry import length

    chosen = _checked(on, examples, statistics)
    for run in map(finished, folders):
        place = surface(run, *chosen)
        for name, weights in (("start", run.start), ("end", run.end)):
            found = bend(place, weights)
            print(f"{run.folder}: {name} {format_number(found.value)} (residual {found.residual:.1e})")
        went = length(tree.sub(run.end["params"], run.start["params"]))
        start = length(run.start["params"])
        print(f"{run.folder}: travelled {format_number(went)}, from weights of length {format_number(start)}")


def _checked(on: str, examples: int, statistics: str) -> tuple[On, int, Statistics]:
    for option, given, right, allowed in (
        ("--on", on, on in ("test", "train"), "test or train"),
        ("--examples", examples, examples >= 1, "1 or more"),
        ("--statistics", statistics, statistics in ("measured", "averaged"), "measured or averaged"),
    ):
        if not right:
            raise Mistake(f"{option} {given}: it must be {allowed}")
    return on, examples, statistics  # type: ignore[return-value]


def _facts(runs: Sequence[Finished], on: On, examples: int, statistics: Statistics) -> list[tuple[str, str]]:
    """What was measured, for the page."""
    from coterie.experiment.finished import same_start

    task = next(iter(runs[0].experiment.plan.tasks.values()))
    norms = {"measured": "measured on training examples at every place", "averaged": "averaged with the weights"}
    return [
        *(("run", str(run.folder)) for run in runs),
        ("began with the same weights", "yes" if same_start(runs) else "no"),
        ("data", f"{runs[0].experiment.source.name}, {on}, at most {examples:,} examples"),
        ("BatchNorm's statistics", norms[statistics] if task.batch_norms else "none"),
    ]


def _name(folder: Path) -> str:
    return folder.resolve().name


def _shown(places: Sequence[Any]) -> Iterable[Any]:
    """With a bar in a terminal, on standard error."""
    from rich.console import Console
    from rich.progress import track

    console = Console(stderr=True)
    return track(places, "measuring", console=console, transient=True, disable=not console.is_terminal)
