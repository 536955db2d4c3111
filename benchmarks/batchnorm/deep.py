"""Run FBN and what it is compared with on a deep network: ResNet-20 on CIFAR-10.

    COTERIE_DATA=... python benchmarks/batchnorm/deep.py [SETS] [--minutes 60] [--threads 1]

SETS are rates, skews, wide and more; without any, the first two run. Ten clients, one gradient of 25 examples each in a
round, 100 rounds, momentum 0.9 at the server that lasts over rounds. `rates` finds each method's learning rate with
rng seed 0 on 5,000 training images that no client holds, under Dirichlet 0.1: the best of 0.02, 0.05, 0.1 and 0.2, and
of rates further out where the best lies at the edge. `skews` runs each method at its rate at each skew with three rng
seeds, and measures the accuracy on all 10,000 test images after the last round. `wide` runs FBN at every rate within a
factor of four of its best.

Each finished row is written to deep.jsonl immediately and is not run again, so the program can be stopped at any time.
`--method NAME`, which may be given several times, runs these methods only: so two programs can share the work.
`python benchmarks/batchnorm/deep.py --table` prints the tables of docs/algorithms/fbn.md. `--quick` runs two rounds of
every method on a few images and saves nothing.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from runs import BATCH, CLIENTS, MOMENTUM, SPLITS, STEP, source
from torch import nn

import coterie
from coterie import Examples, Recipe
from coterie.algorithms.batchnorm.centring import take_out_means
from coterie.algorithms.optimizers import Optimizer, clip_to_norm, muon, sgd
from coterie.core.tree import Tree
from coterie.data import Source, deal
from coterie.engines.sequential import Sequential
from coterie.models.kernels_before_norms import kernels_before_norms
from coterie.models.normalisation import convert_normalisation
from coterie.models.registry import build

RESULTS = Path(__file__).with_name("deep.jsonl")
VALIDATION = 5_000
RATES = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0)
FIRST = (0.05, 0.1, 0.02, 0.2)
SKEWS = ("1 label", "dirichlet 0.1", "iid")


@dataclass(frozen=True)
class Row:
    """One run.

    Attributes:
        method: a key of `METHODS`.
        split: a key of `SPLITS` in runs.py; "iid" for methods with one client that holds all data.
        validates: whether the accuracy is that on training images that no client holds.
    """

    method: str
    split: str
    lr: float
    rng_seed: int = 0
    rounds: int = 100
    validates: bool = False


@dataclass(frozen=True)
class Method:
    """One line of the tables.

    Attributes:
        recipe: makes the recipe from the model and the rate.
        norm: the layer that replaces the model's BatchNorm.
        alone: whether one client holds all data.
    """

    recipe: Callable[[nn.Module, float], Recipe]
    norm: str = "batch"
    alone: bool = False


def fbn(model: nn.Module, lr: float, **options: Any) -> Recipe:
    """Return FBN with one step a round."""
    return coterie.fbn(lr=lr, **STEP | options)


def fedavg(model: nn.Module, lr: float, server: Optimizer | None = None, batch_size: int = BATCH) -> Recipe:
    """Return FedAvg with one step a round and this server optimiser, momentum 0.9 unless given."""
    return coterie.fedavg(lr=lr, server=server or sgd(1.0, MOMENTUM), local_steps=1, batch_size=batch_size)


def pooled(model: nn.Module, lr: float, after: Optimizer | None = None, **steps: bool) -> Recipe:
    """Return BatchNorm on the pooled batch, its gradient clipped and centred at choice before the server's step."""
    after = after or sgd(1.0, MOMENTUM)
    kernels = kernels_before_norms(model) if steps.get("centre") else ()

    def apply(params: Tree, gradient: Tree, state: Tree, rate: Any = None) -> tuple[Tree, Tree]:
        gradient = take_out_means(gradient, kernels)
        gradient = clip_to_norm(gradient, lr) if steps.get("clip") else gradient
        return after.apply(params, gradient, state, rate)

    return fedavg(model, lr, Optimizer(after.init, apply), CLIENTS * BATCH)


