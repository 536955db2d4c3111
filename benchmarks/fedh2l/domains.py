"""Mutual learning between unlike models on unlike data: FedH2L (reconstructed) beside what it has to beat.

    COTERIE_DATA=... python benchmarks/fedh2l/domains.py [SET ...] [--part 0/2] [--quick]

`main`: rotated MNIST, six participants at 0, 15, ... 75 degrees with 1,000 private and 100 seed images each, three
architectures dealt in turn, 20 rounds of 40 local steps; rng seeds 0, 1 and 2. `small`: the same with 20 seed images
each. `effects`: one setting of `main` changed at a time, rng seed 0. `pacs`: four domains at 32 x 32 pixels, four small
architectures, 15 rounds. `digits`: two domains, MNIST and MNIST-M. `unstable`: what tames the one run of `small` in
which a model was lost. `liars`: `main` with one or two participants that are sure of a wrong class on every seed image,
where peers count alike and where they are weighed by their accuracy; measured over the honest ones. Every method gets
the seed set: one that exchanges no predictions trains on it.

A finished row is a line in results.jsonl at once, and is not run again: stop it whenever you like. `--part 0/2` and
`--part 1/2`, in two shells, share the rows between two cores. `tables.py` makes tables and plots from the results.
`--quick` runs one short row of every kind, and keeps nothing.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn.functional import one_hot

import coterie
from coterie import Examples, Recipe, Round
from coterie.core.transforms import cast, eight_bits, identity
from coterie.data import Source, deal, load, own_test
from coterie.data.seed_set import SeedSet, add_to_clients, from_clients
from coterie.loop.attack import Attack
from coterie.models.dense import mlp
from coterie.models.registry import build

RESULTS = Path(__file__).with_name("results.jsonl")
LOCAL = {"lr": 0.05, "local_steps": 40, "batch_size": 32}
ANGLES = [0, 15, 30, 45, 60, 75]


@dataclass(frozen=True)
class Row:
    """One run.

    Attributes:
        data: rotated_mnist, pacs or digits_mix.
        method: a key of `METHODS`.
        options: of the method, beside `LOCAL`.
        seed_examples: per participant.
        labels: whether the seed set keeps its labels.
        bits: of each number that is sent.
        one: whether all participants have the first architecture.
        liars: how many participants send posteriors that are sure of the class after the right one.
    """

    data: str
    method: str
    options: dict[str, Any] = field(default_factory=dict)
    seed_examples: int = 100
    labels: bool = True
    bits: int = 32
    one: bool = False
    rounds: int = 20
    rng_seed: int = 0
    private: int = 1000
    liars: int = 0


METHODS: dict[str, tuple[Callable[..., Recipe], str]] = {
    "independent": (coterie.independent, "none"),
    "independent with the seed set": (coterie.independent, "added"),
    "pooled": (coterie.centralized, "added"),
    "fedavg": (coterie.fedavg, "added"),
    "fedprox": (coterie.fedprox, "added"),
    "feddf": (coterie.feddf, "public"),
    "fedmd": (coterie.fedmd, "public"),
    "fedh2l": (coterie.fedh2l, "public"),
}
"""Each method's recipe, and what it does with the seed set."""

ONE_MODEL = ("pooled", "fedavg", "fedprox", "feddf")
"""Methods that train one model for all: the first architecture."""


def convolutional(in_shape: list[int], num_classes: int, channels: tuple[int, ...], norm: bool = False) -> nn.Module:
    """3 x 3 convolutions, each followed by a 2 x 2 pool, and one linear layer."""
    layers: list[nn.Module] = []
    before, side = in_shape[0], in_shape[1]
    for after in channels:
        layers += [nn.Conv2d(before, after, 3, padding=1), *([nn.BatchNorm2d(after)] if norm else []), nn.ReLU()]
        layers += [nn.MaxPool2d(2)]
        before, side = after, side // 2
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(before * side * side, num_classes))


def architectures(data: str) -> list[Callable[..., nn.Module]]:
    """Dealt to the participants in turn."""
    if data == "rotated_mnist":
        return [
            lambda in_shape, num_classes: mlp(in_shape, num_classes, hidden=(200,)),
            lambda in_shape, num_classes: convolutional(in_shape, num_classes, (16, 32)),
            lambda in_shape, num_classes: mlp(in_shape, num_classes, hidden=(100, 100)),
        ]
    return [
        lambda in_shape, num_classes: convolutional(in_shape, num_classes, (8, 16)),
        lambda in_shape, num_classes: convolutional(in_shape, num_classes, (8, 16, 32), norm=True),
        lambda in_shape, num_classes: convolutional(in_shape, num_classes, (12, 24)),
        lambda in_shape, num_classes: mlp(in_shape, num_classes, hidden=(100,)),
    ]


