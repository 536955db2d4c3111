"""Run every normalisation method on unlike clients, at several skews, and under attacks on the statistics.

    COTERIE_DATA=... python benchmarks/batchnorm/runs.py [SETS] [--minutes 60]

SETS are rates, gradients, steady, skews, attacks, cifar10, options10, recommended, variant and resnet20. Without any,
all run.

Ten clients, one gradient of 25 examples each in a round, momentum 0.9 that lasts over rounds, 200 rounds; a network of
three stride-2 convolutions (16, 32, 64), each followed by the normalisation, and a linear layer. Test accuracy is
measured after the last round, on all 10,000 test images. `rates` finds each method's learning rate with one label per
client and rng seed 0, from 0.02, 0.05 and 0.1, and further out where the best lies at the edge; all other sets use it.

Each finished row is written to results.jsonl immediately and is not run again, so the program can be stopped at any
time. `report.py` writes the tables and the plot. `--quick` runs two rounds of one row of every kind and saves nothing.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from functools import cache
from itertools import product
from pathlib import Path
from typing import Any

import torch
from torch import nn

import coterie
from coterie import Examples, Recipe
from coterie.aggregation import aggregation
from coterie.algorithms.optimizers import sgd
from coterie.attacks import attack
from coterie.core.engine import Engine
from coterie.data import Source, deal, load
from coterie.engines.sequential import Sequential
from coterie.engines.vectorised import Vectorised
from coterie.models.normalisation import convert_normalisation
from coterie.models.registry import build

RESULTS = Path(__file__).with_name("results.jsonl")
CLIENTS, BATCH, MOMENTUM = 10, 25, 0.9
SPLITS: dict[str, dict[str, Any]] = {
    "1 label": {"partition": "label", "labels_per_client": 1},
    "2 labels": {"partition": "label", "labels_per_client": 2},
    "dirichlet 0.1": {"partition": "dirichlet", "alpha": 0.1, "min_examples": BATCH},
    "dirichlet 0.5": {"partition": "dirichlet", "alpha": 0.5, "min_examples": BATCH},
    "iid": {"partition": "iid"},
}
RATES = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5)


@dataclass(frozen=True)
class Row:
    """One run.

    Attributes:
        method: a key of `METHODS`.
        options: the method's options, except the rate.
        rule: the aggregation's name, after the steps before it: "nnm, trimmed_mean".
        attack: the attack of two clients on the statistics, or "none".
    """

    data: str
    split: str
    method: str
    lr: float
    rng_seed: int = 0
    rounds: int = 200
    options: dict[str, Any] = field(default_factory=dict)
    rule: str = "mean"
    attack: str = "none"
    model: str = "conv"


def conv(in_shape: list[int], num_classes: int) -> nn.Module:
    """Return three 3 x 3 convolutions of stride 2, each followed by BatchNorm, and one linear layer."""
    layers: list[nn.Module] = []
    before, side = in_shape[0], in_shape[1]
    for after in (16, 32, 64):
        layers += [nn.Conv2d(before, after, 3, stride=2, padding=1), nn.BatchNorm2d(after), nn.ReLU()]
        before, side = after, (side + 1) // 2
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(before * side * side, num_classes))


@dataclass(frozen=True)
class Method:
    """One line of the tables.

    Attributes:
        recipe: makes the recipe from its options.
        norm: the layer that replaces the model's BatchNorm.
        alone: whether one client holds all data.
        measures: whether every second round measures, so that a run has twice as many rounds.
    """

    recipe: Callable[..., Recipe]
    norm: str = "batch"
    alone: bool = False
    measures: bool = False


STEP = {"local_steps": 1, "batch_size": BATCH}
ALL = {"batch_size": CLIENTS * BATCH}
LOCAL = {**STEP, "momentum": MOMENTUM}


def with_server_momentum(recipe: Callable[..., Recipe], **options: Any) -> Recipe:
    """Return the recipe with one step a round and momentum at the server."""
    return recipe(server=sgd(1.0, MOMENTUM), **STEP | options)


def fbn(**options: Any) -> Recipe:
    """Return FBN with one step a round and momentum at the server."""
    return coterie.fbn(**{"variant": "paper", "server_momentum": MOMENTUM} | STEP | options)


POOLED = {"gradient": "pooled", "warm_start": 3, "server_clip_norm": 1.0}
METHODS: dict[str, Method] = {
    "centralised BatchNorm": Method(lambda **o: coterie.centralized(**LOCAL | ALL | o), alone=True),
    "FBN": Method(fbn),
    "FBN, renorm": Method(lambda **o: fbn(gradient="renorm", **o)),
    "FBN, pooled": Method(lambda **o: fbn(**POOLED | o)),
    "FBN, recommended": Method(lambda **o: coterie.fbn(**{"variant": "recommended"} | STEP | o)),
    "FBN, one client": Method(lambda **o: fbn(**ALL | o), alone=True),
    "FBN, pooled, one client": Method(lambda **o: fbn(**POOLED | ALL | o), alone=True),
    "FedAvg": Method(lambda **o: with_server_momentum(coterie.fedavg, **o)),
    "FixBN": Method(lambda **o: with_server_momentum(coterie.fixbn, freeze_after=100, **o)),
    "FedBN": Method(lambda **o: coterie.fedbn(keep_momentum=True, **LOCAL | o)),
    "GroupNorm": Method(lambda **o: with_server_momentum(coterie.fedavg, **o), norm="group"),
    "LayerNorm": Method(lambda **o: with_server_momentum(coterie.fedavg, **o), norm="layer"),
    "HBN": Method(lambda **o: with_server_momentum(coterie.hbn, statistics_batch=BATCH, **o), measures=True),
}
ATTACKS: dict[str, dict[str, Any]] = {"sign_flip": {}, "large_values": {}, "ipm": {"line_search": True}}
"""Attacks on the batch statistics that two clients send, with the attacks' own arguments."""


