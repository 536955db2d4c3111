"""Measure what a federation gains from its start, with FedAvg and with FBN: random, fractals, or other classes.

    COTERIE_DATA=... python benchmarks/pretrain/starts.py [SETS] [--minutes 60]

ResNet-20 on the five last classes of CIFAR-10, with 200 images a client, ten clients, 20 epochs in batches of 20:
FedAvg takes 20 rounds of one epoch, and FBN, which is made for one step a round, 200 rounds of one step. Starts:
`random`; `fps`, the encoder in the box (`coterie.weights`); `supervised`, trained here on the five first classes, which
no client holds.
`starts` runs FedAvg, FBN as recommended, and centralised training from each start, under Dirichlet 0.1 and IID. `norms`
runs, from the same weights, FBN, FBN from the weights' own statistics (without a measuring round), FedAvg with
BatchNorm, with frozen statistics (FixBN from the first round), and GroupNorm. `steps`, which runs only where it is
named, has FBN with an epoch in a round beside it. A method's rate from a start and with a split is the best of 0.02,
0.05 and 0.1, for FedAvg of 0.005 too, and of rates further out where the best lies at the edge, after 15 epochs with
rng seed 0, on the last 1,000 training images of the five classes, which no client holds. Then three rng seeds are run,
one after another, and the accuracy after the last round is that on all test images of the five classes. Training
computes in compiled steps and in bf16, which takes half the time where the processor does.

Each finished row is written to starts.jsonl immediately and is not run again, so the program can stop at any time. A
row names the checksum of the weights that it started from. `--start NAME` and `--method NAME`, which may be given
several times, run these only: so two programs can share the work. `--table` prints the tables; `--quick` runs two
epochs of every kind of row on a few images and saves nothing.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save
from torch import Tensor

import coterie
from coterie import Examples, Recipe
from coterie.core.digests import digest
from coterie.core.examples import pool_examples
from coterie.core.files import write_atomic
from coterie.core.packing import pack
from coterie.data import Source, deal, load
from coterie.engines.sequential import Sequential
from coterie.models.registry import build
from coterie.pretrain.pretrained_weights import load_weights

RESULTS = Path(__file__).with_name("starts.jsonl")
SUPERVISED = Path("runs") / "pretrain-starts"
CLIENTS, PER_CLIENT, BATCH, MOMENTUM = 10, 200, 20, 0.9
RATES, FIRST = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5), (0.05, 0.02, 0.1)
VALIDATION, SEEDS = 1_000, 3
EPOCHS, TRIAL_EPOCHS, STEPS = 20, 15, PER_CLIENT // BATCH
STARTS = ("random", "fps", "supervised")
SPLITS: dict[str, dict[str, Any]] = {
    "dirichlet 0.1": {"partition": "dirichlet", "alpha": 0.1, "min_examples": BATCH},
    "iid": {"partition": "iid"},
}


def fedavg(lr: float) -> Recipe:
    return coterie.fedavg(lr=lr, local_epochs=1, batch_size=BATCH, momentum=MOMENTUM)


def fbn(lr: float, local_steps: int = 1, **options: Any) -> Recipe:
    return coterie.fbn(lr=lr, local_steps=local_steps, batch_size=BATCH, variant="recommended", **options)


METHODS: dict[str, tuple[Callable[[float], Recipe], str]] = {
    "centralised": (fedavg, "batch"),
    "FedAvg": (fedavg, "batch"),
    "FBN": (fbn, "batch"),
    "FBN, one epoch a round": (lambda lr: fbn(lr, STEPS), "batch"),
    "FBN from the weights' statistics": (lambda lr: fbn(lr, warm_start=0), "batch"),
    "FedAvg, frozen statistics": (
        lambda lr: coterie.fixbn(lr=lr, local_epochs=1, batch_size=BATCH, momentum=MOMENTUM, freeze_after=0),
        "batch",
    ),
    "FedAvg with GroupNorm": (fedavg, "group"),
}
"""Method -> its recipe, and the normalisation of the model. `centralised` trains one client that holds all data."""


ONE_STEP = ("FBN", "FBN from the weights' statistics")
"""The methods of which a round is one step."""


@dataclass(frozen=True)
class Row:
    """One run."""

    method: str
    start: str
    split: str
    lr: float
    rng_seed: int = 0
    epochs: int = EPOCHS
    per_client: int = PER_CLIENT
    validates: bool = False


@cache
def halves() -> tuple[Source, Source]:
    """Return CIFAR-10's first five classes, and its last five as classes 0 to 4."""
    whole = load("cifar10")
    assert whole.test is not None

    def part(low: int) -> Source:
        train, test = (_classes(examples, low) for examples in (whole.train, whole.test) if examples is not None)
        return replace(whole, train=train, test=test, num_classes=5)

    return part(0), part(5)