def source_of(row: Row) -> Source:
    """The row's data."""
    most = {"examples_per_client": row.private + row.seed_examples, "rng_seed": row.rng_seed}
    if row.data == "rotated_mnist":
        return load("rotated_mnist", angles=ANGLES, **most)
    return load("digits_mix", **most) if row.data == "digits_mix" else load("pacs")


def federation(row: Row, source: Source) -> tuple[Recipe, dict[str, Any]]:
    """The row's recipe, and what `coterie.federate` takes beside it."""
    recipe, use = METHODS[row.method]
    dealt = deal(source, rng_seed=row.rng_seed, examples_per_client=row.private + row.seed_examples)
    seed: SeedSet = from_clients(dealt, row.seed_examples, row.rng_seed)
    seed = seed if row.labels else seed.without_labels()
    shape, classes = list(source.train.x.shape[1:]), source.num_classes
    models = [build(make, shape, classes, row.rng_seed) for make in architectures(row.data)]
    tests: dict[str, Examples] = dict(own_test(source, dealt))
    own = {"pooled": source.test, **tests} if row.method == "pooled" else tests
    up = {32: identity(), 16: cast(torch.float16), 8: eight_bits()}[row.bits]
    steps = {"local_steps": LOCAL["local_steps"] * len(dealt)} if row.method == "pooled" else {}
    return recipe(**LOCAL | steps | row.options), {
        "model": models[0] if row.one or row.method in ONE_MODEL else models,
        "clients": add_to_clients(seed.clients, seed.examples) if use == "added" else seed.clients,
        "seed_set": seed.examples if use == "public" else None,
        "test": source.test,
        "own_test": own,
        "evaluate_clients": True,
        "evaluate_every": row.rounds,
        "rounds": row.rounds,
        "rng_seed": row.rng_seed,
        "num_classes": classes,
        "up": up,
        "attack": lie_about(seed.examples, classes, row.liars) if row.liars else None,
    }


def lie_about(seed_set: Examples, num_classes: int, liars: int) -> Attack:
    """The attack that is sure of the class after the right one, on every example of the seed set."""
    y = seed_set.labels()
    assert y is not None
    table = one_hot((y + 1) % num_classes, num_classes).float().reshape(1, -1)  # [1, S C]
    return Attack(liars, lambda sight: table.expand_as(sight.own))


def run(row: Row) -> dict[str, Any]:
    """What the last round measured, and what a round sends."""
    recipe, options = federation(row, source_of(row))
    began, cpu, seconds, last = time.perf_counter(), time.process_time(), 0.0, None
    for last in coterie.federate(recipe, **options):
        seconds += last.seconds
    assert last is not None
    measures = {name: value for name, value in last.measures.items() if value is not None}
    measures |= measures_of_honest(last) if row.liars else {}
    return {
        **{
            name: measures[name] for name in ("own_test_accuracy", "domain_test_accuracy", "domain_test_accuracy_worst")
        },
        "test_accuracy": measures["test_accuracy"],
        "conflict": measures.get("conflict"),
        "matrix": measures["accuracy_matrix"],
        "bytes_up": last.bytes_up / len(last.cohort),
        "bytes_down": last.bytes_down / len(last.cohort),
        "seconds": seconds,
        "elapsed": time.perf_counter() - began,
        "cpu_seconds": time.process_time() - cpu,
    }


def measures_of_honest(round: Round) -> dict[str, Any]:
    """What the models of honest participants reach on the domains of all."""
    liars, ids = round.plan.attackers(), list(round.plan.ids)
    rows = {k: round.measures["accuracy_matrix"][k] for k, client in enumerate(ids) if client not in liars}
    return {
        "own_test_accuracy": statistics.mean(row[k] for k, row in rows.items()),
        "domain_test_accuracy": statistics.mean(map(statistics.mean, rows.values())),
        "domain_test_accuracy_worst": statistics.mean(map(min, rows.values())),
    }


def comparison_rows(data: str, **common: Any) -> list[Row]:
    """FedH2L and what it has to beat."""
    row = Row(data, "fedh2l", **common)
    twice = {"local_steps": 2 * LOCAL["local_steps"]}
    return [
        replace(row, method="independent"),
        replace(row, method="independent with the seed set"),
        row,
        replace(row, options={"mutual_weight": 2.0}),
        replace(row, method="fedmd", options={"digest_epochs": 2}),
        replace(row, method="independent with the seed set", options=twice),
        replace(row, method="pooled"),
        replace(row, method="fedavg"),
        replace(row, method="fedprox", options={"proximal_weight": 0.01}),
    ]