@cache
def source(name: str) -> Source:
    """Load a source once."""
    return load(name)


def clients(row: Row) -> Mapping[str, Examples]:
    """Return the examples of each client."""
    data = source(row.data)
    if METHODS[row.method].alone:
        return {"all": data.train}
    return deal(data, num_clients=CLIENTS, rng_seed=row.rng_seed, **SPLITS[row.split])


def model(row: Row) -> nn.Module:
    """Return the row's model with the method's normalisation."""
    shape = list(source(row.data).train.x.shape[1:])
    made = build(conv if row.model == "conv" else row.model, shape, 10, row.rng_seed)
    return convert_normalisation(made, METHODS[row.method].norm)  # type: ignore[arg-type]


def engine(row: Row) -> Engine:
    """Return the engine: one compiled step for all clients; uncompiled for a client alone and for a large model."""
    alone = METHODS[row.method].alone or row.model != "conv"
    return Sequential() if alone else Vectorised(compile=True)


def run(row: Row) -> dict[str, Any]:
    """Run a row and return what the last round measured, and the processor's seconds."""
    *steps, name = row.rule.split(", ")
    robust: dict[str, Any] = {} if row.rule == "mean" else {"pre": steps, "num_byzantine": 2}
    options = row.options | ({"robust": "statistics"} if robust else {})
    start, last = time.process_time(), None
    rounds = row.rounds * (2 if METHODS[row.method].measures else 1)
    for last in coterie.federate(
        METHODS[row.method].recipe(lr=row.lr, **options),
        model(row),
        clients(row),
        rounds=rounds,
        rng_seed=row.rng_seed,
        test=source(row.data).test,
        evaluate_every=rounds,
        evaluate_clients=row.method == "FedBN",
        num_classes=10,
        aggregation=aggregation(name, **robust),
        attack=None if row.attack == "none" else attack(row.attack, 2, "statistics", **ATTACKS[row.attack]),
        engine=engine(row),
    ):
        if last.train_loss is None or last.train_loss != last.train_loss:  # it diverged, so later rounds say nothing
            break
    assert last is not None
    accuracies = ("test_accuracy", "own_test_accuracy")
    shifts = {k: float(f"{v:.4g}") for k, v in last.measures.items() if k.startswith(("shift.", "drift.")) and v}
    return {
        **{name: last.measures.get(name) for name in accuracies if name in last.measures},
        "train_loss": last.train_loss,
        **shifts,
        "bytes_up": last.bytes_up / len(last.cohort),
        "bytes_down": last.bytes_down / len(last.cohort),
        "seconds": round(time.process_time() - start, 1),
    }


