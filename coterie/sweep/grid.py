"""What a sweep varies, and how it is carried out. Its mistakes are found without PyTorch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from coterie.core.errors import Mistake, require
from coterie.experiment.toml_file import has_stages
from coterie.report.sweep_folder import is_sweep
from coterie.sweep.axes import Axis, parse_axis
from coterie.sweep.full_names import complete_names
from coterie.sweep.points import Point, make_points
from coterie.sweep.sweep_toml import check_folder, check_same_keys, read_grid


class Grid(NamedTuple):
    """What a sweep varies, and the runs that follow."""

    axes: list[Axis]
    points: list[Point]


@dataclass(frozen=True)
class SweepOptions:
    """How a sweep is carried out.

    Attributes:
        jobs: how many runs go on at once; None for as many as the cores and the memory allow.
        resume: whether the folder may hold a sweep that has begun.
        widen: whether to add values until the best learning rate lies inside the grid.
        baseline: the name of the run that speed-ups refer to; None for the first.
    """

    jobs: int | None = None
    resume: bool = False
    widen: bool = False
    baseline: str | None = None


def read_sweep(file: Path, arguments: Sequence[str], folder: Path, resume: bool) -> Grid:
    """Return what a sweep varies, by the arguments of the command line or else by the sweep in the folder.

    Raises:
        Mistake: a setting of a run cannot be used, or the folder cannot.
    """
    if has_stages(file):
        raise Mistake(
            f"{file}: is a chain of stages, and a sweep varies one experiment; sweep a stage in a file of its own, or "
            "vary the chain with `coterie run FILE stage.1.KEY=VALUE --out DIR`"
        )
    check_folder(folder, resume)
    if not arguments and not resume:
        raise Mistake("a sweep needs a key with two values or more, such as lr=0.1,0.2")
    axes = complete_names(file, [parse_axis(each) for each in arguments] if arguments else read_grid(folder))
    grid = Grid(axes, make_points(file, axes))
    if is_sweep(folder):
        check_same_keys(folder, axes)
    return grid


def check_options(options: SweepOptions, points: Sequence[Point]) -> None:
    """Refuse a number of jobs below 1, and a baseline that is not a run of the sweep.

    Raises:
        Mistake: there is one.
    """
    require("jobs", options.jobs, options.jobs is None or options.jobs >= 1, "1 or more")
    names = {name for point in points for name in (point.name, point.name_without_seed)}
    known = options.baseline is None or options.baseline in names
    require("baseline", options.baseline, known, f"the name of a run, such as {points[0].name}")
