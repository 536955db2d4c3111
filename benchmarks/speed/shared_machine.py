"""What a busy program on one of two cores costs a run: seconds on a quiet machine, beside it, and their ratio.

    python benchmarks/speed/shared_machine.py [--before OTHER] [--turns 5] [--only TEXT] [--env NAME=VALUE ...]

Each case is a whole `coterie run`, on two cores, without any variable of OpenMP unless --env sets one. Its seconds are
those of the last record: rounds and evaluation, without the start of Python. In a turn every version runs each case
once quietly, then once beside `while True: pass`, which may use the same two cores. The figures are medians over turns.
With --before, the folder of another checkout of coterie, both versions take turns, and the last column compares their
quiet times: above 1 this checkout is slower. Nothing else should run on the machine at the same time. A run beside the
busy program is stopped after LIMIT times its quiet time, and counts as that.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

ROOT = Path(__file__).resolve().parents[2]
DIGITS = ROOT / "experiments" / "digits.toml"
CASES = {
    "make run": [],
    "CNN, 6 rounds": ["model.name=cnn", "rounds=6", "engine.workers=1"],
    "2 workers": ["engine.workers=2"],
}
LIMIT = 10
"""How many times its quiet time a run may take beside the busy program."""
QUIET_LIMIT_SECONDS = 600.0
TOLD = ("OMP_", "GOMP_", "KMP_", "MKL_")


def two_cores() -> set[int]:
    """Return the first two of the cores that this process may use."""
    return set(sorted(os.sched_getaffinity(0))[:2])


@contextmanager
def busy_program() -> Iterator[None]:
    """Keep one core busy for the length of the block."""
    process = subprocess.Popen([sys.executable, "-c", "while True: pass"])
    try:
        yield
    finally:
        process.kill()
        process.wait()


def run(root: Path, overrides: list[str], env: dict[str, str], limit: float) -> float:
    """Return the seconds of a run by the command of a checkout; the limit if it takes longer."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith(TOLD)}
    with TemporaryDirectory() as folder:
        out = Path(folder) / "run"
        command = [sys.executable, "-m", "coterie", "run", str(DIGITS), *overrides, "--out", str(out)]
        settings = {**clean, "PYTHONPATH": str(root), **env}
        process = subprocess.Popen(command, env=settings, cwd=folder, stdout=subprocess.DEVNULL)
        try:
            status = process.wait(limit)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            return limit
        if status:
            raise RuntimeError(f"{' '.join(command)} ended with status {status}")
        last = (out / "rounds.jsonl").read_text().splitlines()[-1]
        return float(json.loads(last)["elapsed"])


def measure(roots: list[Path], overrides: list[str], env: dict[str, str], turns: int) -> list[tuple[float, float]]:
    """Return the median seconds of each checkout, quiet and beside the busy program."""
    quiet: list[list[float]] = [[] for _ in roots]
    beside: list[list[float]] = [[] for _ in roots]
    for _ in range(turns):
        for own, root in zip(quiet, roots, strict=True):
            own.append(run(root, overrides, env, QUIET_LIMIT_SECONDS))
        for own, root, seconds in zip(beside, roots, quiet, strict=True):
            with busy_program():
                own.append(run(root, overrides, env, LIMIT * statistics.median(seconds) + 30))
    return [(statistics.median(q), statistics.median(b)) for q, b in zip(quiet, beside, strict=True)]


def main() -> None:
    """Print a line for each case and version."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--before", type=Path)
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--only", default="")
    parser.add_argument("--env", nargs="*", default=[])
    given = parser.parse_args()
    os.sched_setaffinity(0, two_cores())
    env = dict(pair.split("=", 1) for pair in given.env)
    roots = [*([given.before.resolve()] if given.before else []), ROOT]
    print(f"{'':16} {'':8} {'quiet, s':>9} {'beside, s':>9} {'ratio':>6}  now / before, quiet")
    for name, overrides in CASES.items():
        if given.only not in name:
            continue
        found = measure(roots, overrides, env, given.turns)
        for which, (quiet, beside) in zip(["before", "now"][-len(roots) :], found, strict=True):
            last = f"{quiet / found[0][0]:6.3f}" if which == "now" and len(roots) > 1 else ""
            print(f"{name:16} {which:8} {quiet:9.2f} {beside:9.2f} {beside / quiet:6.2f}  {last}", flush=True)


if __name__ == "__main__":
    main()