Results = dict[str, dict[str, Any]]
"""The result of each finished row, by its key."""


def key(row: Row) -> str:
    """Return the text that identifies a row in the results."""
    return json.dumps(asdict(row), sort_keys=True)


def read_results(path: Path = RESULTS) -> Results:
    """Read the finished rows."""
    lines = path.read_text().splitlines() if path.exists() else []
    return {key(Row(**entry["row"])): entry["result"] for entry in map(json.loads, lines)}


def accuracy(result: dict[str, Any]) -> float:
    """Return the accuracy on the test data of all clients; for a run that diverged, that of guessing."""
    value = result["test_accuracy"]
    return 0.1 if value is None else float(value)


def base(data: str, method: str, **options: Any) -> Row:
    """Return the row on which a method's rate is found, without the rate."""
    return Row(data, "iid" if METHODS[method].alone else "1 label", method, lr=0.0, options=options)


def next_rate(row: Row, results: Results) -> float | None:
    """Return the first of 0.05, 0.02, 0.1 that was not tried, or the next rate beyond a best rate at the edge."""
    tried = {lr: accuracy(results[key(replace(row, lr=lr))]) for lr in RATES if key(replace(row, lr=lr)) in results}
    for lr in (0.05, 0.02, 0.1):
        if lr not in tried:
            return lr
    best = RATES.index(max(tried, key=tried.__getitem__))
    return next((RATES[k] for k in (best - 1, best + 1) if 0 <= k < len(RATES) and RATES[k] not in tried), None)


def best_rate(row: Row, results: Results) -> float | None:
    """Return the best of the rates tried; None before all have been tried."""
    if next_rate(row, results) is not None:
        return None
    known = {lr: accuracy(results[key(replace(row, lr=lr))]) for lr in RATES if key(replace(row, lr=lr)) in results}
    return max(known, key=known.__getitem__)


def row_at_best_rate(data: str, method: str, results: Results, **options: Any) -> Row | None:
    """Return a method's row with its best rate, once that is known."""
    row = base(data, method, **options)
    lr = best_rate(row, results)
    return None if lr is None else replace(row, lr=lr)


def rates(results: Results, data: str = "fashion_mnist", methods: Collection[str] = METHODS) -> Iterator[Row]:
    """Yield rows until each method's best rate is known."""
    for method in methods:
        while (lr := next_rate(base(data, method), results)) is not None:
            yield replace(base(data, method), lr=lr)


def skews(
    results: Results, data: str = "fashion_mnist", methods: Collection[str] = METHODS, seeds: int = 3
) -> Iterator[Row]:
    """Yield every method at every skew, rng seed after rng seed, the ends of the scale first."""
    for rng_seed in range(seeds):
        for split in ("1 label", "iid", "dirichlet 0.1", "2 labels", "dirichlet 0.5"):
            for method in methods:
                row = row_at_best_rate(data, method, results)
                if row is not None and (split == "iid" or not METHODS[method].alone):
                    yield replace(row, split=split, rng_seed=rng_seed)


