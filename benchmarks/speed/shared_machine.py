"""What busy programs on two cores cost a command: seconds on a quiet machine, beside one and two of them, and ratios.

    COTERIE_DATA=... python benchmarks/speed/shared_machine.py [--before OTHER] [--turns 3] [--only TEXT]
        [--env NAME=VALUE ...] [--suite]

Each case is a whole command, from its start to its end, on two cores, without any variable of OpenMP unless --env sets
one. In a turn every version runs it quietly, then beside one `while True: pass`, then beside two, which may use the
same two cores. The figures are medians over turns. With --before, the folder of another checkout of coterie, both
versions take turns, and the last column compares their quiet times: above 1 this checkout is slower. --suite times the
test suite too, with one turn. Nothing else should run on the machine at the same time. A command beside busy programs
is stopped after LIMIT times its quiet time, and counts as that.
"""

from __future__ import annotations

import argparse
import os
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

ROOT = Path(__file__).resolve().parents[2]
DIGITS = "experiments/digits.toml"
MNIST = ["experiments/mnist-2nn-shards.toml", "rounds=3", "engine.compile=false"]
SHAKESPEARE = ["experiments/shakespeare-roles.toml", "rounds=2", "cohort.fraction=0.01", "evaluate.every=2"]
CASES = {
    "make run": ["run", DIGITS],
    "2NN, MNIST": ["run", *MNIST, "engine.workers=1"],
    "CNN": ["run", DIGITS, "model.name=cnn", "rounds=6", "engine.workers=1"],
    "LSTM": ["run", *SHAKESPEARE, "engine.workers=1"],
    "2 workers": ["run", *MNIST, "--workers", "2"],
    "sweep, 2 jobs": ["sweep", DIGITS, "lr=0.1,0.2", "rng_seed=0,1", "rounds=20", "--jobs", "2"],
    "rehearsal": ["deploy", "rehearse", DIGITS, "data.num_clients=4", "cohort.fraction=1", "rounds=5"],
}
"""What `coterie` is given; --out follows."""
SUITE = "test suite"
BUSY = (0, 1, 2)
"""How many busy programs there are."""
LIMIT = 10
"""How many times its quiet time a command may take beside busy programs."""
QUIET_LIMIT_SECONDS = 900.0
TOLD = ("OMP_", "GOMP_", "KMP_", "MKL_")


def two_cores() -> set[int]:
    """Return the first two of the cores that this process may use."""
    return set(sorted(os.sched_getaffinity(0))[:2])


@contextmanager
def busy_programs(number: int) -> Iterator[None]:
    """Keep so many programs busy for the length of the block.

    Each has a session of its own, as the command has, since Linux shares cores between sessions first.
    """
    busy = [sys.executable, "-c", "while True: pass"]
    processes = [subprocess.Popen(busy, start_new_session=True) for _ in range(number)]
    try:
        yield
    finally:
        for process in processes:
            process.kill()
            process.wait()


def run(root: Path, name: str, env: dict[str, str], limit: float) -> float:
    """Return the seconds of a case by the command of a checkout; the limit if it takes longer."""
    clean = {key: value for key, value in os.environ.items() if not key.startswith(TOLD)}
    with TemporaryDirectory() as folder:
        if name == SUITE:
            command = [sys.executable, "-m", "pytest", "-n", "auto", "--dist", "worksteal", "-p", "no:cacheprovider"]
        else:
            command = [sys.executable, "-m", "coterie", *CASES[name], "--out", str(Path(folder) / "run")]
        quiet = subprocess.DEVNULL
        began = time.monotonic()
        process = subprocess.Popen(
            command,
            env={**clean, "PYTHONPATH": str(root), **env},
            cwd=root,
            stdout=quiet,
            stderr=quiet,
            start_new_session=True,
        )
        try:
            status = process.wait(limit)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            return limit
        if status:
            raise RuntimeError(f"{' '.join(command)} ended with status {status}")
        return time.monotonic() - began


def measure(roots: list[Path], name: str, env: dict[str, str], turns: int) -> list[list[float]]:
    """Return the median seconds of each checkout beside each number of busy programs."""
    found: list[list[list[float]]] = [[[] for _ in BUSY] for _ in roots]
    for _ in range(turns):
        for number in BUSY:
            for own, root in zip(found, roots, strict=True):
                limit = LIMIT * statistics.median(own[0]) + 30 if number else QUIET_LIMIT_SECONDS
                with busy_programs(number):
                    own[number].append(run(root, name, env, limit))
    return [[statistics.median(seconds) for seconds in own] for own in found]


def main() -> None:
    """Print a line for each case and version."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--before", type=Path)
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--only", default="")
    parser.add_argument("--env", nargs="*", default=[])
    parser.add_argument("--suite", action="store_true")
    given = parser.parse_args()
    os.sched_setaffinity(0, two_cores())
    env = dict(pair.split("=", 1) for pair in given.env)
    roots = [*([given.before.resolve()] if given.before else []), ROOT]
    print("| command | version | quiet, s | beside one, s | beside two, s | ratio, one | ratio, two | now / before |")
    print("|---|---|---|---|---|---|---|---|")
    for name in [*CASES, *([SUITE] if given.suite else [])]:
        if given.only not in name:
            continue
        found = measure(roots, name, env, 1 if name == SUITE else given.turns)
        for which, (quiet, one, two) in zip(["before", "now"][-len(roots) :], found, strict=True):
            last = f"{quiet / found[0][0]:.3f}" if which == "now" and len(roots) > 1 else ""
            cells = f"{quiet:.1f} | {one:.1f} | {two:.1f} | {one / quiet:.2f} | {two / quiet:.2f}"
            print(f"| {name} | {which} | {cells} | {last} |", flush=True)


if __name__ == "__main__":
    main()
