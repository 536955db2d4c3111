"""Memory of a run in two processes, and the processor's work before its first round: copies beside fresh processes.

    python benchmarks/speed/workers.py --turns 5

Every turn starts each program once, one after another: the 2NN with 10 clients of 600 MNIST pictures, in one process,
in two that start afresh, and in two of which the second is a copy of the first. After its third round, a program
sums over its processes the memory that Linux counts:

- PSS: a page that k processes share counts 1/k in each. This is what the machine gives.
- RSS: a shared page counts fully in each.
- private: the pages that no other process has.

The seconds are those that processors worked for all processes until the first round was on record. The table has the
medians.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

SETTINGS = """
rounds = 4
data = { source = "mnist", partition = "iid", num_clients = 10, examples_per_client = 600 }
model = { name = "2nn" }
algorithm = { name = "fedavg", lr = 0.1, batch_size = 10 }
engine = { name = "sequential", compile = false, threads = 1 }
"""
PROGRAM = """
import json, os, sys
from pathlib import Path
import coterie.processes.spawn as spawn
if sys.argv[1] == "fresh":
    spawn.can_be_copied = lambda: False
from coterie.cli.run_display import RunDisplay
from coterie.cli.main import main

def processes():
    own = os.getpid()
    return [own, *map(int, Path(f"/proc/{own}/task/{own}/children").read_text().split())]

def seconds():
    fields = [Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split() for pid in processes()]
    return sum(int(field[11]) + int(field[12]) for field in fields) / os.sysconf("SC_CLK_TCK")

def memory():
    lines = [line for pid in processes() for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()]
    amount = lambda *names: sum(int(line.split()[1]) / 1000 for line in lines if line.split(":")[0] in names)
    return {"pss": amount("Pss"), "rss": amount("Rss"), "private": amount("Private_Clean", "Private_Dirty")}

found = {}
def show(self, record):
    if record["round"] == 1:
        found["seconds"] = seconds()
    if record["round"] == 3:
        print(json.dumps(found | memory() | {"processes": len(processes())}), file=sys.stderr)
RunDisplay.round = show
main(sys.argv[2:])
"""
PROGRAMS = {"one": ("copy", 1), "two, the second started afresh": ("fresh", 2), "two, the second a copy": ("copy", 2)}


def measure(start: str, workers: int, folder: Path) -> dict[str, float]:
    """Run the program once, and return what it found."""
    (folder / "run.toml").write_text(SETTINGS)
    arguments = ["run", str(folder / "run.toml"), "--workers", str(workers), "--out", str(folder / "run"), "--quiet"]
    command = [sys.executable, "-c", PROGRAM, start, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    found: dict[str, float] = json.loads(next(line for line in done.stderr.splitlines() if line.startswith("{")))
    tracker = start == "fresh"  # multiprocessing starts a process of its own beside fresh ones
    assert found.pop("processes") == workers + tracker, "the processes did not start as they should"
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--turns", type=int, default=5)
    turns = parser.parse_args().turns
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    found: dict[str, list[dict[str, float]]] = {}
    for turn in range(turns + 1):  # the first turn reads files into memory, and does not count
        for name, (start, workers) in PROGRAMS.items():
            with tempfile.TemporaryDirectory() as folder:
                taken = measure(start, workers, Path(folder))
            found.setdefault(name, []).extend([taken] if turn else [])
    print(
        "| processes | PSS, MB | RSS, MB | private, MB | processor seconds to the first round |\n|---|---|---|---|---|"
    )
    for name, each in found.items():
        middle = {key: statistics.median(one[key] for one in each) for key in each[0]}
        memory = " | ".join(f"{middle[key]:,.0f}" for key in ("pss", "rss", "private"))
        print(f"| {name} | {memory} | {middle['seconds']:.2f} |")


if __name__ == "__main__":
    main()