def gradients(results: Results) -> Iterator[Row]:
    """Yield variants of FBN with one label per client, one thing changed at a time."""
    warm, clip = {"warm_start": 3}, {"server_clip_norm": 1.0}
    without: dict[str, dict[str, Any]] = {"warm_start": {"warm_start": 0}, "clip": {"server_clip_norm": None}}
    changes: list[tuple[str, dict[str, Any]]] = [
        ("FBN", warm),
        ("FBN", warm | clip),
        ("FBN", warm | clip | {"statistics_momentum": 0.3}),
        ("FBN, renorm", warm),
        ("FBN, renorm", warm | clip),
        ("FBN, renorm", warm | clip | {"statistics_momentum": 0.3}),
        ("FBN, renorm", warm | {"max_r": 3.0, "max_d": 5.0}),
        ("FBN, renorm", warm | {"max_r": 1.5, "max_d": 0.5}),
        ("FBN, pooled", without["warm_start"]),
        ("FBN, pooled", without["clip"]),
        ("FBN, pooled", {"statistics_momentum": 0.3}),
    ]
    for lr in (0.05, 0.02, 0.1):
        for method, options in [*((m, {}) for m in METHODS if m in GRADIENTS), *changes]:
            yield replace(base("fashion_mnist", method), lr=lr, options=options)


GRADIENTS = ("centralised BatchNorm", "FBN", "FBN, renorm", "FBN, pooled")


def steady(results: Results) -> Iterator[Row]:
    """Yield the best variants of `gradients` with two more rng seeds at each rate."""
    best = [
        ("FBN, pooled", {"statistics_momentum": 0.3}),
        ("FBN, renorm", {"warm_start": 3, "server_clip_norm": 1.0, "statistics_momentum": 0.3}),
        ("FBN, pooled", {}),
    ]
    for rng_seed in (1, 2):
        for lr in (0.05, 0.02, 0.1):
            for method, options in best:
                yield replace(base("fashion_mnist", method), lr=lr, options=options, rng_seed=rng_seed)


def attacks(results: Results) -> Iterator[Row]:
    """Yield FBN with robust rules for the statistics, without attackers and with two.

    Flipped signs run with every rng seed, the other attacks with the first.
    """
    plain = row_at_best_rate("fashion_mnist", "FBN", results)
    for rng_seed in range(3) if plain else ():
        assert plain is not None
        for rule in RULES:
            for split in ("iid", "dirichlet 0.5"):
                for name in ("none", *ATTACKS) if rng_seed == 0 else ("none", "sign_flip"):
                    yield with_attack(replace(plain, split=split, rng_seed=rng_seed, rule=rule), name)
            for split in ("1 label", "dirichlet 0.1", "2 labels") if rng_seed == 0 else ():
                yield replace(plain, split=split, rule=rule)


RULES = ("mean", "trimmed_mean", "median", "multi_krum", "nnm, trimmed_mean", "nnm, median", "nnm, mean")


def with_attack(row: Row, name: str) -> Row:
    """Return the row with an attack. Signs are flipped in the moved statistics, as in the authors' code."""
    return replace(row, attack=name, options=row.options | ({"sends": "moved"} if name == "sign_flip" else {}))


def cifar10(results: Results) -> Iterator[Row]:
    """Yield rates and skews with CIFAR-10, for fewer methods."""
    yield from rates(results, "cifar10", MAIN)
    yield from skews(results, "cifar10", MAIN)


MAIN = ("centralised BatchNorm", "FBN", "FBN, renorm", "FBN, pooled", "FedAvg", "GroupNorm")


def options10(results: Results) -> Iterator[Row]:
    """Yield the variants that helped in `gradients`, with CIFAR-10."""
    warm = {"warm_start": 3, "server_clip_norm": 1.0}
    variants: list[tuple[str, dict[str, Any]]] = [
        (method, more | momentum)
        for momentum in ({"statistics_momentum": 0.3}, {})
        for method, more in (("FBN", warm), ("FBN, renorm", warm), ("FBN, pooled", {}))
    ]
    for rng_seed in range(3):
        for lr in (0.02, 0.01, 0.05):
            for method, options in variants:
                yield replace(base("cifar10", method), lr=lr, options=options, rng_seed=rng_seed)


