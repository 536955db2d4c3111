"""Measure why a start matters: drift, and the line between final models, from random and from pre-trained weights.

    COTERIE_DATA=... python benchmarks/pretrain/why.py --weights runs/fps/model.safetensors [--rounds 50] [--quick]

FedAvg with ResNet-20 on 10,000 fixed images of CIFAR-10, dealt to 10 clients by Dirichlet 0.1, Dirichlet 0.3 and at
random. For each start, the three conditions begin with the same weights. Probes measure rounds during training, and
then the loss is measured along the line between every two final models. Chen et al. expect a barrier from random
weights, none or a lower one from pre-trained weights, and drift that is not smaller. Nguyen et al. expect a lower
gradient diversity.

A finished row is written to why.jsonl at once and is not run again; final models are kept in --models. `--table` prints
the finished rows.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from dataclasses import replace
from itertools import combinations
from pathlib import Path
from statistics import fmean
from typing import Any

import safetensors.torch
import torch
from torch import nn

import coterie
from coterie.core.files import write_atomic
from coterie.core.tree import Tree
from coterie.data import Source, deal, load
from coterie.engines.sequential import Sequential
from coterie.models.batchnorm_statistics import recalibration
from coterie.models.functional import initial_weights, make_task
from coterie.models.registry import build
from coterie.objectives import accuracy, cross_entropy
from coterie.probes import Probe, Surface, curvature, draw_subset, line

RESULTS = Path(__file__).with_name("why.jsonl")
CONDITIONS: dict[str, dict[str, Any]] = {
    "dirichlet 0.1": {"partition": "dirichlet", "alpha": 0.1, "min_examples": 10},
    "dirichlet 0.3": {"partition": "dirichlet", "alpha": 0.3, "min_examples": 10},
    "iid": {"partition": "iid"},
}
PROBE = ["drift", "diversity", "direction", "gain", "travelled"]


def start(row: dict[str, Any], source: Source) -> nn.Module:
    """Return the model that all conditions begin with: random, or with a file's weights except the classifier's."""
    shape, classes = list(source.train.x.shape[1:]), source.num_classes or 0
    model = build("resnet20", shape, classes, row["rng_seed"], width=row["width"])
    if row["start"] != "random":
        flat = safetensors.torch.load_file(row["start"])
        encoder = {name: x for name, x in flat.items() if not name.startswith("output.")}
        missing, unexpected = model.load_state_dict(encoder, strict=False)
        assert (set(missing), unexpected) == ({"output.weight", "output.bias"}, []), (missing, unexpected)
    return model


def train(row: dict[str, Any], model: nn.Module, source: Source, to: Path) -> dict[str, Any]:
    """Run a federation, write its final weights, and return its last accuracy and the means over probed rounds."""
    clients = deal(source, num_clients=10, rng_seed=row["rng_seed"], **CONDITIONS[row["condition"]])
    recipe = coterie.fedavg(lr=row["lr"], local_epochs=row["local_epochs"], batch_size=32)
    probe, rounds, last = Probe(PROBE, every=row["every"], examples=row["examples"]), [], None
    for last in coterie.federate(
        recipe, model, clients, rounds=row["rounds"], rng_seed=row["rng_seed"], test=source.test,
        num_classes=source.num_classes, evaluate_every=row["rounds"], probe=probe,
    ):  # fmt: skip
        rounds.append({k.removeprefix("probe."): v for k, v in last.measures.items() if k.startswith("probe.")})
    assert last is not None
    write_atomic(to, safetensors.torch.save(last.weights(), {"format": "pt"}))
    names = {name for measures in rounds for name in measures}
    known = {name: [m[name] for m in rounds if m.get(name) is not None] for name in sorted(names)}
    means = {name: fmean(values) for name, values in known.items() if values}
    return {"test_accuracy": last.test_accuracy, "test_loss": last.test_loss, **means, "rounds": rounds}


def read_weights(file: Path, model: nn.Module) -> Tree:
    """Read a file's weights into the form of the model's initial weights."""
    flat = safetensors.torch.load_file(file)
    return {kind: {name: flat[name] for name in leaves} for kind, leaves in initial_weights(model).items()}


def surface(model: nn.Module, source: Source, row: dict[str, Any]) -> Surface:
    """Return the test loss as a function of weights, with BatchNorm's statistics measured on training examples."""
    assert source.test is not None
    task, engine = make_task(model, loss=cross_entropy, metrics={"accuracy": accuracy}), Sequential()
    seen = draw_subset(source.train, row["examples"], row["rng_seed"])
    test = draw_subset(source.test, row["examples"], row["rng_seed"])
    return Surface(task, engine, test, recalibration(model, seen, engine))


