"""What a guarantee for single examples costs: accuracy against epsilon, and FBN against GroupNorm under it.

    COTERIE_DATA=... python benchmarks/privacy/examples.py heart_disease
    COTERIE_DATA=... python benchmarks/privacy/examples.py mnist cifar10 [--seeds 3]

Rng seeds 0, 1 and 2; epsilon 1, 3 and 8 at delta 1e-3 (heart_disease, at most 242 patients a hospital) or 1e-4, and
no guarantee for comparison. heart_disease: FedAvg of a logistic regression over four hospitals, features standardised
by public round numbers, 20 rounds of one pass in batches of 32, lr 0.5, C = 1. mnist: ten silos of 500 pictures, iid,
the small network below with GroupNorm under FedAvg and with BatchNorm under FBN, 10 rounds of 5 steps of 50, C = 1,
the learning rate 0.1. Nothing was tuned under a guarantee. Without one nothing bounds FBN's gradients, and at 0.1 it
diverges: there its rate is 0.01. cifar10: the same with 20 rounds.

Appends a row to examples.jsonl for each (data set, method, epsilon, rng seed) that is not there, and prints the means.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from itertools import product
from pathlib import Path
from typing import Any

import torch
from torch import nn

import coterie
from coterie import Privacy, Recipe
from coterie.data import deal, load
from coterie.data.standardize import standardize

RESULTS = Path(__file__).with_name("examples.jsonl")
DATA = ("heart_disease", "mnist", "cifar10")
EPSILONS = (None, 8.0, 3.0, 1.0)
PUBLIC_SCALE = {"mean": [55.0, 130.0, 230.0, 140.0, 1.0, 1.0], "deviation": [10.0, 20.0, 50.0, 25.0, 1.0, 1.0]}
"""Of age, blood pressure, cholesterol, heart rate, ST depression and vessels: round numbers, not measured here."""


def small_network(shape: tuple[int, ...], norm: str, rng_seed: int) -> nn.Module:
    """Two convolutions with a norm each, and a linear layer."""
    torch.manual_seed(rng_seed)

    def block(inputs: int, outputs: int) -> list[nn.Module]:
        after: nn.Module = nn.GroupNorm(4, outputs) if norm == "group" else nn.BatchNorm2d(outputs)
        return [nn.Conv2d(inputs, outputs, 3, padding=1, bias=False), after, nn.ReLU(), nn.MaxPool2d(2)]

    side = shape[1] // 4
    return nn.Sequential(*block(shape[0], 16), *block(16, 32), nn.Flatten(), nn.Linear(32 * side * side, 10))


def run(data: str, method: str, epsilon: float | None, rng_seed: int) -> dict[str, Any]:
    """Return the accuracy and the noise of one run."""
    source = load(data)
    if data == "heart_disease":
        ready = standardize(source, deal(source, rng_seed=rng_seed), PUBLIC_SCALE)
        clients, test, rounds, delta = ready.clients, ready.source.test, 20, 1e-3
        torch.manual_seed(rng_seed)
        model: nn.Module = nn.Linear(ready.source.train.x.shape[1], 2)
        recipe: Recipe = coterie.fedavg(lr=0.5, batch_size=32)
    else:
        dealt = deal(source, partition="iid", num_clients=10, examples_per_client=500, rng_seed=rng_seed)
        clients, test, rounds, delta = dealt, source.test, 10 if data == "mnist" else 20, 1e-4
        model = small_network(tuple(source.train.x.shape[1:]), "group" if method == "fedavg" else "batch", rng_seed)
        rate = 0.01 if method == "fbn" and epsilon is None else 0.1
        local = {"lr": rate, "batch_size": 50, "local_steps": 5}
        paper = {"variant": "paper", "gradient": "constant", "warm_start": 1}
        recipe = coterie.fedavg(**local) if method == "fedavg" else coterie.fbn(**local, **paper)  # type: ignore[arg-type]
    privacy = None if epsilon is None else Privacy(unit="example", clip_norm=1.0, epsilon=epsilon, delta=delta)
    options: dict[str, Any] = {"rounds": rounds, "rng_seed": rng_seed, "test": test, "evaluate_every": rounds}
    last = list(coterie.federate(recipe, model, clients, privacy=privacy, **options))[-1]
    complete = last.plan.example_privacy
    return {
        "data": data,
        "method": method,
        "epsilon": epsilon,
        "rng_seed": rng_seed,
        "test_accuracy": last.test_accuracy,
        "noise_multiplier": complete and complete.noise_multiplier,
        "delta": complete and complete.delta,
        "date": time.strftime("%Y-%m-%d"),
    }


def main() -> None:
    """All rows of the data sets named that are missing, and the means of all that are there."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", nargs="+", choices=DATA)
    parser.add_argument("--seeds", type=int, default=3, help="how many rng seeds, from 0")
    given = parser.parse_args()
    torch.set_num_threads(1)
    rows = [json.loads(line) for line in RESULTS.read_text().splitlines()] if RESULTS.exists() else []
    wanted = [
        (data, method, epsilon, seed)
        for data in given.data
        for seed, epsilon, method in product(
            range(given.seeds), EPSILONS, ["fedavg"] if data == "heart_disease" else ["fedavg", "fbn"]
        )
    ]
    for key in wanted:
        if key not in {(r["data"], r["method"], r["epsilon"], r["rng_seed"]) for r in rows}:
            rows.append(run(*key))
            print(json.dumps(rows[-1]), flush=True)
            with RESULTS.open("a") as file:
                file.write(json.dumps(rows[-1]) + "\n")
    for data, method, epsilon in dict.fromkeys((r["data"], r["method"], r["epsilon"]) for r in rows):
        same = [r["test_accuracy"] for r in rows if (r["data"], r["method"], r["epsilon"]) == (data, method, epsilon)]
        spread = statistics.stdev(same) if len(same) > 1 else float("nan")
        print(f"{data:14} {method:7} epsilon {epsilon!s:5} {statistics.mean(same):.4f} +- {spread:.4f} ({len(same)})")


if __name__ == "__main__":
    main()
