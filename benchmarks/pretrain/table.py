"""Measure what a federation gains from its start: random weights, fractals, the clients' own images, or a chain.

    COTERIE_DATA=... python benchmarks/pretrain/table.py [headline time adds_up] [--minutes 90] [--part 0/2]

A fixed subset of CIFAR-10 (2,000 images to train on and 2,000 to test on, equally many of each class) is dealt to ten
clients by Dirichlet 0.1, Dirichlet 0.3 and IID. All clients take part in each round. The model is ResNet-20 with eight
channels in its first stage. Every cell is a start, a partition and an algorithm. Its learning rate is tuned on rng seed
0, by the last test accuracy, on a grid of resolution 10^(1/2), until the best has a worse neighbour on either side. The
cell is repeated with that rate for the other rng seeds. The seed decides the initial weights (except those that were
pre-trained) and the order of batches; the partition and the pre-trained weights are the same for all.

    headline   {random, FPS of 15 minutes, federated SSL, FPS then federated SSL} x {the partitions, centralized}
    time       FPS of 5 and of 30 minutes, beside the 15 above
    adds_up    {FedProx, SCAFFOLD, FedDyn, FedAdam} x {random, FPS} under Dirichlet 0.1; FedAvg is above

Every finished run is written to table.jsonl at once, and is not run again; a pre-training that was stopped continues.
`--part 0/2` and `--part 1/2`, in two shells, share the cells between two cores, and take about three hours. `--tiny
DIR` does the same at the smallest sizes, into a folder of its own, to check that every kind of row works. `report.py`
writes the tables.
"""

from __future__ import annotations

import argparse
import fcntl
import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import nn

import coterie
from coterie import Recipe, Round
from coterie.core.examples import Clients, Examples
from coterie.core.rng import generator
from coterie.data import Source, deal, load
from coterie.experiment.pretraining_run import pretrain
from coterie.experiment.pretraining_settings import parse_pretraining
from coterie.models.registry import build

HERE = Path(__file__).resolve().parent
PARTITIONS: dict[str, dict[str, Any]] = {
    "dirichlet 0.1": {"partition": "dirichlet", "alpha": 0.1, "min_examples": 10},
    "dirichlet 0.3": {"partition": "dirichlet", "alpha": 0.3, "min_examples": 10},
    "iid": {"partition": "iid"},
}
STARTS = ("random", "fps15", "fedssl", "fps15+fedssl")
OWN: dict[str, dict[str, Any]] = {
    "fedprox": {"proximal_weight": 0.01},
    "feddyn": {"proximal_weight": 0.1},
    "fedadam": {"server_lr": 0.03},
}
"""Arguments of an algorithm besides the learning rate, which is tuned."""
RESOLUTION = 10**0.5
FIRST_EXPONENT, MAX_DISTANCE = -2, 3
"""The exponent of the middle one of the first three rates, and how far from it other exponents may be."""


@dataclass(frozen=True)
class Budget:
    """The sizes of data, model and training."""

    folder: Path
    examples: int = 2000
    tested: int = 2000
    clients: int = 10
    width: int = 8
    rounds: int = 10
    epochs: int = 2
    batch: int = 20
    ssl_rounds: int = 20
    ssl_batch: int = 64
    fps_steps: int | None = None  # instead of minutes


FULL = Budget(HERE.parents[1] / "runs" / "benchmark-pretrain")
TINY = replace(
    FULL, examples=200, tested=50, clients=4, width=2, rounds=1, epochs=1, ssl_rounds=1, ssl_batch=16, fps_steps=2
)


@dataclass(frozen=True)
class Cell:
    """A cell: the table it belongs to, what it runs, and for how many rng seeds."""

    table: str
    start: str
    partition: str
    algorithm: str
    seeds: int