def rows(options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Yield every row, the federations of a start before the lines between them."""
    for rng_seed in range(options.rng_seeds):
        for name in ["random", *([str(options.weights)] if options.weights else [])]:
            common = {
                "start": name, "rng_seed": rng_seed, "rounds": options.rounds, "lr": options.lr,
                "local_epochs": options.local_epochs, "every": options.every, "examples": options.examples,
                "train_examples": options.train_examples, "width": options.width,
            }  # fmt: skip
            yield {"kind": "curvature", **common}
            yield from ({"kind": "federation", "condition": condition, **common} for condition in CONDITIONS)
            yield from ({"kind": "line", "between": list(pair), **common} for pair in combinations(CONDITIONS, 2))


def file_of(row: dict[str, Any], condition: str, folder: Path) -> Path:
    """Return the file of a federation's final weights."""
    keys = ("start", "rng_seed", "rounds", "lr", "local_epochs", "train_examples", "width")
    name = "-".join([condition, *(str(row[key]) for key in keys)])
    return folder / f"{name.replace('/', '_').replace(' ', '_')}.safetensors"


def measure(row: dict[str, Any], options: argparse.Namespace, source: Source) -> dict[str, Any]:
    """Return the result of a row."""
    model = start(row, source)
    if row["kind"] == "federation":
        return train(row, model, source, file_of(row, row["condition"], options.models))
    place = surface(model, source, row)
    if row["kind"] == "curvature":
        return curvature(place, initial_weights(model))._asdict()
    a, b = (read_weights(file_of(row, condition, options.models), model) for condition in row["between"])
    found = line(place, a, b)
    return {"barrier": found.barrier, "distance": found.distance, "t": found.t, **found.measures}


def read_results() -> dict[str, dict[str, Any]]:
    """Read the finished rows with their results."""
    lines = RESULTS.read_text().splitlines() if RESULTS.exists() else []
    return {json.dumps(entry["row"], sort_keys=True): entry["result"] for entry in map(json.loads, lines)}


def print_table() -> None:
    """Print a line for each finished row."""
    for key, found in read_results().items():
        row = json.loads(key)
        what = row.get("condition") or " to ".join(row.get("between", ["the start"]))
        numbers = ", ".join(f"{name} {value:.4g}" for name, value in found.items() if isinstance(value, float))
        print(f"{row['start']}, {what}, rng seed {row['rng_seed']}: {numbers}")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--weights", type=Path)
    parser.add_argument("--models", type=Path, default=Path("runs/why"))
    parser.add_argument("--rounds", type=int, default=50)
    parser.add_argument("--rng-seeds", type=int, default=3)
    parser.add_argument("--lr", type=float, default=0.1)
    parser.add_argument("--local-epochs", type=int, default=1)
    parser.add_argument("--every", type=int, default=5)
    parser.add_argument("--examples", type=int, default=1000)
    parser.add_argument("--train-examples", type=int, default=10_000)
    parser.add_argument("--width", type=int, default=16, help="of ResNet-20's first stage")
    parser.add_argument("--quick", action="store_true", help="run one short round of each row, and write no results")
    parser.add_argument("--table", action="store_true")
    options = parser.parse_args()
    if options.table:
        return print_table()
    if options.quick:
        options.rounds, options.rng_seeds, options.examples, options.train_examples = 1, 1, 40, 400
    torch.set_num_threads(1)
    whole = load("cifar10")
    source = replace(whole, train=draw_subset(whole.train, options.train_examples, 0))
    done = {} if options.quick else read_results()
    for row in rows(options):
        if json.dumps(row, sort_keys=True) in done:
            continue
        found = measure(row, options, source)
        print(row, {k: v for k, v in found.items() if isinstance(v, float)}, flush=True)
        if not options.quick:
            with RESULTS.open("a") as file:
                file.write(json.dumps({"row": row, "result": found}) + "\n")


if __name__ == "__main__":
    main()