def _classes(examples: Examples, low: int) -> Examples:
    y = examples.labels()
    assert y is not None
    rows = ((y >= low) & (y < low + 5)).nonzero()[:, 0]
    return Examples(examples.x[rows], y[rows] - low)


def data(row: Row) -> Source:
    """Return the last five classes, with training images that no client holds as test images where a row validates."""
    whole = halves()[1]
    n = len(whole.train) - VALIDATION
    kept = whole.train.take(torch.arange(n))
    held = whole.train.take(torch.arange(n, n + VALIDATION))
    return replace(whole, train=kept, test=held if row.validates else whole.test)


@cache
def weights(start: str, norm: str, rounds: int) -> Mapping[str, Tensor] | None:
    """Return the weights of a start, without a classifier; None for random ones.

    Supervised ones are trained once and kept in a file.
    """
    if start == "random":
        return None
    if start == "fps":
        return coterie.weights.load("fps-resnet20" if norm == "batch" else "fps-resnet20-groupnorm")
    file = SUPERVISED / f"resnet20-{norm}-{rounds}.safetensors"
    if not file.exists():
        found = {name: x.contiguous() for name, x in train_supervised(norm, rounds).items()}
        write_atomic(file, save(found))
    return load_file(file)


def train_supervised(norm: str, rounds: int) -> Mapping[str, Tensor]:
    """Return weights that were trained on the five first classes, without a classifier."""
    model, source = build("resnet20", [3, 32, 32], 5, 0, norm=norm), halves()[0]
    *_, last = coterie.federate(
        coterie.fedavg(lr=0.05, local_epochs=1, batch_size=64, momentum=MOMENTUM),
        model,
        {"all": source.train},
        rounds=rounds,
        num_classes=5,
        test=source.test,
        evaluate_every=rounds,
        engine=Sequential(precision="bf16"),
    )
    print(f"supervised start, {norm}: {last.test_accuracy:.4f} on the first classes' test images", flush=True)
    return {name: x for name, x in last.weights().items() if not name.startswith("output.")}


