"""Accuracy against epsilon: each row is one run, and rows that are there are not run again.

    python benchmarks/privacy/tables.py [--table client] [--only NAME] [--out benchmarks/privacy/results.jsonl]

client    each of 1,000 clients is protected, by simulation: MNIST with the 2NN and the CNN, CIFAR-10 with its small
          network; a tenth of the clients in a round by Poisson draws, epsilon 1, 3, 8 and none, delta N^-1.1. The
          bound is adaptive and begins at 0.5; the 2NN is run with a fixed bound of 0.2 too, and CIFAR-10 at epsilon 1
smoke     digits and 100 clients, to try the script

A row holds the settings, the accuracy and what summary.json states. Data come from $COTERIE_DATA.
"""

from __future__ import annotations

import argparse
import itertools
import json
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from coterie.experiment.run import run
from coterie.experiment.settings import load_settings

EPSILONS = (None, 8.0, 3.0, 1.0)

Row = Mapping[str, Any]


def client_rows() -> Iterator[Row]:
    """Yield what protects clients: data, model, rounds, the bound and epsilon."""
    adaptive = (("mnist", "2nn", 100), ("cifar10", "cifar_cnn", 100), ("mnist", "cnn", 100))
    settings = [(*each, "adaptive", epsilon) for each, epsilon in itertools.product(adaptive, EPSILONS)]
    settings += [("mnist", "2nn", 100, 0.2, epsilon) for epsilon in EPSILONS[1:]]
    settings.append(("cifar10", "cifar_cnn", 100, 0.2, 1.0))
    for source, model, rounds, clip, epsilon in settings:
        yield {
            "unit": "client",
            "source": source,
            "model": model,
            "rounds": rounds,
            "clients": 1000,
            "clip": clip,
            "epsilon": epsilon,
        }


def smoke_rows() -> Iterator[Row]:
    """Yield two short runs."""
    for epsilon in (None, 8.0):
        size = {"source": "digits", "model": "2nn", "rounds": 5, "clients": 100}
        yield {"unit": "client", **size, "clip": "adaptive", "epsilon": epsilon}


TABLES = {"client": client_rows, "smoke": smoke_rows}
"""Table -> its rows. Guarantees for examples have rows of their own here."""


def text_of(row: Row) -> str:
    """Return the experiment file of a row."""
    privacy = ""
    if row["epsilon"] is not None:
        adaptive = row["clip"] == "adaptive"
        bound = 'clip = "adaptive"\nclip_norm = 0.5' if adaptive else f"clip_norm = {row['clip']}"
        privacy = f'[privacy]\nunit = "client"\n{bound}\nepsilon = {row["epsilon"]}\n'
    return f"""
rounds = {row["rounds"]}
[data]
source = "{row["source"]}"
num_clients = {row["clients"]}
partition = "iid"
[model]
name = "{row["model"]}"
[algorithm]
name = "fedavg"
lr = 0.1
local_epochs = 1
batch_size = 10
[cohort]
fraction = 0.1
sampling = "poisson"
[evaluate]
every = 10
{privacy}"""


def measure(row: Row) -> Row:
    """Run a row, and return it with its results."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "a.toml"
        file.write_text(text_of(row), encoding="utf-8")
        summary = run(load_settings(file), Path(folder) / "run").summary
    names = ("test_accuracy", "best_test_accuracy", "delta", "noise_multiplier", "seconds")
    return {**row, **{name: summary.get(name) for name in names}, "spent": summary.get("epsilon")}


def main() -> None:
    """Run the rows that are not there yet."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--table", choices=TABLES, default="client")
    parser.add_argument("--only", help="the model to run")
    parser.add_argument("--out", type=Path, default=Path(__file__).with_name("results.jsonl"))
    given = parser.parse_args()
    lines = given.out.read_text(encoding="utf-8").splitlines() if given.out.exists() else []
    done = [json.loads(line) for line in lines]
    for row in TABLES[given.table]():
        if any(row.items() <= other.items() for other in done) or given.only not in (None, row["model"]):
            continue
        result = measure(row)
        with given.out.open("a", encoding="utf-8") as file:
            file.write(json.dumps(result) + "\n")
        print(json.dumps(result))


if __name__ == "__main__":
    main()
