"""A sweep from its grid to its page: all that `coterie sweep` does, except talking to a terminal."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from coterie.core.errors import Mistake
from coterie.experiment.resolve_engine import this_machine
from coterie.processes.launcher import launcher_size
from coterie.sweep.axes import Axis
from coterie.sweep.check_points import check_points, choose_jobs
from coterie.sweep.grid import Grid, SweepOptions, check_options
from coterie.sweep.points import make_points
from coterie.sweep.side_by_side import SweepWatch, run_side_by_side
from coterie.sweep.sweep_toml import check_folder, write_grid
from coterie.sweep.write_results import Results, collect_results, write_results
from coterie.track.file_writing import disk_mistakes
from coterie.track.folder_lock import hold_lock

MAX_WIDENINGS = 6
"""How often a grid is widened before the sweep gives up on finding the best rate inside it."""
_HELD = "another sweep is writing there now; wait for it, or choose another folder with --out"


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


def widen(axes: Sequence[Axis], results: Results) -> list[Axis]:
    """Return the axes with a further value wherever the best learning rate of a setting is at an end of its axis."""
    wanted = {(best.key, best.beyond) for best in results.best if best.beyond is not None}
    wider = list(axes)
    for place, axis in enumerate(axes):
        for key, value in sorted(wanted):
            wider[place] = wider[place].add(value) if key == axis.key else wider[place]
    return wider
