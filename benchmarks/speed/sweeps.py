"""Seconds of a FedAvg round with the 2NN as the cohort, the local steps and the clients' sizes change.

    python benchmarks/speed/sweeps.py [--rounds 5] [--threads 1]

Cohort: 1, 10 and 100 clients of 600 examples. Local steps: 6 to 600 for each of 10 clients. Ragged: ten clients of
20 to 2,000 examples against ten of equal size, together as many. Each for both engines, compiled, in turns; medians of
rounds after a first one. Writes sweeps.json. The number of clients is swept by populations.py, processes by compare.py.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Sequence
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table

import coterie
from coterie.engines.sequential import Sequential
from coterie.engines.vectorised import Vectorised
from coterie.models.registry import build

RESULTS = Path(__file__).with_name("sweeps.json")
RAGGED = (20, 40, 60, 100, 160, 260, 420, 700, 1240, 2000)
CASES: dict[str, tuple[Sequence[int], int | None]] = {
    **{f"cohort of {n}": ([600] * n, None) for n in (1, 10, 100)},
    **{f"{steps} local steps": ([600] * 10, steps) for steps in (6, 60, 600)},
    "even, 500 examples each": ([sum(RAGGED) // 10] * 10, None),
    "ragged, 20 to 2,000 examples": (RAGGED, None),
}
"""What is run: the clients' examples, and their local steps, or one epoch."""


def clients(sizes: Sequence[int]) -> dict[str, coterie.Examples]:
    """Clients with so many random examples."""
    g, n = torch.Generator().manual_seed(0), sum(sizes)
    x, y = torch.rand(n, 1, 28, 28, generator=g), torch.randint(10, (n,), generator=g)
    return {str(k): coterie.Examples(x, y, rows) for k, rows in enumerate(torch.arange(n).split(list(sizes)))}


def measure(sizes: Sequence[int], steps: int | None, rounds: int) -> dict[str, float]:
    """Seconds of a round by engine."""
    data, module = clients(sizes), build("2nn", (1, 28, 28), 10, 0)
    work = {"local_epochs": 1} if steps is None else {"local_steps": steps}
    engines = {"sequential": Sequential(compile=True), "vectorised": Vectorised(compile=True)}
    going = {
        name: coterie.federate(
            coterie.fedavg(lr=0.05, batch_size=10, **work), module, data, rounds=rounds + 1, engine=engine
        )
        for name, engine in engines.items()
    }
    seconds: dict[str, list[float]] = {name: [] for name in going}
    for _ in range(rounds + 1):
        for name, federation in going.items():
            seconds[name].append(next(federation).seconds)
    return {name: statistics.median(each[1:]) for name, each in seconds.items()}


def main() -> None:
    """Every case, as a table and as a file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    chosen = parser.parse_args()
    torch.set_num_threads(chosen.threads)
    table = Table("2NN", "sequential, s / round", "vectorised, s / round", title="B = 10, compiled, one thread")
    found = {}
    for name, (sizes, steps) in CASES.items():
        found[name] = measure(sizes, steps, chosen.rounds)
        table.add_row(name, *(f"{s:.3f}" for s in found[name].values()))
    Console().print(table)
    command = f"python benchmarks/speed/sweeps.py --rounds {chosen.rounds} --threads {chosen.threads}"
    facts = {"command": command, "date": time.strftime("%Y-%m-%d"), "torch": torch.__version__}
    RESULTS.write_text(json.dumps({**facts, "seconds": found}, indent=1) + "\n")


if __name__ == "__main__":
    main()
