"""What larger models and a cohort of 1,000 clients cost: time of a round, memory, and what is not local steps.

    python benchmarks/speed/larger.py [--only cohort]

Each row is `coterie run` in processes of their own, of one thread, with random pictures or texts from a file, so that
nothing has to be fetched. Times are seconds that the processor worked in a round, the least of two, so that other
programs on the machine change them little. A row is run with one local epoch and with two: what a second epoch does not
double is the share outside steps, a = 2 t_1 - t_2 of t_1. Memory is the most that the run with one epoch took.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from itertools import pairwise
from pathlib import Path
from typing import Any, ClassVar

ROUNDS = 3
"""The last one is evaluated too, and not counted."""
FEDAVG, ADAMW = 'name = "fedavg"\nlr = 0.01', 'name = "fedavg"\nlr = 0.001\noptimizer = "adamw"\nweight_decay = 0.01'
FEW = {"clients": 2, "each": 16, "batch": 8, "shape": (3, 32, 32)}
COHORT = {"clients": 1000, "each": 20, "batch": 10, "shape": (1, 28, 28), "model": "2nn"}
ROWS: dict[str, dict[str, Any]] = {
    "ResNet-18, 2 clients": {**FEW, "model": "resnet18", "algorithm": FEDAVG},
    "ViT, AdamW, 2 clients": {**FEW, "model": "vit", "algorithm": ADAMW},
    "transformer, AdamW, 2 clients": {**FEW, "shape": None, "model": "transformer", "algorithm": ADAMW},
    "cohort of 1,000, FedAvg": {**COHORT, "algorithm": FEDAVG},
    "cohort of 1,000, FedAvg, vectorised": {**COHORT, "algorithm": FEDAVG, "engine": "vectorised"},
    "cohort of 1,000, SCAFFOLD": {**COHORT, "algorithm": 'name = "scaffold"\nlr = 0.01'},
    "cohort of 1,000, median": {**COHORT, "algorithm": FEDAVG, "aggregation": "median"},
}


def write_data(row: dict[str, Any], path: Path) -> None:
    """Write random examples: `each` of each client, and 100 to test on. Without a shape they are texts of 80."""
    import numpy as np

    n, draw = row["clients"] * row["each"] + 100, np.random.default_rng(0)
    if row["shape"] is None:
        text = draw.integers(90, size=(n, 81))
        x, y = text[:, :-1], text[:, 1:]
    else:
        x, y = draw.random((n, *row["shape"]), dtype=np.float32), draw.integers(10, size=n)
    np.savez(path, x=x, y=y, test=np.arange(n) < 100)


def measure(row: dict[str, Any], epochs: int) -> dict[str, float]:
    """Run the row in this process; return the processor seconds of a round, and the most memory in MB."""
    import torch

    torch.set_num_threads(1)
    from coterie.experiment.run import run
    from coterie.experiment.run_recorder import SilentRun
    from coterie.experiment.settings import load_settings

    class Clock(SilentRun):
        """Notes the processor time at the start and after each round."""

        ends: ClassVar[list[float]] = []

        def begin(self, *_: Any) -> None:
            self.ends.append(time.process_time())

        def round(self, *_: Any) -> None:
            self.ends.append(time.process_time())

    with tempfile.TemporaryDirectory() as name:
        path = Path(name) / "larger.toml"
        write_data(row, Path(name) / "data.npz")
        path.write_text(
            f'rounds = {ROUNDS}\n[data]\nsource = "npz"\npath = "data.npz"\npartition = "iid"\n'
            f'num_clients = {row["clients"]}\n[model]\nname = "{row["model"]}"\n[algorithm]\n{row["algorithm"]}\n'
            f"local_epochs = {epochs}\nbatch_size = {row['batch']}\n[evaluate]\nevery = {ROUNDS}\n"
            f'[engine]\nname = "{row.get("engine", "sequential")}"\ncompile = false\nworkers = 1\nthreads = 1\n'
            f'[aggregation]\nname = "{row.get("aggregation", "mean")}"\n'
        )
        run(load_settings(path), Path(name) / "run", watch=Clock())
    ends = Clock.ends[:ROUNDS]
    seconds = min(b - a for a, b in pairwise(ends))
    return {"seconds": seconds, "memory": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6}


def main() -> None:
    """Print a line of a table for each row."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", help="rows whose name holds this text")
    parser.add_argument("--row", help=argparse.SUPPRESS)
    parser.add_argument("--epochs", type=int, default=1, help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.row:
        print(json.dumps(measure(ROWS[chosen.row], chosen.epochs)))
        return
    print("| run | processor s / round | outside steps | memory, MB |\n|---|---|---|---|")
    for name in (name for name in ROWS if chosen.only in name):
        command = [sys.executable, __file__, "--row", name, "--epochs"]
        one, two = (
            json.loads(subprocess.run([*command, str(k)], check=True, stdout=subprocess.PIPE).stdout.splitlines()[-1])
            for k in (1, 2)
        )
        share = max(0.0, 2 * one["seconds"] - two["seconds"]) / one["seconds"]
        print(f"| {name} | {one['seconds']:.2f} | {share:.0%} | {one['memory']:,.0f} |", flush=True)


if __name__ == "__main__":
    main()
