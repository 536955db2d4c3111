"""One problem for every algorithm that averages: digits, 20 clients of two labels each, ten asked in a round.

    python benchmarks/averaging/digits.py

An MLP with 64 hidden units, E = 5, B = 20, 30 rounds, three rng seeds for each of two learning rates; the one with the
best mean accuracy after the last round is shown, beside the rounds that the mean of these runs takes to 85 %. Options
not named have their defaults. Appends a line for each run to digits.jsonl and skips those that are there.
"""

from __future__ import annotations

import json
import statistics
import time
from pathlib import Path
from typing import Any

import torch

import coterie
from coterie.data import deal, load
from coterie.models.registry import build
from coterie.track import rounds_to_target

RESULTS = Path(__file__).with_name("digits.jsonl")
LOCAL = {"local_epochs": 5, "batch_size": 20}
RATES, SEEDS, ROUNDS, TARGET = (0.1, 0.2), (0, 1, 2), 30, 0.85
VARIANTS: dict[str, tuple[str, dict[str, Any]]] = {
    "fedavg": ("fedavg", {}),
    "fedprox, proximal_weight 0.1": ("fedprox", {"proximal_weight": 0.1}),
    "scaffold": ("scaffold", {}),
    "feddyn, proximal_weight 0.1": ("feddyn", {"proximal_weight": 0.1}),
    "fedavgm, server_momentum 0.9": ("fedavgm", {"server_momentum": 0.9}),
    "fedadam, server_lr 0.03": ("fedadam", {"server_lr": 0.03}),
}


def curve(name: str, options: dict[str, Any], lr: float, rng_seed: int) -> list[float]:
    """Test accuracy after each round."""
    source = load("digits")
    clients = deal(source, partition="label", labels_per_client=2, num_clients=20, rng_seed=rng_seed)
    recipe = getattr(coterie, name)(lr=lr, **LOCAL, **options)
    model = build("mlp", (1, 8, 8), 10, rng_seed)
    shared = {"rounds": ROUNDS, "cohort": 0.5, "rng_seed": rng_seed, "test": source.test}
    return [float(round.test_accuracy or 0) for round in coterie.federate(recipe, model, clients, **shared)]


def recorded() -> list[dict[str, Any]]:
    return [json.loads(line) for line in RESULTS.read_text().splitlines()] if RESULTS.exists() else []


def line(variant: str, rows: list[dict[str, Any]]) -> str:
    """A row of the table: the best learning rate, the accuracy there, and rounds to the target."""
    by_rate = {lr: [row["curve"] for row in rows if row["lr"] == lr] for lr in RATES}
    best = max(RATES, key=lambda lr: statistics.mean(curve[-1] for curve in by_rate[lr]))
    ends = [curve[-1] for curve in by_rate[best]]
    mean = [statistics.mean(values) for values in zip(*by_rate[best], strict=True)]
    reached = rounds_to_target(list(enumerate(mean, 1)), TARGET)
    rounds = "not reached" if reached is None else f"{reached:.1f}"
    return f"| {variant} | {best} | {statistics.mean(ends):.3f} ± {statistics.stdev(ends):.3f} | {rounds} |"


def main() -> None:
    """Run what is missing, then print the table."""
    torch.set_num_threads(1)
    done = {(row["variant"], row["lr"], row["rng_seed"]) for row in recorded()}
    for variant, (name, options) in VARIANTS.items():
        for key in ((variant, lr, rng_seed) for lr in RATES for rng_seed in SEEDS):
            if key not in done:
                row = {"variant": variant, "lr": key[1], "rng_seed": key[2], "curve": curve(name, options, *key[1:])}
                with RESULTS.open("a") as file:
                    file.write(json.dumps(row | {"date": time.strftime("%Y-%m-%d")}) + "\n")
    print(f"| algorithm | best lr | accuracy after {ROUNDS} rounds | rounds to {TARGET:.0%} |\n|---|---|---|---|")
    for variant in VARIANTS:
        print(line(variant, [row for row in recorded() if row["variant"] == variant]))


if __name__ == "__main__":
    main()
