"""A sweep as an array job of Slurm: a script with one run for each task."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path

from coterie.report.sweep_folder import RUNS
from coterie.sweep.points import Point


def array_job(file: Path, folder: Path, points: Sequence[Point], jobs: int | None, resume_command: str) -> str:
    """Return the script of an array job that carries out the runs of a sweep.

    Args:
        file: the experiment.
        folder: of the sweep.
        points: its runs.
        jobs: how many go on at once; None leaves it to Slurm.
        resume_command: collects the results when all tasks are done.
    """
    limit = "" if jobs is None else f"%{jobs}"
    cores = max(_cores(point) for point in points)
    lines = [
        "#!/bin/bash",
        f"#SBATCH --job-name={shlex.quote(folder.name)}",
        f"#SBATCH --array=0-{len(points) - 1}{limit}",
        f"#SBATCH --cpus-per-task={cores}",
        f"# When all tasks are done, write the table and the page with\n#   {resume_command}",
        "set -e",
        'case "$SLURM_ARRAY_TASK_ID" in',
    ]
    for number, point in enumerate(points):
        engine = point.settings.engine
        changes = [each for each in point.overrides if not each.startswith(("engine.workers=", "engine.threads="))]
        changes += [f"engine.workers={engine.workers}", f"engine.threads={engine.threads}"]
        command = ["coterie", "run", str(file), *changes, "--out", str(folder / RUNS / point.name), "--resume"]
        lines.append(f"{number}) {shlex.join(command)} ;;")
    return "\n".join([*lines, "esac", ""])


def _cores(point: Point) -> int:
    engine = point.settings.engine
    assert engine.workers != "auto", "a point leaves it no longer open"
    assert engine.threads != "auto", "a point leaves it no longer open"
    return engine.workers * engine.threads
