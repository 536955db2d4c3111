"""Shakespeare by role: FedAvg on the paper's character LSTM, beside what a unigram and a bigram model would guess.

    COTERIE_DATA=... python benchmarks/fedavg/shakespeare.py [--rounds 120] [--fraction 0.02] [--lr 1.47]

One client per speaking role, the first 80 % of its lines for training; B = 10, E = 1; the LSTM without peepholes, which
runs as PyTorch's fast cell. The unigram model always guesses the commonest character of the training text, the bigram
model the one that most often follows the last. Every tenth round is evaluated on a tenth of the test text, evenly
spread, and gives one line of shakespeare.jsonl; all three accuracies are over the same characters. A run that was
stopped goes on after its last line, and one that is done is only drawn anew: the plot is
docs/algorithms/figures/fedavg-shakespeare.svg.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import torch
from torch import Tensor

import coterie
from coterie.core.examples import Examples
from coterie.data import Source, deal, load
from coterie.data.numpy_arrays import IGNORED_LABEL
from coterie.loop.checkpoint import Checkpoints
from coterie.models.registry import build

HERE = Path(__file__).parent
RESULTS = HERE / "shakespeare.jsonl"
FIGURE = HERE.parents[1] / "docs" / "algorithms" / "figures" / "fedavg-shakespeare.svg"
CHECKPOINTS = HERE.parents[1] / "runs" / "shakespeare-benchmark"
EVERY = 10


def characters(examples: Examples) -> tuple[Tensor, Tensor]:
    """Every (character, next character) pair that counts, [M] each."""
    x, y = examples.tensors()
    assert y is not None
    return x[y != IGNORED_LABEL], y[y != IGNORED_LABEL]


def guesses(train: Examples, test: Examples, classes: int) -> dict[str, float]:
    """Test accuracy of the unigram and of the bigram model that the training text gives."""
    before, after = characters(train)
    counts = torch.zeros(classes, classes, dtype=torch.int64)  # [last, next]
    counts.index_put_((before, after), torch.tensor(1), accumulate=True)
    seen, truth = characters(test)
    unigram = (truth == counts.sum(0).argmax()).double().mean()
    bigram = (counts.argmax(1)[seen] == truth).double().mean()
    return {"unigram": float(unigram), "bigram": float(bigram)}


def read_results() -> list[dict[str, Any]]:
    """The lines of the results so far."""
    return [json.loads(line) for line in RESULTS.read_text().splitlines()] if RESULTS.exists() else []


def run(source: Source, test: Examples, baseline: dict[str, float], rounds: int, fraction: float, lr: float) -> None:
    """Train from the last checkpoint of the same settings; a line for each evaluated round."""
    setting = {"fraction": fraction, "lr": lr}
    done = {row["round"] for row in read_results() if setting.items() <= row.items()}
    if rounds in done:
        return
    checkpoints = Checkpoints(CHECKPOINTS / f"fraction-{fraction:g}-lr-{lr:g}")
    model = build("char_lstm", tuple(source.train.x.shape[1:]), source.num_classes, 0, peepholes=False)
    for round in coterie.federate(
        coterie.fedavg(lr=lr, batch_size=10),
        model,
        deal(source, rng_seed=0),
        resume=checkpoints.load(),
        rounds=rounds,
        cohort=fraction,
        test=test,
        evaluate_every=EVERY,
        num_classes=source.num_classes,
    ):
        if round.test_accuracy is None:
            continue
        row = setting | {"round": round.round, "test_accuracy": round.test_accuracy, "test_loss": round.test_loss}
        row |= {"train_loss": round.train_loss, **baseline, "elapsed": round.elapsed, "date": time.strftime("%Y-%m-%d")}
        print(json.dumps(row), flush=True)
        if round.round not in done:
            with RESULTS.open("a") as file:
                file.write(json.dumps(row) + "\n")
        checkpoints.save(round)  # after the line: a stop in between computes this stretch again, to the same numbers


def draw() -> None:
    """The recorded curves, one for each setting, above what the two simple models guess."""
    curves: dict[tuple[float, float], list[dict[str, Any]]] = {}
    for row in read_results():
        curves.setdefault((row["fraction"], row["lr"]), []).append(row)
    figure, axis = plt.subplots(figsize=(6, 3.5), layout="constrained")
    for (fraction, lr), rows in sorted(curves.items()):
        rows.sort(key=lambda row: row["round"])
        label = f"FedAvg, C = {fraction:g}, lr {lr:g}"
        axis.plot([r["round"] for r in rows], [r["test_accuracy"] for r in rows], marker=".", label=label)
    for name, style in (("bigram", "--"), ("unigram", ":")):
        axis.axhline(read_results()[-1][name], color="grey", linestyle=style, linewidth=1, label=name)
    axis.set(xlabel="round", ylabel="accuracy on the next character", ylim=(0, None))
    axis.legend(frameon=False, fontsize="small")
    FIGURE.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(FIGURE, metadata={"Date": None})


def main() -> None:
    """Train, record, draw."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=120)
    parser.add_argument("--fraction", type=float, default=0.02)
    parser.add_argument("--lr", type=float, default=1.47)
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    source = load("shakespeare")
    assert source.test is not None
    assert source.num_classes is not None
    test = source.test.take(torch.arange(0, len(source.test), 10))
    baseline = guesses(source.train, test, source.num_classes)
    print(f"{len(set(source.groups or ()))} roles;", json.dumps(baseline), flush=True)
    run(source, test, baseline, chosen.rounds, chosen.fraction, chosen.lr)
    draw()


if __name__ == "__main__":
    main()
