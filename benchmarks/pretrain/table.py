"""Where a federation starts from, measured: random weights, fractals, the clients' own images, and one after the other.

    COTERIE_DATA=... python benchmarks/pretrain/table.py [headline time adds_up] [--minutes 90] [--part 0/2]

A fixed subset of CIFAR-10 (2,000 images to train on, 2,000 to test on, each class alike) is dealt to ten clients, all
of whom take part in each round: Dirichlet 0.1, Dirichlet 0.3 and IID. The model is ResNet-20 with eight channels in
its first stage. Every cell is a start, a partition and an algorithm. Its learning rate is tuned on rng seed 0, by the
last test accuracy, on a grid of resolution 10^(1/2), until the best has a worse neighbour on either side; with that
rate it is repeated for the other rng seeds. The seed decides the initial weights (but for what was pre-trained) and
the order of batches; the partition and what was pre-trained are the same for all.

    headline   {random, FPS of 15 minutes, federated SSL, FPS then federated SSL} x {the partitions, centralized}
    time       FPS of 5 and of 30 minutes, beside the 15 above: what more of it brings
    adds_up    {FedProx, SCAFFOLD, FedDyn, FedAdam} x {random, FPS} under Dirichlet 0.1; FedAvg is above

Every finished run is a line in table.jsonl at once, and is not run again; a pre-training goes on where it was
stopped. `--part 0/2` and `--part 1/2`, in two shells, share the cells between two cores: about three hours. `--tiny
DIR` does the same with next to nothing, into a folder of its own, to see that every kind of row works. `report.py`
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
from coterie.experiment.pretraining import parse
from coterie.experiment.pretraining_run import pretrain
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
"""What an algorithm takes besides the learning rate that is tuned."""
RESOLUTION = 10**0.5
GUESS, MOST = -2, 3
"""The exponent of the middle of the first three rates, and how far from it others may be."""


@dataclass(frozen=True)
class Budget:
    """How much of everything."""

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
    """One cell: which table it belongs to, what is run, and for how many rng seeds."""

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
    """The subset of CIFAR-10, the same number of each class."""
    whole = load("cifar10")
    assert whole.test is not None
    return replace(whole, train=_some(whole.train, budget.examples), test=_some(whole.test, budget.tested))


def _some(examples: Examples, number: int) -> Examples:
    y = examples.labels()
    assert y is not None
    order = torch.randperm(len(y), generator=generator("subset"))
    rows = [order[y[order] == label][: number // 10] for label in range(10)]
    return examples.take(torch.cat(rows).sort().values)


def clients(budget: Budget, partition: str) -> Clients:
    """Who holds what: the same for every rng seed."""
    return deal(source(budget), num_clients=budget.clients, rng_seed=0, **PARTITIONS[partition])


def model(budget: Budget, rng_seed: int, weights: Path | None) -> nn.Module:
    """The model with random weights, or with those in a file but for its classifier."""
    made = build("resnet20", [3, 32, 32], 10, rng_seed, width=budget.width)
    if weights is not None:
        loaded = {name: x for name, x in load_file(weights).items() if not name.startswith("output.")}
        missing, unexpected = made.load_state_dict(loaded, strict=False)
        assert unexpected == [], unexpected
        assert set(missing) == {"output.weight", "output.bias"}, missing
    return made


def started_from(budget: Budget, start: str, partition: str) -> Path | None:
    """The weights file of a start, made where it is absent; None for random weights."""
    if start == "random":
        return None
    first, _, then = start.partition("+")
    if first == "fedssl":
        first, then = "random", "fedssl"
    if not then:
        return fractals(budget, int(first.removeprefix("fps")))
    return self_supervised(budget, first, partition)


def fractals(budget: Budget, minutes: int) -> Path:
    """An encoder from so many minutes of fractals."""
    folder = budget.folder / f"fps{minutes}"
    how = {"minutes": float(minutes)} if budget.fps_steps is None else {"steps": budget.fps_steps}
    tables = {
        "pretrain": {**how, "batch_size": 32, "lr": 0.4, "interval": 50},
        "model": {"name": "resnet20", "width": budget.width},
    }
    with alone(folder):
        pretrain(parse(tables, [HERE]), folder, resume=True)
    return folder / "model.safetensors"


def self_supervised(budget: Budget, start: str, partition: str) -> Path:
    """An encoder that the clients of a partition trained together, without labels, from another start."""
    path = budget.folder / f"{start}+fedssl, {partition}.safetensors"
    begin = started_from(budget, start, partition)
    with alone(path):
        if not path.exists():
            recipe = coterie.fedssl(lr=0.05, momentum=0.9, weight_decay=1e-4, batch_size=budget.ssl_batch)
            last = _last(recipe, model(budget, 0, begin), clients(budget, partition), budget.ssl_rounds, 0, None)
            beside = path.with_suffix(".part")
            save_file(last.weights(), beside)
            beside.rename(path)
    return path


@contextmanager
def alone(path: Path) -> Iterator[None]:
    """A block that one process at a time is in: who comes second waits, and finds what the first has made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.with_name(f".{path.name}.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _last(recipe: Recipe, start: nn.Module, who: Clients, rounds: int, rng_seed: int, test: Examples | None) -> Round:
    """The last round of a federation; it is evaluated after that alone."""
    options: dict[str, Any] = {"rounds": rounds, "rng_seed": rng_seed, "test": test, "evaluate_every": rounds}
    for round in coterie.federate(recipe, start, who, num_classes=10, **options):
        last = round
    return last


def run(budget: Budget, cell: Cell, exponent: int, rng_seed: int) -> dict[str, Any]:
    """One run of a cell."""
    began, lr = time.perf_counter(), float(RESOLUTION**exponent)
    begin = started_from(budget, cell.start, cell.partition)
    made = time.perf_counter() - began
    recipe = getattr(coterie, cell.algorithm)(
        lr=lr, local_epochs=budget.epochs, batch_size=budget.batch, **OWN.get(cell.algorithm, {})
    )
    who, test = clients(budget, cell.partition), source(budget).test
    last = _last(recipe, model(budget, rng_seed, begin), who, budget.rounds, rng_seed, test)
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
    """The finished runs, in a file that several processes append to."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def of(self, cell: Cell) -> dict[tuple[int, int], dict[str, Any]]:
        """A cell's by exponent and rng seed; cells of other tables that ran the same count too."""
        lines = self.path.read_text().splitlines() if self.path.exists() else []
        same = ("start", "partition", "algorithm")
        rows = [row for row in map(json.loads, lines) if all(row[key] == getattr(cell, key) for key in same)]
        return {(row["exponent"], row["rng_seed"]): row for row in rows}

    def add(self, row: dict[str, Any]) -> None:
        """A finished run, at once."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("a") as file:
            file.write(json.dumps(row) + "\n")
        print(json.dumps(row), flush=True)


def work(budget: Budget, results: Results, cell: Cell, until: float) -> None:
    """Whatever is left to do for a cell: rates first, then rng seeds; nothing new is begun after `until`."""
    while (todo := next_run(cell, results.of(cell))) is not None and time.time() < until:
        results.add(run(budget, cell, *todo))


def next_run(cell: Cell, done: dict[tuple[int, int], dict[str, Any]]) -> tuple[int, int] | None:
    """The next (exponent, rng seed): three rates, further ones until the best has a worse neighbour on either side,
    then the best one's other seeds. A run that diverged counts as one without any accuracy.
    """
    tried = {exponent: row["test_accuracy"] or 0.0 for (exponent, seed), row in done.items() if seed == 0}
    for exponent in (GUESS, GUESS - 1, GUESS + 1):
        if exponent not in tried:
            return exponent, 0
    best = max(tried, key=lambda exponent: (tried[exponent], -abs(exponent - GUESS)))
    for exponent in (best - 1, best + 1):
        if exponent not in tried and abs(exponent - GUESS) <= MOST:
            return exponent, 0
    return next(((best, seed) for seed in range(1, cell.seeds) if (best, seed) not in done), None)


def main() -> None:
    """Run what is asked for, cell by cell."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tables", nargs="*", default=[], help="headline, time, adds_up; all unless named")
    parser.add_argument("--minutes", type=float, default=float("inf"), help="start nothing new after so many minutes")
    parser.add_argument("--part", default="0/1", help="k/n: every n-th cell, from the k-th")
    parser.add_argument("--tiny", type=Path, help="next to nothing of everything, into this folder")
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