CELLS: dict[str, list[Cell]] = {
    "headline": [
        *(
            Cell("headline", start, partition, algorithm, 3)
            for start in ("random", "fps15")
            for partition, algorithm in (("dirichlet 0.1", "fedavg"), ("iid", "centralized"), ("iid", "fedavg"))
        ),
        *(Cell("headline", start, "dirichlet 0.1", "fedavg", 3) for start in ("fedssl", "fps15+fedssl")),
        *(Cell("headline", start, "dirichlet 0.3", "fedavg", 1) for start in STARTS),
        *(
            Cell("headline", start, "iid", algorithm, 1)
            for start in ("fedssl", "fps15+fedssl")
            for algorithm in ("fedavg", "centralized")
        ),
    ],
    "time": [
        Cell("time", start, partition, "fedavg", 3)
        for start in ("fps5", "fps30")
        for partition in ("dirichlet 0.1", "iid")
    ],
    "adds_up": [
        Cell("adds_up", start, "dirichlet 0.1", algorithm, 1)
        for algorithm in ("fedprox", "scaffold", "feddyn", "fedadam")
        for start in ("random", "fps15")
    ],
}


@cache
def source(budget: Budget) -> Source:
    """Return the subset of CIFAR-10, with the same number of examples of each class."""
    whole = load("cifar10")
    assert whole.test is not None
    return replace(
        whole, train=_take_evenly(whole.train, budget.examples), test=_take_evenly(whole.test, budget.tested)
    )


