"""Normalisation on unlike clients: what each method reaches, at which skew, and what attacked statistics do to it.

    COTERIE_DATA=... python benchmarks/batchnorm/runs.py [SETS] [--minutes 60]

SETS are rates, gradients, steady, skews, attacks, cifar10, options10, recommended and resnet20; all of them where none
is named.

Ten clients, one gradient of 25 examples each in a round, momentum 0.9 that lasts over rounds, 200 rounds; a network of
three stride-2 convolutions (16, 32, 64), each followed by the normalisation, and a linear layer. Test accuracy is that
after the last round, on all 10,000 test images. `rates` finds each method's learning rate with one label per client and
rng seed 0, from 0.02, 0.05 and 0.1, and further out where the best lies at the edge; all other sets use it.

A finished row is a line in results.jsonl at once, and is not run again: stop it whenever you like. `report.py` writes
tables and the plot. `--quick` runs two rounds of one row of every kind, and keeps nothing.
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
from coterie.algorithms.server import sgd
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
        options: of the method, beside the rate.
        rule: of [aggregation], with the steps before it: "nnm, trimmed_mean".
        attack: of two clients on the statistics, or none.
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
    """Three 3 x 3 convolutions of stride 2, each followed by BatchNorm, and one linear layer."""
    layers: list[nn.Module] = []
    before, side = in_shape[0], in_shape[1]
    for after in (16, 32, 64):
        layers += [nn.Conv2d(before, after, 3, stride=2, padding=1), nn.BatchNorm2d(after), nn.ReLU()]
        before, side = after, (side + 1) // 2
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(before * side * side, num_classes))


@dataclass(frozen=True)
class Method:
    """A recipe from its options; what the model's BatchNorm becomes; whether one client holds all data; and whether
    every second round measures, so that it takes twice as many.
    """

    recipe: Callable[..., Recipe]
    norm: str = "batch"
    alone: bool = False
    measures: bool = False


STEP = {"local_steps": 1, "batch_size": BATCH}
ALL = {"batch_size": CLIENTS * BATCH}
LOCAL = {**STEP, "momentum": MOMENTUM}


def averaged(recipe: Callable[..., Recipe], **options: Any) -> Recipe:
    return recipe(server=sgd(1.0, MOMENTUM), **STEP | options)


def fbn(**options: Any) -> Recipe:
    return coterie.fbn(server_momentum=MOMENTUM, **STEP | options)


POOLED = {"gradient": "pooled", "warm_start": 3, "server_clip_norm": 1.0}
METHODS: dict[str, Method] = {
    "centralised BatchNorm": Method(lambda **o: coterie.centralized(**LOCAL | ALL | o), alone=True),
    "FBN": Method(fbn),
    "FBN, renorm": Method(lambda **o: fbn(gradient="renorm", **o)),
    "FBN, pooled": Method(lambda **o: fbn(**POOLED | o)),
    "FBN, one client": Method(lambda **o: fbn(**ALL | o), alone=True),
    "FBN, pooled, one client": Method(lambda **o: fbn(**POOLED | ALL | o), alone=True),
    "FedAvg": Method(lambda **o: averaged(coterie.fedavg, **o)),
    "FixBN": Method(lambda **o: averaged(coterie.fixbn, freeze_after=100, **o)),
    "FedBN": Method(lambda **o: coterie.fedbn(keep_momentum=True, **LOCAL | o)),
    "GroupNorm": Method(lambda **o: averaged(coterie.fedavg, **o), norm="group"),
    "LayerNorm": Method(lambda **o: averaged(coterie.fedavg, **o), norm="layer"),
    "HBN": Method(lambda **o: averaged(coterie.hbn, statistics_batch=BATCH, **o), measures=True),
}
ATTACKS: dict[str, dict[str, Any]] = {"sign_flip": {}, "large_values": {}, "ipm": {"line_search": True}}
"""Attacks on what two clients say their batches were like, and their parameters."""


@cache
def source(name: str) -> Source:
    return load(name)


def clients(row: Row) -> Mapping[str, Examples]:
    data = source(row.data)
    if METHODS[row.method].alone:
        return {"all": data.train}
    return deal(data, num_clients=CLIENTS, rng_seed=row.rng_seed, **SPLITS[row.split])


def model(row: Row) -> nn.Module:
    shape = list(source(row.data).train.x.shape[1:])
    made = build(conv if row.model == "conv" else row.model, shape, 10, row.rng_seed)
    return convert_normalisation(made, METHODS[row.method].norm)  # type: ignore[arg-type]


def engine(row: Row) -> Engine:
    """One step for all clients, compiled; a client alone has nothing to share the compilation with."""
    alone = METHODS[row.method].alone or row.model != "conv"
    return Sequential() if alone else Vectorised(compile=True)


def run(row: Row) -> dict[str, Any]:
    """What the last round measured, and the processor's seconds."""
    *steps, name = row.rule.split(", ")
    robust: dict[str, Any] = {} if row.rule == "mean" else {"pre": steps, "num_byzantine": 2}
    options = row.options | ({"robust": "statistics"} if robust else {})
    began, last = time.process_time(), None
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
        if last.train_loss is None or last.train_loss != last.train_loss:  # it diverged, and nothing counts any more
            break
    assert last is not None
    kept = ("test_accuracy", "own_test_accuracy")
    shifts = {k: float(f"{v:.4g}") for k, v in last.measures.items() if k.startswith(("shift.", "drift.")) and v}
    return {
        **{name: last.measures.get(name) for name in kept if name in last.measures},
        "train_loss": last.train_loss,
        **shifts,
        "bytes_up": last.bytes_up / len(last.cohort),
        "bytes_down": last.bytes_down / len(last.cohort),
        "seconds": round(time.process_time() - began, 1),
    }


