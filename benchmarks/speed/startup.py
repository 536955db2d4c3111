"""Time what passes before the command answers, and before a run's first round.

    python benchmarks/speed/startup.py --turns 5

Every turn starts each program once, one after another, so that a busy machine is busy for all of them. The table has
the medians of the seconds that a processor worked for each program, which other programs on the machine change little,
and their ratio to PyTorch's import in the same turns.
"""

from __future__ import annotations

import argparse
import os
import resource
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[2]
DIGITS = str(ROOT / "experiments" / "digits.toml")
COTERIE = [sys.executable, "-m", "coterie"]
FIRST_ROUND = """
import os, sys
from coterie.cli.run_display import RunDisplay
RunDisplay.round = lambda self, record: os._exit(0)  # nothing after the first round counts
from coterie.cli.main import main
main(sys.argv[1:])
"""


def programs(folder: Path, runs: list[str]) -> dict[str, list[str]]:
    """Return what is timed: name -> command line. `folder` is for what is written; `runs` are two run folders."""
    first = [sys.executable, "-c", FIRST_ROUND, "run", DIGITS, "--out", str(folder / "first")]
    return {
        "`import torch`": [sys.executable, "-c", "import torch"],
        "`import coterie`": [sys.executable, "-c", "import coterie"],
        "`coterie --help`": [*COTERIE, "--help"],
        "`coterie run` with a misspelt key": [*COTERIE, "run", DIGITS, "algorithm.mometum=0.9"],
        "`coterie data list`": [*COTERIE, "data", "list"],
        "`coterie report`": [*COTERIE, "report", runs[0]],
        "`coterie compare` of two runs": [*COTERIE, "compare", *runs, "--out", str(folder / "compare.html")],
        "`coterie run experiments/digits.toml`, to its first round": first,
    }


def work_seconds(command: list[str]) -> float:
    """Run a program to its end, and return the seconds that processors worked for it."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert "Traceback" not in done.stderr, done.stderr
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--turns", type=int, default=5)
    turns = parser.parse_args().turns
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    seconds: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory() as name:
        runs = [str(Path(name) / lr) for lr in ("0.1", "0.2")]
        for run in runs:
            options = ["rounds=20", f"algorithm.lr={Path(run).name}", "--out", run, "--quiet"]
            subprocess.run([*COTERIE, "run", DIGITS, *options], check=True)
        for turn in range(turns + 1):  # the first turn reads files into memory, and does not count
            for program, command in programs(Path(name) / str(turn), runs).items():
                taken = work_seconds(command)
                seconds.setdefault(program, []).extend([taken] if turn else [])
    torch = statistics.median(seconds["`import torch`"])
    print("| program | processor seconds | times PyTorch's import |")
    print("|---|---|---|")
    for program, each in seconds.items():
        middle = statistics.median(each)
        print(f"| {program} | {middle:.2f} | {middle / torch:.2f} |")


if __name__ == "__main__":
    main()