def _take_evenly(examples: Examples, number: int) -> Examples:
    y = examples.labels()
    assert y is not None
    order = torch.randperm(len(y), generator=generator("subset"))
    rows = [order[y[order] == label][: number // 10] for label in range(10)]
    return examples.take(torch.cat(rows).sort().values)


def clients(budget: Budget, partition: str) -> Clients:
    """Deal the subset to the clients, in the same way for every rng seed."""
    return deal(source(budget), num_clients=budget.clients, rng_seed=0, **PARTITIONS[partition])


def model(budget: Budget, rng_seed: int, weights: Path | None) -> nn.Module:
    """Return the model with random weights, or with those of a file except the classifier's."""
    made = build("resnet20", [3, 32, 32], 10, rng_seed, width=budget.width)
    if weights is not None:
        loaded = {name: x for name, x in load_file(weights).items() if not name.startswith("output.")}
        missing, unexpected = made.load_state_dict(loaded, strict=False)
        assert unexpected == [], unexpected
        assert set(missing) == {"output.weight", "output.bias"}, missing
    return made


def start_weights(budget: Budget, start: str, partition: str) -> Path | None:
    """Return the weights file of a start, after making it where it is missing; None for random weights."""
    if start == "random":
        return None
    first, _, then = start.partition("+")
    if first == "fedssl":
        first, then = "random", "fedssl"
    if not then:
        return fractal_weights(budget, int(first.removeprefix("fps")))
    return self_supervised_weights(budget, first, partition)


def fractal_weights(budget: Budget, minutes: int) -> Path:
    """Return the weights file of an encoder that is pre-trained on fractals for some minutes."""
    folder = budget.folder / f"fps{minutes}"
    how = {"minutes": float(minutes)} if budget.fps_steps is None else {"steps": budget.fps_steps}
    tables = {
        "pretrain": {**how, "batch_size": 32, "lr": 0.4, "interval": 50},
        "model": {"name": "resnet20", "width": budget.width},
    }
    with lock(folder):
        pretrain(parse_pretraining(tables, [HERE]), folder, resume=True)
    return folder / "model.safetensors"


def self_supervised_weights(budget: Budget, start: str, partition: str) -> Path:
    """Return the weights file of an encoder that a partition's clients train without labels, from another start."""
    path = budget.folder / f"{start}+fedssl, {partition}.safetensors"
    begin = start_weights(budget, start, partition)
    with lock(path):
        if not path.exists():
            recipe = coterie.fedssl(lr=0.05, momentum=0.9, weight_decay=1e-4, batch_size=budget.ssl_batch)
            last = last_round(recipe, model(budget, 0, begin), clients(budget, partition), budget.ssl_rounds, 0, None)
            beside = path.with_suffix(".part")
            save_file(last.weights(), beside)
            beside.rename(path)
    return path


@contextmanager
def lock(path: Path) -> Iterator[None]:
    """Let one process at a time into a block; a second one waits, and finds what the first has made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.with_name(f".{path.name}.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def last_round(
    recipe: Recipe, start: nn.Module, who: Clients, rounds: int, rng_seed: int, test: Examples | None
) -> Round:
    """Run a federation and return its last round, which alone is evaluated."""
    options: dict[str, Any] = {"rounds": rounds, "rng_seed": rng_seed, "test": test, "evaluate_every": rounds}
    for round in coterie.federate(recipe, start, who, num_classes=10, **options):
        last = round
    return last


def run(budget: Budget, cell: Cell, exponent: int, rng_seed: int) -> dict[str, Any]:
    """Run a cell once, and return its row."""
    began, lr = time.perf_counter(), float(RESOLUTION**exponent)
    begin = start_weights(budget, cell.start, cell.partition)
    made = time.perf_counter() - began
    recipe = getattr(coterie, cell.algorithm)(
        lr=lr, local_epochs=budget.epochs, batch_size=budget.batch, **OWN.get(cell.algorithm, {})
    )
    who, test = clients(budget, cell.partition), source(budget).test
    last = last_round(recipe, model(budget, rng_seed, begin), who, budget.rounds, rng_seed, test)
    return {
        **asdict(cell),
        "exponent": exponent,
        "lr": float(f"{lr:.3g}"),
        "rng_seed": rng_seed,
        "test_accuracy": last.test_accuracy,
        "train_loss": last.train_loss,
        "seconds": round(time.perf_counter() - began - made, 1),
        "date": time.strftime("%Y-%m-%d"),
        "version": coterie.__version__,
    }


class Results:
    """The finished runs, in a file to which several processes append."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def rows_of(self, cell: Cell) -> dict[tuple[int, int], dict[str, Any]]:
        """Return a cell's rows by exponent and rng seed, and those of the same cell in other tables."""
        lines = self.path.read_text().splitlines() if self.path.exists() else []
        same = ("start", "partition", "algorithm")
        rows = [row for row in map(json.loads, lines) if all(row[key] == getattr(cell, key) for key in same)]
        return {(row["exponent"], row["rng_seed"]): row for row in rows}

    def add(self, row: dict[str, Any]) -> None:
        """Write a finished run."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("a") as file:
            file.write(json.dumps(row) + "\n")
        print(json.dumps(row), flush=True)


def work(budget: Budget, results: Results, cell: Cell, until: float) -> None:
    """Do all runs of a cell that are not done, rates first, then rng seeds; none begins after `until`."""
    while (todo := next_run(cell, results.rows_of(cell))) is not None and time.time() < until:
        results.add(run(budget, cell, *todo))


def next_run(cell: Cell, done: dict[tuple[int, int], dict[str, Any]]) -> tuple[int, int] | None:
    """Return the next (exponent, rng seed), or None.

    First come three rates, then others until the best has a worse neighbour on either side, then the best one's other
    seeds. A run that diverged has accuracy 0.
    """
    tried = {exponent: row["test_accuracy"] or 0.0 for (exponent, seed), row in done.items() if seed == 0}
    for exponent in (FIRST_EXPONENT, FIRST_EXPONENT - 1, FIRST_EXPONENT + 1):
        if exponent not in tried:
            return exponent, 0
    best = max(tried, key=lambda exponent: (tried[exponent], -abs(exponent - FIRST_EXPONENT)))
    for exponent in (best - 1, best + 1):
        if exponent not in tried and abs(exponent - FIRST_EXPONENT) <= MAX_DISTANCE:
            return exponent, 0
    return next(((best, seed) for seed in range(1, cell.seeds) if (best, seed) not in done), None)


def main() -> None:
    """Run the chosen tables, cell by cell."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tables", nargs="*", default=[], help="headline, time, adds_up; all unless named")
    parser.add_argument("--minutes", type=float, default=float("inf"), help="begin no run after this many minutes")
    parser.add_argument("--part", default="0/1", help="k/n: every n-th cell, from the k-th")
    parser.add_argument("--tiny", type=Path, help="the smallest sizes, into this folder")
    chosen = parser.parse_args()
    part, parts = map(int, chosen.part.split("/"))
    torch.set_num_threads(1)
    budget = FULL if chosen.tiny is None else replace(TINY, folder=chosen.tiny)
    results = Results(HERE / "table.jsonl" if chosen.tiny is None else chosen.tiny / "table.jsonl")
    until = time.time() + 60 * chosen.minutes
    cells = [cell for name in chosen.tables or CELLS for cell in CELLS[name]]
    for cell in cells[part::parts]:
        work(budget, results, cell, until)


if __name__ == "__main__":
    main()