PAPER = {"variant": "paper", "server_momentum": MOMENTUM}
PLAIN = {"variant": "recommended", "server": "sgd"}
METHODS: dict[str, Method] = {
    "centralised BatchNorm": Method(pooled, alone=True),
    "centralised BatchNorm, clipped and centred": Method(
        lambda model, lr: pooled(model, lr, clip=True, centre=True), alone=True
    ),
    "centralised BatchNorm, Muon": Method(lambda model, lr: pooled(model, lr, muon(1.0, MOMENTUM)), alone=True),
    "FBN, recommended": Method(fbn),
    "FBN, without Muon": Method(lambda model, lr: fbn(model, lr, **PLAIN)),
    "FBN, without Muon, pooled": Method(lambda model, lr: fbn(model, lr, gradient="pooled", **PLAIN)),
    "FBN, pooled": Method(lambda model, lr: fbn(model, lr, variant="recommended", gradient="pooled")),
    "FBN, paper": Method(lambda model, lr: fbn(model, lr, **PAPER)),
    "FedAvg": Method(lambda model, lr: fedavg(model, lr, sgd(1.0))),
    "FedAvgM": Method(fedavg),
    "FedMuon": Method(lambda model, lr: fedavg(model, lr, muon(1.0, MOMENTUM))),
    "GroupNorm": Method(fedavg, norm="group"),
}
MAIN = (
    "FBN, recommended",
    "FedAvgM",
    "centralised BatchNorm",
    "FedAvg",
    "centralised BatchNorm, clipped and centred",
    "GroupNorm",
)


def data(row: Row) -> Source:
    """Return the data, with training images that no client holds as test images where the row validates."""
    whole = source("cifar10")
    if not row.validates:
        return whole
    n = len(whole.train) - VALIDATION
    kept, held = whole.train.take(torch.arange(n)), whole.train.take(torch.arange(n, n + VALIDATION))
    return replace(whole, train=kept, test=held)


def clients(row: Row) -> Mapping[str, Examples]:
    """Return the examples of each client."""
    if METHODS[row.method].alone:
        return {"all": data(row).train}
    return deal(data(row), num_clients=CLIENTS, rng_seed=row.rng_seed, **SPLITS[row.split])


def run(row: Row) -> dict[str, Any]:
    """Run a row; return its accuracies after 50 rounds and the last, the last loss, and the processor's seconds."""
    method = METHODS[row.method]
    model = convert_normalisation(build("resnet20", [3, 32, 32], 10, row.rng_seed), method.norm)  # type: ignore[arg-type]
    start, curve, loss = time.process_time(), {}, None
    for each in coterie.federate(
        method.recipe(model, row.lr),
        model,
        clients(row),
        rounds=row.rounds,
        rng_seed=row.rng_seed,
        test=data(row).test,
        evaluate_every=50,
        num_classes=10,
        engine=Sequential(),
    ):
        loss = each.train_loss
        if each.test_accuracy is not None:
            curve[str(each.round)] = round(each.test_accuracy, 4)
        if loss is None or loss != loss:  # it diverged, so later rounds say nothing
            break
    diverged = loss is None or loss != loss
    accuracy = 0.1 if diverged else curve[str(row.rounds)]
    seconds = round(time.process_time() - start, 1)
    return {"accuracy": accuracy, "curve": curve, "loss": None if diverged else round(loss, 4), "seconds": seconds}


Results = dict[Row, dict[str, Any]]
"""The result of each finished row."""


def read_results() -> Results:
    """Read the finished rows."""
    lines = RESULTS.read_text().splitlines() if RESULTS.exists() else []
    return {Row(**entry["row"]): entry["result"] for entry in map(json.loads, lines)}


def trial(method: str) -> Row:
    """Return the row on which a method's rate is found, without the rate."""
    return Row(method, "iid" if METHODS[method].alone else "dirichlet 0.1", lr=0.0, validates=True)


def tried(method: str, results: Results) -> dict[float, float]:
    """Return the accuracy of each rate that was tried."""
    rows = {lr: replace(trial(method), lr=lr) for lr in RATES}
    return {lr: results[row]["accuracy"] for lr, row in rows.items() if row in results}


