"""A sweep from its grid to its page: all that `coterie sweep` does, except talking to a terminal."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from coterie.core.errors import Mistake, require
from coterie.experiment.resolve_engine import this_machine
from coterie.processes.process_group import launcher_size
from coterie.report.sweep_folder import is_sweep
from coterie.sweep.axes import Axis, parse_axis
from coterie.sweep.check_points import check_points, choose_jobs
from coterie.sweep.full_names import complete_names
from coterie.sweep.points import Point, make_points
from coterie.sweep.side_by_side import SweepWatch, run_side_by_side
from coterie.sweep.sweep_toml import check_folder, check_same_keys, read_grid, write_grid
from coterie.sweep.write_results import Results, collect_results, write_results
from coterie.track.file_writing import disk_mistakes
from coterie.track.folder_lock import hold_lock

MAX_WIDENINGS = 6
"""How often a grid is widened before the sweep gives up on finding the best rate inside it."""
_HELD = "another sweep is writing there now; wait for it, or choose another folder with --out"


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
    check_folder(folder, resume)
    if not arguments and not resume:
        raise Mistake("a sweep needs a key with two values or more, such as lr=0.1,0.2")
    axes = complete_names(file, [parse_axis(each) for each in arguments] if arguments else read_grid(folder))
    grid = Grid(axes, make_points(file, axes))
    if is_sweep(folder):
        check_same_keys(folder, axes)
    return grid


def sweep(file: Path, grid: Grid, folder: Path, options: SweepOptions, watch: SweepWatch) -> Results:
    """Carry out the runs of a grid that are left, and write the table and the page.

    Values may be added to a sweep that goes on, and left out. A run whose value is left out stays in its folder, and
    leaves the table and the page.

    Args:
        file: the experiment.
        grid: from `read_sweep`.
        folder: of the sweep.
        options: how it is carried out.
        watch: is told how it goes on.

    Raises:
        Mistake: a run cannot be started, which is found before the first one starts and before anything is written; or
            the folder cannot be used.
    """
    if launcher_size() is not None:
        raise Mistake("a sweep starts its runs itself, so start it once, without torchrun")
    check_options(options, grid.points)
    checked = check_points(grid.points, folder, watch.check)
    with disk_mistakes(folder, "choose another folder with --out"):
        folder.mkdir(parents=True, exist_ok=True)
    with hold_lock(folder, _HELD):
        check_folder(folder, options.resume)
        write_grid(folder, file, grid.axes)
        failed: dict[str, str] = {}
        for number in range(MAX_WIDENINGS + 1):
            if checked.need is not None:
                jobs = options.jobs or choose_jobs(checked.need, this_machine(), len(checked.left))
                watch.begin(grid.points, checked.left, jobs)
                failed |= run_side_by_side(checked.left, folder, jobs, watch)
            results = collect_results(folder, grid.axes, grid.points, failed, options.baseline)
            write_results(folder, file, grid.axes, grid.points, results)
            wider = widen(grid.axes, results) if options.widen else grid.axes
            if wider == grid.axes or number == MAX_WIDENINGS:
                break
            grid = Grid(wider, make_points(file, wider))
            new = [point for point in grid.points if point.name not in failed]  # a run that failed is not tried again
            checked = check_points(new, folder, watch.check)
            write_grid(folder, file, grid.axes)
    return results


def check_options(options: SweepOptions, points: Sequence[Point]) -> None:
    """Refuse a number of jobs below 1, and a baseline that is not a run of the sweep.

    Raises:
        Mistake: there is one.
    """
    require("jobs", options.jobs, options.jobs is None or options.jobs >= 1, "1 or more")
    names = {name for point in points for name in (point.name, point.name_without_seed)}
    known = options.baseline is None or options.baseline in names
    require("baseline", options.baseline, known, f"the name of a run, such as {points[0].name}")


def widen(axes: Sequence[Axis], results: Results) -> list[Axis]:
    """Return the axes with a further value wherever the best learning rate of a setting is at an end of its axis."""
    wanted = {(best.key, best.beyond) for best in results.best if best.beyond is not None}
    wider = list(axes)
    for place, axis in enumerate(axes):
        for key, value in sorted(wanted):
            wider[place] = wider[place].add(value) if key == axis.key else wider[place]
    return wider