def ablation_rows(data: str, **common: Any) -> list[Row]:
    """FedH2L without its peers, without its treatment of conflicts, and with one architecture for all; and the method
    that distils that one at the server.
    """
    row = Row(data, "fedh2l", **common)
    return [
        replace(row, options={"mutual_weight": 0.0}),
        replace(row, options={"conflict": "none"}),
        replace(row, one=True),
        replace(row, method="feddf"),
    ]


def effects() -> list[Row]:
    """One setting changed at a time. What `main` has measured is not measured again: lambda 0 and 2, and no
    treatment of conflicts.
    """
    row = Row("rotated_mnist", "fedh2l")
    changed: list[dict[str, Any]] = [
        *({"mutual_weight": w} for w in (4.0, 8.0)),
        *({"temperature": t} for t in (2.0, 3.0)),
        *({"conflict": c} for c in ("project_local", "gem")),
        {"order": "successive"},
        {"mutual_steps": 1},
        {"mutual_steps": 10},
    ]
    return [
        *(replace(row, options=options) for options in changed),
        *(replace(row, seed_examples=n) for n in (50, 200)),
        *(replace(row, seed_examples=n, options={"mutual_weight": 0.0}) for n in (50, 200)),
        replace(row, labels=False),
        replace(row, labels=False, options={"mutual_weight": 4.0}),
        replace(row, bits=16),
        replace(row, bits=8),
    ]


def liars() -> list[Row]:
    """No, one and two liars of six, with and without peers' weights."""
    row = Row("rotated_mnist", "fedh2l", {"exchange": "tables"})
    weighed = replace(row, options={**row.options, "peer_weights": "accuracy"})
    return [replace(each, liars=n) for n in (0, 1, 2) for each in (row, weighed)]


def over_rng_seeds(rows: list[Row]) -> list[Row]:
    """Each row for three rng seeds, seed after seed, so that a half-finished file compares all methods."""
    return [replace(row, rng_seed=k) for k in range(3) for row in rows]


SETS: dict[str, list[Row]] = {
    "main": over_rng_seeds(comparison_rows("rotated_mnist") + ablation_rows("rotated_mnist")),
    "small": over_rng_seeds(
        comparison_rows("rotated_mnist", seed_examples=20) + ablation_rows("rotated_mnist", seed_examples=20)
    ),
    "effects": effects(),
    "pacs": over_rng_seeds(comparison_rows("pacs", private=1000, rounds=15)),
    "digits": over_rng_seeds(comparison_rows("digits_mix", private=1000)[:5]),
    "liars": over_rng_seeds(liars()),
    "unstable": [
        Row("rotated_mnist", "fedh2l", {"mutual_weight": 2.0} | tamed, seed_examples=20, rng_seed=2)
        for tamed in ({}, {"mutual_lr": 0.025}, {"clip_norm": 1.0})
    ],
}


def key(row: Row) -> str:
    """What tells one row from another in the results."""
    return json.dumps(asdict(row), sort_keys=True)


def finished_rows(path: Path = RESULTS) -> Iterator[tuple[Row, dict[str, Any]]]:
    """Each finished row with its result."""
    for line in path.read_text().splitlines() if path.exists() else []:
        entry = json.loads(line)
        yield Row(**entry["row"]), entry["result"]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("sets", nargs="*", default=list(SETS), help=" ".join(SETS))
    parser.add_argument("--part", default="0/1")
    parser.add_argument("--quick", action="store_true")
    chosen = parser.parse_args()
    part, parts = map(int, chosen.part.split("/"))
    torch.set_num_threads(1)
    rows = [row for name in chosen.sets for row in SETS[name]][part::parts]
    if chosen.quick:
        rows = [replace(row, rounds=1, private=100, seed_examples=20) for row in rows if row.rng_seed == 0]
    finished = set() if chosen.quick else {key(row) for row, _ in finished_rows()}
    for row in rows:
        if key(row) in finished:
            continue
        result = run(row)
        finished.add(key(row))
        print(f"{result['elapsed']:6.1f} s  {result['domain_test_accuracy']:.4f}  {row}", flush=True)
        if not chosen.quick:
            with RESULTS.open("a") as file:
                file.write(json.dumps({"row": asdict(row), "result": result}) + "\n")


if __name__ == "__main__":
    main()
