"""Find the mistakes of every run of a sweep before the first begins, and what the runs need."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from coterie.core.errors import Mistake
from coterie.experiment.build_experiment import build_experiment
from coterie.experiment.engine_choice import PROCESS_BYTES, Machine
from coterie.experiment.estimate_work import estimate_work
from coterie.experiment.resolve_engine import DTYPES, this_machine
from coterie.experiment.resume_run import adopt_settings, is_finished
from coterie.experiment.settings import Settings
from coterie.report.sweep_folder import RUNS
from coterie.sweep.points import Point
from coterie.track import RunFolder


class Need(NamedTuple):
    """What one run of a sweep needs.

    Attributes:
        cores: of this machine.
        nbytes: of memory, about.
        device: where it computes.
    """

    cores: int
    nbytes: int
    device: str


class Checked(NamedTuple):
    """The runs that are left, and the most that any of them needs; None where none is left."""

    left: list[Point]
    need: Need | None


def check_points(points: Sequence[Point], folder: Path, progress: Callable[[int, int], None]) -> Checked:
    """Return the points that are not finished, after building the federation of each setting once.

    Points that differ in their rng seed alone are built once. A mistake that depends on the draw, such as a partition
    that leaves a client without examples, is then found when the run begins.

    Args:
        points: all of them.
        folder: of the sweep.
        progress: is told how many settings are checked, and of how many.

    Raises:
        Mistake: a point cannot be run, or its folder holds a run with other settings; the sentence names the run.
    """
    left = [point for point in points if not _is_finished(point, folder)]
    settings = {_without_seed(point.settings): point for point in reversed(left)}
    machine = replace(this_machine(), copies=False)  # a run of a sweep has a second thread, so it cannot be copied
    needs = []
    for number, point in enumerate(reversed(settings.values()), 1):
        try:
            needs.append(_measure(point.settings, machine, RunFolder(folder / RUNS / point.name).start))
        except Mistake as mistake:
            raise Mistake(f"{mistake} (in the run {point.name})") from mistake
        progress(number, len(settings))
    if not needs:
        return Checked(left, None)
    device = next((need.device for need in needs if need.device != "cpu"), "cpu")
    return Checked(left, Need(max(n.cores for n in needs), max(n.nbytes for n in needs), device))


def _is_finished(point: Point, folder: Path) -> bool:
    run_folder = RunFolder(folder / RUNS / point.name)
    return run_folder.has_run and is_finished(run_folder, adopt_settings(point.settings, run_folder))


def _without_seed(settings: Settings) -> str:
    return json.dumps(replace(settings, rng_seed=0).tables(), sort_keys=True, default=str)


def _measure(settings: Settings, machine: Machine, start_folder: Path) -> Need:
    """Return what a run needs.

    Raises:
        Mistake: it cannot be run.
    """
    experiment = build_experiment(settings, machine, start_folder if start_folder.is_dir() else None)
    plan, engine = experiment.plan, experiment.settings.engine
    work = estimate_work(
        plan.algorithm,
        list(experiment.models.values()),
        plan.clients,
        rounds=1,
        cohort=1,
        seed_set=plan.seed_set,
        dtype=DTYPES[engine.dtype],
    )
    assert engine.workers != "auto", "the settings are resolved"
    assert engine.threads != "auto", "the settings are resolved"
    nbytes = engine.workers * (PROCESS_BYTES + work.data + work.order + work.nbytes * (engine.chunk or 1))
    return Need(engine.workers * engine.threads, nbytes, engine.device)


def choose_jobs(need: Need, machine: Machine, runs: int) -> int:
    """Return how many runs go on at once: as many as have cores of their own and fit into half of the memory.

    Runs on a GPU take turns, since each would use all of it.

    >>> laptop = Machine(cores=8, memory=2**33, device="cpu", compiler=True)
    >>> choose_jobs(Need(1, 2**28, "cpu"), laptop, 100), choose_jobs(Need(2, 2**30, "cpu"), laptop, 3)
    (8, 3)
    >>> choose_jobs(Need(1, 2**31, "cpu"), laptop, 100), choose_jobs(Need(1, 2**28, "cuda"), laptop, 100)
    (2, 1)
    """
    if need.device != "cpu":
        return 1
    return max(1, min(machine.cores // need.cores, machine.memory // 2 // need.nbytes, runs))