def run(row: Row) -> dict[str, Any]:
    """Run a row; return its accuracies, the last loss, the processor's seconds, and the weights' checksum."""
    recipe, norm = METHODS[row.method]
    begin = weights(row.start, norm, 10 if row.epochs > 2 else 1)
    model = build("resnet20", [3, 32, 32], 5, row.rng_seed, norm=norm)
    if begin is not None:
        load_weights(model, begin, row.start)
    source = data(row)
    clients: Mapping[str, Examples] = deal(
        source, num_clients=CLIENTS, rng_seed=row.rng_seed, examples_per_client=row.per_client, **SPLITS[row.split]
    )
    if row.method == "centralised":
        clients = {"all": pool_examples(clients.values())}
    began, curve, loss = time.process_time(), {}, None
    per_epoch = STEPS if row.method in ONE_STEP else 1
    for each in coterie.federate(
        recipe(row.lr),
        model,
        clients,
        rounds=row.epochs * per_epoch,
        rng_seed=row.rng_seed,
        test=source.test,
        evaluate_every=5 * per_epoch,
        num_classes=5,
        engine=Sequential(precision="bf16", compile=True),
    ):
        loss = each.train_loss
        if each.test_accuracy is not None:
            curve[str(each.round // per_epoch)] = round(each.test_accuracy, 4)
        if each.round > 1 and (loss is None or loss != loss):  # it diverged, so later rounds say nothing
            break
    diverged = loss is None or loss != loss
    return {
        "accuracy": 0.2 if diverged else curve[str(row.epochs)],
        "curve": curve,
        "loss": None if diverged else round(loss, 4),
        "seconds": round(time.process_time() - began, 1),
        "weights": None if begin is None else digest(pack(dict(begin)))[:16],
    }


Results = dict[Row, dict[str, Any]]


def read_results() -> Results:
    """Read the finished rows."""
    lines = RESULTS.read_text().splitlines() if RESULTS.exists() else []
    return {Row(**entry["row"]): entry["result"] for entry in map(json.loads, lines)}


def trial(cell: Row) -> Row:
    """Return the row on which a cell's rate is found, without the rate."""
    return replace(cell, lr=0.0, rng_seed=0, epochs=TRIAL_EPOCHS, validates=True)


def tried(cell: Row, results: Results) -> dict[float, float]:
    """Return the accuracy of each rate that was tried for a cell."""
    rows = {lr: replace(trial(cell), lr=lr) for lr in RATES}
    return {lr: results[row]["accuracy"] for lr, row in rows.items() if row in results}


def next_rate(cell: Row, results: Results) -> float | None:
    """Return the first rate that was not tried, or the next rate beyond a best rate at the edge."""
    known = tried(cell, results)
    for lr in (*FIRST, 0.005) if cell.method == "FedAvg" else FIRST:
        if lr not in known:
            return lr
    best = RATES.index(max(known, key=known.__getitem__))
    return next((RATES[k] for k in (best - 1, best + 1) if 0 <= k < len(RATES) and RATES[k] not in known), None)


def cells(methods: Sequence[str], starts: Sequence[str] = STARTS) -> list[Row]:
    """Return the cells of a set without their rates, cheapest first: a centralised split is the same as another."""
    return [
        Row(method, start, split, lr=0.0)
        for start in starts
        for method in methods
        for split in SPLITS
        if split == "iid" or method != "centralised"
    ]


SETS = {
    "starts": ("centralised", "FedAvg", "FBN"),
    "norms": (
        "FedAvg",
        "FBN",
        "FBN from the weights' statistics",
        "FedAvg, frozen statistics",
        "FedAvg with GroupNorm",
    ),
    "steps": ("FBN", "FBN, one epoch a round"),
}


def rows(chosen: list[Row], results: Results) -> Iterator[Row]:
    """Yield the rates of each cell, then every rng seed at the best; `results` grows as rows are run."""
    for cell in chosen:
        while (lr := next_rate(cell, results)) is not None:
            yield replace(trial(cell), lr=lr)
    for rng_seed in range(SEEDS):
        for cell in chosen:
            known = tried(cell, results)
            yield replace(cell, lr=max(known, key=known.__getitem__), rng_seed=rng_seed)


def table(results: Results) -> str:
    """Return a table for each set: a line for each method and split, a column for each start."""
    lines: list[str] = []
    for methods in SETS.values():
        lines += ["", f"| method | clients | {' | '.join(STARTS)} |", f"| --- | --- |{' --- |' * len(STARTS)}"]
        by_line: dict[tuple[str, str], dict[str, str]] = {}
        for cell in cells(methods):
            by_line.setdefault((cell.method, cell.split), {})[cell.start] = _text(cell, results)
        lines += [f"| {m} | {s} | {' | '.join(texts.values())} |" for (m, s), texts in sorted(by_line.items())]
    return "\n".join(lines).strip()


def _text(cell: Row, results: Results) -> str:
    """Return the mean accuracy in percent at the best rate, its standard error, and the number of runs."""
    known = tried(cell, results)
    lr = max(known, key=known.__getitem__) if known else 0.0
    found = [replace(cell, lr=lr, rng_seed=seed) for seed in range(SEEDS)]
    accuracies = [100 * results[row]["accuracy"] for row in found if row in results]
    if not accuracies:
        return "not run"
    error = statistics.stdev(accuracies) / len(accuracies) ** 0.5 if len(accuracies) > 1 else None
    return f"{statistics.mean(accuracies):.1f}{'' if error is None else f' ± {error:.1f}'} ({len(accuracies)})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sets", nargs="*", default=["starts", "norms"], help=" ".join(SETS))
    parser.add_argument("--minutes", type=float, default=float("inf"), help="start no new row after this many minutes")
    parser.add_argument("--start", action="append", choices=STARTS, help="run this start only, or these")
    parser.add_argument("--method", action="append", choices=METHODS, help="run this method only, or these")
    parser.add_argument("--table", action="store_true", help="print the tables and run nothing")
    parser.add_argument("--quick", action="store_true")
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    until, results = time.monotonic() + 60 * chosen.minutes, read_results()
    if chosen.table:
        print(table(results))
        return
    if chosen.quick:
        for method in METHODS:
            row = Row(method, "fps", "iid", lr=0.05, epochs=2, per_client=20, validates=True)
            print(method, run(row), flush=True)
        return
    for name in chosen.sets:
        methods = [method for method in SETS[name] if method in (chosen.method or METHODS)]
        for row in rows(cells(methods, chosen.start or STARTS), results):  # it reads the results again after each row
            results.update(read_results())  # with those of another program
            if time.monotonic() > until:
                return
            if row not in results:
                results[row] = result = run(row)
                with RESULTS.open("a") as file:
                    file.write(json.dumps({"row": asdict(row), "result": result}) + "\n")
                print(f"{result['seconds']:6.1f} s  {result['accuracy']:.4f}  {row}", flush=True)


if __name__ == "__main__":
    main()