def next_rate(method: str, results: Results) -> float | None:
    """Return the first of `FIRST` that was not tried, or the next rate beyond a best rate at the edge."""
    known = tried(method, results)
    for lr in FIRST:
        if lr not in known:
            return lr
    best = RATES.index(max(known, key=known.__getitem__))
    return next((RATES[k] for k in (best - 1, best + 1) if 0 <= k < len(RATES) and RATES[k] not in known), None)


def rates(results: Results, methods: tuple[str, ...] = MAIN) -> Iterator[Row]:
    """Yield rows until each method's best rate is known."""
    for method in methods:
        while (lr := next_rate(method, results)) is not None:
            yield replace(trial(method), lr=lr)


def skews(results: Results, methods: tuple[str, ...] = MAIN) -> Iterator[Row]:
    """Yield every method at every skew, rng seed after rng seed."""
    for rng_seed in range(3):
        for split in SKEWS:
            for method in methods:
                known = tried(method, results)
                if next_rate(method, results) is None and (split == "iid" or not METHODS[method].alone):
                    yield Row(method, split, max(known, key=known.__getitem__), rng_seed)


def more(results: Results, methods: tuple[str, ...] = ()) -> Iterator[Row]:
    """Yield the rates and skews of these methods, of those that are not `MAIN` unless given."""
    methods = methods or tuple(method for method in METHODS if method not in MAIN)
    yield from rates(results, methods)
    yield from skews(results, methods)


def wide(results: Results, methods: tuple[str, ...] = ("FBN, recommended",)) -> Iterator[Row]:
    """Yield the rates within a factor of four of each method's best."""
    for method in methods:
        known = tried(method, results)
        best = max(known, key=known.__getitem__) if known else 0.0
        yield from (replace(trial(method), lr=lr) for lr in RATES if best / 4 <= lr <= best * 4)


SETS: dict[str, Callable[..., Iterator[Row]]] = {"rates": rates, "skews": skews, "wide": wide, "more": more}


def table(results: Results) -> str:
    """Return the tables: accuracy at each skew, and accuracy on the images held back at each rate."""
    lines = ["| method | lr | 1 label | Dirichlet 0.1 | IID |", "| --- | --- | --- | --- | --- |"]
    for method in METHODS:
        known = tried(method, results)
        if not known or next_rate(method, results) is not None:
            continue
        lr = max(known, key=known.__getitem__)
        cells = (cell([results.get(Row(method, split, lr, seed)) for seed in range(3)]) for split in SKEWS)
        lines.append(f"| {method} | {lr:g} | {' | '.join(cells)} |")
    lines += ["", f"| method | {' | '.join(f'{lr:g}' for lr in RATES)} |", f"| --- |{' --- |' * len(RATES)}"]
    for method in METHODS:
        known = tried(method, results)
        cells = (f"{100 * known[lr]:.1f}" if lr in known else "–" for lr in RATES)
        lines += [f"| {method} | {' | '.join(cells)} |"] if known else []
    return "\n".join(lines)


def cell(results: list[dict[str, Any] | None]) -> str:
    """Return the mean accuracy in percent, its standard error, and the number of runs."""
    found = [100 * each["accuracy"] for each in results if each is not None]
    if not found:
        return "not run"
    error = f" ± {statistics.stdev(found) / len(found) ** 0.5:.1f}" if len(found) > 1 else ""
    return f"{statistics.mean(found):.1f}{error} ({len(found)})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sets", nargs="*", default=["rates", "skews"], help=" ".join(SETS))
    parser.add_argument("--minutes", type=float, default=float("inf"), help="start no new row after this many minutes")
    parser.add_argument("--method", action="append", choices=METHODS, help="run this method only, or these")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--table", action="store_true", help="print the tables and run nothing")
    parser.add_argument("--quick", action="store_true")
    chosen = parser.parse_args()
    torch.set_num_threads(chosen.threads)
    until, results = time.monotonic() + 60 * chosen.minutes, read_results()
    if chosen.table:
        print(table(results))
        return
    if chosen.quick:
        for method in METHODS:
            print(method, run(replace(trial(method), lr=0.05, rounds=2)), flush=True)
        return
    methods = {"methods": tuple(chosen.method)} if chosen.method else {}
    for name in chosen.sets:
        for row in SETS[name](results, **methods):  # it reads the results again after each row
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