Results = dict[str, dict[str, Any]]
"""What each finished row gave, by its key."""


def key(row: Row) -> str:
    """What tells one row from another in the results."""
    return json.dumps(asdict(row), sort_keys=True)


def done(path: Path = RESULTS) -> Results:
    lines = path.read_text().splitlines() if path.exists() else []
    return {key(Row(**entry["row"])): entry["result"] for entry in map(json.loads, lines)}


def accuracy(result: dict[str, Any]) -> float:
    """That on the test data of all; a run that diverged guesses."""
    value = result["test_accuracy"]
    return 0.1 if value is None else float(value)


def base(data: str, method: str, **options: Any) -> Row:
    """The row that a method's rate is found on, but for the rate."""
    return Row(data, "iid" if METHODS[method].alone else "1 label", method, lr=0.0, options=options)


def next_rate(row: Row, results: Results) -> float | None:
    """The first of 0.05, 0.02, 0.1 that was not tried, or the next one out from a best rate at the edge."""
    tried = {lr: accuracy(results[key(replace(row, lr=lr))]) for lr in RATES if key(replace(row, lr=lr)) in results}
    for lr in (0.05, 0.02, 0.1):
        if lr not in tried:
            return lr
    best = RATES.index(max(tried, key=tried.__getitem__))
    return next((RATES[k] for k in (best - 1, best + 1) if 0 <= k < len(RATES) and RATES[k] not in tried), None)


def best_rate(row: Row, results: Results) -> float | None:
    """The best of the rates tried; None before all are."""
    if next_rate(row, results) is not None:
        return None
    known = {lr: accuracy(results[key(replace(row, lr=lr))]) for lr in RATES if key(replace(row, lr=lr)) in results}
    return max(known, key=known.__getitem__)


def tuned(data: str, method: str, results: Results, **options: Any) -> Row | None:
    """A method's row with its own rate, once that is known."""
    row = base(data, method, **options)
    lr = best_rate(row, results)
    return None if lr is None else replace(row, lr=lr)


def rates(results: Results, data: str = "fashion_mnist", methods: Collection[str] = METHODS) -> Iterator[Row]:
    """Each method's rates."""
    for method in methods:
        while (lr := next_rate(base(data, method), results)) is not None:
            yield replace(base(data, method), lr=lr)


def skews(
    results: Results, data: str = "fashion_mnist", methods: Collection[str] = METHODS, seeds: int = 3
) -> Iterator[Row]:
    """Every method at every skew, rng seed after rng seed, the ends of the scale first."""
    for rng_seed in range(seeds):
        for split in ("1 label", "iid", "dirichlet 0.1", "2 labels", "dirichlet 0.5"):
            for method in methods:
                row = tuned(data, method, results)
                if row is not None and (split == "iid" or not METHODS[method].alone):
                    yield replace(row, split=split, rng_seed=rng_seed)


