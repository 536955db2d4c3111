"""Adapters beside full fine-tuning: how factors are averaged, at several ranks and learning rates.

    python benchmarks/adapters/compare.py            # what is missing in results.jsonl, then the table

The model, mlp with two hidden layers of 64, has learnt digits in one place. Ten clients fine-tune it for digits after a
quarter turn, dealt by label (dirichlet, alpha 0.3), in 10 rounds of 4 local epochs in
batches of 64. The learning rate is chosen for
each method by the mean over the rng seeds of the final test accuracy, from the same grid for all.
"""

from __future__ import annotations

import copy
import json
from collections import defaultdict
from dataclasses import replace
from pathlib import Path
from statistics import mean, pstdev

import torch
from torch import nn

import coterie
from coterie import Examples
from coterie.data import deal, load
from coterie.models import add_adapters, build

RESULTS = Path(__file__).parent / "results.jsonl"
RATES, SEEDS, ROUNDS = (0.03, 0.1, 0.3, 0.9, 1.8, 3.6), (0, 1, 2), 10
METHODS = {
    "all weights": None,
    "the head alone": {"rank": 0},
    **{
        f'"{aggregate}", rank {rank}': {"rank": rank, "aggregate": aggregate}
        for rank in (2, 8)
        for aggregate in ("factors", "exact")
    },
}


def turned() -> coterie.data.Source:
    digits = load("digits")
    train, test = (Examples(part.x.rot90(1, (-2, -1)), part.y) for part in (digits.train, digits.test))
    return replace(digits, train=train, test=test)


def base(rng_seed: int) -> nn.Module:
    digits, model = load("digits"), build("mlp", [1, 8, 8], 10, rng_seed, hidden=[64, 64])
    pooled = {"all": digits.train}
    *_, last = coterie.federate(coterie.fedavg(lr=0.1), model, pooled, rounds=20, rng_seed=rng_seed, evaluate_every=20)
    model.load_state_dict(last.weights())
    return model


def prepare(model: nn.Module, options: dict | None, rng_seed: int) -> nn.Module:
    model = copy.deepcopy(model)
    if options is None:
        return model
    if not options["rank"]:
        coterie.models.model_parts.freeze_parts({"": model}, "all but head")
        return model
    return add_adapters(model, rng_seed=rng_seed, alpha=float(options["rank"]), **options)


def run(models: dict[int, nn.Module], method: str, lr: float, seed: int) -> dict:
    data = turned()
    clients = deal(data, partition="dirichlet", alpha=0.3, num_clients=10, rng_seed=seed)
    *_, last = coterie.federate(
        coterie.fedavg(lr=lr, local_epochs=4, batch_size=64),
        prepare(models[seed], METHODS[method], seed),
        clients,
        rounds=ROUNDS,
        rng_seed=seed,
        test=data.test,
        evaluate_every=ROUNDS,
    )
    return {
        "method": method,
        "lr": lr,
        "seed": seed,
        "accuracy": last.test_accuracy,
        "loss": last.test_loss,
        "bytes_up": last.bytes_up / len(clients),
    }


def table(results: list[dict]) -> str:
    by = defaultdict(list)
    for each in results:
        by[each["method"], each["lr"]].append(each)
    lines = ["| trained | bytes up, a client and round | best lr | test accuracy |", "|---|---|---|---|"]
    for method in METHODS:
        groups = {lr: by[method, lr] for lr in RATES if len(by[method, lr]) == len(SEEDS)}
        if groups:
            lr = max(groups, key=lambda lr: mean(each["accuracy"] for each in groups[lr]))
            values = [100 * each["accuracy"] for each in groups[lr]]
            sent = f"{groups[lr][0]['bytes_up']:,.0f}"
            lines.append(f"| {method} | {sent} | {lr} | {mean(values):.1f} ± {pstdev(values):.1f} % |")
    return "\n".join(lines)


def main() -> None:
    torch.set_num_threads(1)
    done = [json.loads(line) for line in RESULTS.read_text().splitlines()] if RESULTS.exists() else []
    seen = {(each["method"], each["lr"], each["seed"]) for each in done}
    missing = [(m, lr, s) for s in SEEDS for m in METHODS for lr in RATES if (m, lr, s) not in seen]
    models = {seed: base(seed) for seed in SEEDS} if missing else {}
    for method, lr, seed in missing:
        done.append(run(models, method, lr, seed))
        with RESULTS.open("a") as file:
            file.write(json.dumps(done[-1]) + "\n")
    print(table(done))


if __name__ == "__main__":
    main()
