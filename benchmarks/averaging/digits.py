"""One problem for every algorithm that averages: digits, 20 clients of two labels each, ten asked in a round.

    python benchmarks/averaging/digits.py

An MLP with 64 hidden units, E = 5, B = 20, 30 rounds, three rng seeds for each learning rate and, where an algorithm
has a number of its own, for each value of it; options not named have their defaults. Rates are doubled or halved, from
0.1 and 0.2 on, until the best one has worse neighbours on either side. Shown are the settings with the best accuracy
(the mean over the last five rounds, of which a single one depends much on its cohort), with the rounds that the mean of
their runs takes to 85 %. Appends a line for each run to digits.jsonl and skips those that are there.
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
SEEDS, ROUNDS, LAST, TARGET = (0, 1, 2), 30, 5, 0.85
ALGORITHMS: dict[str, list[dict[str, Any]]] = {
    "fedavg": [{}],
    "fedprox": [{"proximal_weight": mu} for mu in (0.01, 0.1, 1.0)],
    "scaffold": [{}],
    "feddyn": [{"proximal_weight": alpha} for alpha in (0.03, 0.1, 0.3)],
    "fedavgm": [{"server_momentum": beta} for beta in (0.5, 0.7, 0.9)],
    "fedadam": [{"server_lr": lr} for lr in (0.01, 0.03, 0.1)],
}


def curve(algorithm: str, options: dict[str, Any], lr: float, rng_seed: int) -> list[float]:
    """Test accuracy after each round."""
    source = load("digits")
    clients = deal(source, partition="label", labels_per_client=2, num_clients=20, rng_seed=rng_seed)
    recipe = getattr(coterie, algorithm)(lr=lr, **LOCAL, **options)
    model = build("mlp", (1, 8, 8), 10, rng_seed)
    shared = {"rounds": ROUNDS, "cohort": 0.5, "rng_seed": rng_seed, "test": source.test}
    return [float(round.test_accuracy or 0) for round in coterie.federate(recipe, model, clients, **shared)]


def recorded() -> list[dict[str, Any]]:
    return [json.loads(line) for line in RESULTS.read_text().splitlines()] if RESULTS.exists() else []


def curves(algorithm: str, options: dict[str, Any], lr: float) -> list[list[float]]:
    """One for each rng seed, run if it is missing."""
    setting = {"algorithm": algorithm, "options": options, "lr": lr}
    found = {row["rng_seed"]: row["curve"] for row in recorded() if setting.items() <= row.items()}
    for rng_seed in (rng_seed for rng_seed in SEEDS if rng_seed not in found):
        found[rng_seed] = curve(algorithm, options, lr, rng_seed)
        row = {**setting, "rng_seed": rng_seed, "curve": found[rng_seed], "date": time.strftime("%Y-%m-%d")}
        with RESULTS.open("a") as file:
            file.write(json.dumps(row) + "\n")
    return [found[rng_seed] for rng_seed in SEEDS]


def ends(curves: list[list[float]]) -> list[float]:
    """Each run's accuracy over its last rounds."""
    return [statistics.mean(curve[-LAST:]) for curve in curves]


def tuned(algorithm: str, options: dict[str, Any]) -> tuple[float, list[list[float]]]:
    """The best rate, with worse ones on either side, and its runs."""
    tried = {lr: curves(algorithm, options, lr) for lr in (0.1, 0.2)}
    while True:
        best = max(tried, key=lambda lr: statistics.mean(ends(tried[lr])))
        missing = [lr for lr in (best / 2, best * 2) if lr not in tried]
        if not missing:
            return best, tried[best]
        tried[missing[0]] = curves(algorithm, options, missing[0])


def line(algorithm: str) -> str:
    """A row of the table."""
    found = [(options, *tuned(algorithm, options)) for options in ALGORITHMS[algorithm]]
    options, lr, runs = max(found, key=lambda setting: statistics.mean(ends(setting[2])))
    values = ", ".join(str(next(iter(each.values()))) for each in ALGORITHMS[algorithm] if each) or "–"
    own = ", ".join(f"`{name}` {value}" for name, value in options.items()) or "–"
    mean = [statistics.mean(values) for values in zip(*runs, strict=True)]
    reached = rounds_to_target(list(enumerate(mean, 1)), TARGET)
    rounds = "not reached" if reached is None else f"{reached:.1f}"
    accuracy = f"{statistics.mean(ends(runs)):.3f} ± {statistics.stdev(ends(runs)):.3f}"
    return f"| `{algorithm}` | {own} | {values} | {lr:g} | {accuracy} | {rounds} |"


def main() -> None:
    """Run what is missing, then print the table."""
    torch.set_num_threads(1)
    print(f"| algorithm | its own number | tried | best lr | accuracy | rounds to {TARGET:.0%} |")
    print("|---|---|---|---|---|---|")
    for algorithm in ALGORITHMS:
        print(line(algorithm), flush=True)


if __name__ == "__main__":
    main()