def gradients(results: Results) -> Iterator[Row]:
    """What narrows the distance to centralised BatchNorm, one label per client: one thing changed at a time."""
    warm, cut = {"warm_start": 3}, {"server_clip_norm": 1.0}
    without: dict[str, dict[str, Any]] = {"warm_start": {"warm_start": 0}, "clip": {"server_clip_norm": None}}
    changes: list[tuple[str, dict[str, Any]]] = [
        ("FBN", warm),
        ("FBN", warm | cut),
        ("FBN", warm | cut | {"statistics_momentum": 0.3}),
        ("FBN, renorm", warm),
        ("FBN, renorm", warm | cut),
        ("FBN, renorm", warm | cut | {"statistics_momentum": 0.3}),
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
    """Those of `gradients` that come closest, with two more rng seeds at each rate."""
    closest = [
        ("FBN, pooled", {"statistics_momentum": 0.3}),
        ("FBN, renorm", {"warm_start": 3, "server_clip_norm": 1.0, "statistics_momentum": 0.3}),
        ("FBN, pooled", {}),
    ]
    for rng_seed in (1, 2):
        for lr in (0.05, 0.02, 0.1):
            for method, options in closest:
                yield replace(base("fashion_mnist", method), lr=lr, options=options, rng_seed=rng_seed)


def attacks(results: Results) -> Iterator[Row]:
    """FBN's statistics pooled by a rule that withstands some attackers: without any, and with two.

    Flipped signs for every rng seed; the other attacks for the first.
    """
    plain = tuned("fashion_mnist", "FBN", results)
    for rng_seed in range(3) if plain else ():
        assert plain is not None
        for rule in RULES:
            for split in ("iid", "dirichlet 0.5"):
                for name in ("none", *ATTACKS) if rng_seed == 0 else ("none", "sign_flip"):
                    yield attacked(replace(plain, split=split, rng_seed=rng_seed, rule=rule), name)
            for split in ("1 label", "dirichlet 0.1", "2 labels") if rng_seed == 0 else ():
                yield replace(plain, split=split, rule=rule)


RULES = ("mean", "trimmed_mean", "median", "multi_krum", "nnm, trimmed_mean", "nnm, median", "nnm, mean")


def attacked(row: Row, name: str) -> Row:
    """The row under an attack. Signs are flipped as in the authors' code, in the moved statistics that clients send."""
    return replace(row, attack=name, options=row.options | ({"sends": "moved"} if name == "sign_flip" else {}))


def cifar10(results: Results) -> Iterator[Row]:
    """The same with CIFAR-10, for fewer methods."""
    yield from rates(results, "cifar10", MAIN)
    yield from skews(results, "cifar10", MAIN)


MAIN = ("centralised BatchNorm", "FBN", "FBN, renorm", "FBN, pooled", "FedAvg", "GroupNorm")


def options10(results: Results) -> Iterator[Row]:
    """What `gradients` found to help, with CIFAR-10."""
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
"""What the page recommends to set, of "FBN, pooled"."""


def recommended(results: Results) -> Iterator[Row]:
    """FBN as the page recommends it, at every skew, for both data sets."""
    for data in ("fashion_mnist", "cifar10"):
        row = base(data, "FBN, pooled", **RECOMMENDED)
        while (lr := next_rate(row, results)) is not None:
            yield replace(row, lr=lr)
        best = tuned(data, "FBN, pooled", results, **RECOMMENDED)
        for rng_seed, split in product(range(3), SPLITS) if best else ():
            assert best is not None
            yield replace(best, split=split, rng_seed=rng_seed)


def resnet20(results: Results) -> Iterator[Row]:
    """ResNet-20 with one label per client and IID, 100 rounds."""
    for split, row in product(("1 label", "iid"), deep(results)):
        yield replace(row, split=split)


def deep(results: Results) -> list[Row]:
    """What runs with ResNet-20, at the small network's rates; what is recommended warms up its 19 layers."""
    small = [tuned("cifar10", method, results) for method in ("FedAvg", "FBN", "FBN, pooled")]
    best = tuned("cifar10", "FBN, pooled", results, **RECOMMENDED)
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
    "resnet20": resnet20,
}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("sets", nargs="*", default=list(SETS), help=" ".join(SETS))
    parser.add_argument("--minutes", type=float, default=float("inf"), help="start nothing new after so many")
    parser.add_argument("--quick", action="store_true")
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    if chosen.quick:
        quick()
        return
    until, results = time.monotonic() + 60 * chosen.minutes, done()
    for name in chosen.sets:
        for row in SETS[name](results):  # which looks into the results again after each row
            if time.monotonic() > until:
                return
            if key(row) not in results:
                results[key(row)] = result = run(row)
                with RESULTS.open("a") as file:
                    file.write(json.dumps({"row": asdict(row), "result": result}) + "\n")
                print(f"{result['seconds']:6.1f} s  {accuracy(result):.4f}  {row}", flush=True)


def quick() -> None:
    """Two rounds of every method, rule and attack."""
    row = Row("fashion_mnist", "1 label", "FBN", 0.02, rounds=2)
    rows = [replace(base("fashion_mnist", method), lr=0.02, rounds=2) for method in METHODS]
    rows += [attacked(replace(row, rule=rule), name) for rule in RULES for name in ("none", *ATTACKS)]
    for one in rows:
        print(f"{run(one)['seconds']:6.1f} s  {one}", flush=True)


if __name__ == "__main__":
    main()
