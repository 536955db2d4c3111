"""Four hospitals, together and each alone: FedAvg against the mean of the independent models, on the pooled test set.

    COTERIE_DATA=... python benchmarks/fedavg/hospitals.py

UCI heart disease, one client per hospital, a logistic regression on features standardised by one exchange of sums; five
rng seeds, the same learning rate and number of passes over the data for all. Appends a row per seed to hospitals.jsonl,
unless it is there, and prints the means.
"""

from __future__ import annotations

import json
import statistics
import time
from pathlib import Path

import torch

import coterie
from coterie.data import deal, load
from coterie.data.standardize import standardize
from coterie.models.registry import build

RESULTS = Path(__file__).with_name("hospitals.jsonl")
LOCAL = {"lr": 0.05, "local_epochs": 1, "batch_size": 16}
ROUNDS = 60


def accuracies(rng_seed: int) -> dict[str, float]:
    """Test accuracy on all hospitals' test rows after the last round, by algorithm."""
    source = load("heart_disease")
    ready = standardize(source, deal(source, rng_seed=rng_seed), "federated")
    found = {}
    for name in ("fedavg", "independent", "centralized"):
        recipe = getattr(coterie, name)(**LOCAL)
        model = build("logistic", tuple(ready.source.train.x.shape[1:]), 2, rng_seed)
        options = {"rounds": ROUNDS, "rng_seed": rng_seed, "test": ready.source.test, "evaluate_every": ROUNDS}
        last = list(coterie.federate(recipe, model, ready.clients, **options))[-1]
        assert last.test_accuracy is not None
        found[name] = last.test_accuracy
    return found


def main() -> None:
    """Five rng seeds."""
    torch.set_num_threads(1)
    rows = [json.loads(line) for line in RESULTS.read_text().splitlines()] if RESULTS.exists() else []
    for rng_seed in set(range(5)) - {row["rng_seed"] for row in rows}:
        rows.append({"rng_seed": rng_seed, **accuracies(rng_seed), "date": time.strftime("%Y-%m-%d")})
        print(json.dumps(rows[-1]))
        with RESULTS.open("a") as file:
            file.write(json.dumps(rows[-1]) + "\n")
    for name in ("fedavg", "independent", "centralized"):
        values = [row[name] for row in rows]
        print(f"{name:12} {statistics.mean(values):.4f} +- {statistics.stdev(values):.4f}")


if __name__ == "__main__":
    main()