RECOMMENDED: dict[str, Any] = {"statistics_momentum": 0.3}
"""The options with which "FBN, pooled" is best; they are not those of the recommended variant."""


def recommended(results: Results) -> Iterator[Row]:
    """Yield "FBN, pooled" with its best options, at every skew, for both data sets."""
    for data in ("fashion_mnist", "cifar10"):
        row = base(data, "FBN, pooled", **RECOMMENDED)
        while (lr := next_rate(row, results)) is not None:
            yield replace(row, lr=lr)
        best = row_at_best_rate(data, "FBN, pooled", results, **RECOMMENDED)
        for rng_seed, split in product(range(3), SPLITS) if best else ():
            assert best is not None
            yield replace(best, split=split, rng_seed=rng_seed)


def variant(results: Results) -> Iterator[Row]:
    """Yield FBN's recommended variant at every skew, and the paper's with IID clients; CIFAR-10 with five rng seeds."""
    for data, seeds in (("cifar10", 5), ("fashion_mnist", 3)):
        yield from rates(results, data, ("FBN, recommended",))
        yield from skews(results, data, ("FBN, recommended",), seeds)
    paper = row_at_best_rate("cifar10", "FBN", results)
    for rng_seed in range(5) if paper else ():
        assert paper is not None
        yield replace(paper, split="iid", rng_seed=rng_seed)


def resnet20(results: Results) -> Iterator[Row]:
    """Yield ResNet-20 with one label per client and IID, 100 rounds."""
    for split, row in product(("1 label", "iid"), resnet20_rows(results)):
        yield replace(row, split=split)


def resnet20_rows(results: Results) -> list[Row]:
    """Return the rows of ResNet-20, at the small network's rates; the recommended one warms up its 19 layers."""
    small = [row_at_best_rate("cifar10", method, results) for method in ("FedAvg", "FBN", "FBN, pooled")]
    best = row_at_best_rate("cifar10", "FBN, pooled", results, **RECOMMENDED)
    small.append(best and replace(best, options=best.options | {"warm_start": 19}))
    return [replace(row, model="resnet20", rounds=100) for row in small if row]


SETS: dict[str, Callable[[Results], Iterator[Row]]] = {
    "rates": rates,
    "gradients": gradients,
    "steady": steady,
    "skews": skews,
    "attacks": attacks,
    "cifar10": cifar10,
    "options10": options10,
    "recommended": recommended,
    "variant": variant,
    "resnet20": resnet20,
}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("sets", nargs="*", default=list(SETS), help=" ".join(SETS))
    parser.add_argument("--minutes", type=float, default=float("inf"), help="start no new row after this many minutes")
    parser.add_argument("--quick", action="store_true")
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    if chosen.quick:
        run_quick()
        return
    until, results = time.monotonic() + 60 * chosen.minutes, read_results()
    for name in chosen.sets:
        for row in SETS[name](results):  # it reads the results again after each row
            if time.monotonic() > until:
                return
            if key(row) not in results:
                results[key(row)] = result = run(row)
                with RESULTS.open("a") as file:
                    file.write(json.dumps({"row": asdict(row), "result": result}) + "\n")
                print(f"{result['seconds']:6.1f} s  {accuracy(result):.4f}  {row}", flush=True)


def run_quick() -> None:
    """Run two rounds of every method, rule and attack."""
    row = Row("fashion_mnist", "1 label", "FBN", 0.02, rounds=2)
    rows = [replace(base("fashion_mnist", method), lr=0.02, rounds=2) for method in METHODS]
    rows += [with_attack(replace(row, rule=rule), name) for rule in RULES for name in ("none", *ATTACKS)]
    for one in rows:
        print(f"{run(one)['seconds']:6.1f} s  {one}", flush=True)


if __name__ == "__main__":
    main()
