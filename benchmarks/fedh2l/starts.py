"""FedH2L (reconstructed) from good starts: PACS and the digits, from random, supervised and fractal starts.

    COTERIE_DATA=... python benchmarks/fedh2l/starts.py [pacs] [digits_mix] [--minutes 60]

Participants hold one domain each and three architectures: ResNet-20, and two convolutional networks, one with BatchNorm
and one with GroupNorm, dealt in the order 0, 1, 2, 1. A start is `random`; `supervised`, in which each architecture was
trained on CIFAR-10, which no participant holds, for 100,000 examples; or `box`, ResNet-20 from the weights that come
with coterie and the others from random ones. The seed set has 60, 120 or 600 images in all. 10 rounds of 20 local steps
on 32 images; lr 0.05 from random weights, 0.02 from others. Every method gets the seed set.

A finished row is a line in starts.jsonl at once, and is not run again: stop it whenever you like. Supervised starts are
kept in runs/fedh2l-starts. `--table` prints the tables of docs/algorithms/fedh2l.md and runs nothing; `--quick` runs
each kind of row for one round of one step on random starts and small supervised ones, and keeps nothing.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from tables import lines, percent
from torch import nn

import coterie
from coterie import Recipe
from coterie.data import augmentation, deal, load, own_test
from coterie.data.seed_set import SeedSet, add_to_clients, from_clients
from coterie.models.registry import build
from coterie.pretrain.pretrained_weights import load_weights, load_weights_file
from coterie.weights import encoders

RESULTS = Path(__file__).with_name("starts.jsonl")
STARTS = Path("runs") / "fedh2l-starts"
LR = {"random": 0.05, "supervised": 0.02, "box": 0.02}
SEED_IMAGES = (120, 60, 600)
DATA = ("pacs", "digits_mix")


@dataclass(frozen=True)
class Row:
    """One run.

    Attributes:
        start: a key of `LR`.
        method: a key of `METHODS`.
        seed_images: in all.
    """

    data: str
    start: str
    method: str
    seed_images: int
    rng_seed: int = 0
    rounds: int = 10
    local_steps: int = 20


METHODS: dict[str, tuple[Callable[..., Recipe], str, dict[str, Any]]] = {
    "independent": (coterie.independent, "none", {}),
    "independent with the seed set": (coterie.independent, "added", {}),
    "independent with the seed set, twice the steps": (coterie.independent, "added", {"twice": True}),
    "fedh2l": (coterie.fedh2l, "shared", {}),
    "fedh2l, temperature 3": (coterie.fedh2l, "shared", {"temperature": 3.0}),
    "fedmd": (coterie.fedmd, "shared", {"digest_epochs": 2}),
    "fedavg, ResNet-20": (coterie.fedavg, "added", {}),
}
"""Each method's recipe, what it does with the seed set, and its options."""


class Convolutional(nn.Module):
    """Three 3 x 3 convolutions of 32, 64 and 128 channels with pools between them, an average, and a linear layer."""

    def __init__(self, num_classes: int, norm: Callable[[int], nn.Module]) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for before, after in ((3, 32), (32, 64), (64, 128)):
            layers += [nn.Conv2d(before, after, 3, padding=1, bias=False), norm(after), nn.ReLU(), nn.MaxPool2d(2)]
        self.features = nn.Sequential(*layers)
        self.output = nn.Linear(128, num_classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return logits [B, C] of images [B, 3, H, W]."""
        return self.output(self.features(x).mean((2, 3)))  # type: ignore[no-any-return]


ARCHITECTURES: dict[str, Any] = {
    "resnet20": "resnet20",
    "batch": lambda in_shape, num_classes: Convolutional(num_classes, nn.BatchNorm2d),
    "group": lambda in_shape, num_classes: Convolutional(num_classes, lambda channels: nn.GroupNorm(8, channels)),
}
DEALT = ("resnet20", "batch", "group", "batch")


def supervised_start(name: str, folder: Path, examples: int = 100_000) -> Path:
    """Return the file of an architecture trained on CIFAR-10, which is made where there is none."""
    file = folder / f"{name}.safetensors"
    if file.exists():
        return file
    source, rounds = load("cifar10"), 10
    last = None
    for last in coterie.federate(
        coterie.centralized(
            lr=0.1, lr_decay=0.8, momentum=0.9, weight_decay=5e-4, batch_size=100, local_steps=examples // rounds // 100
        ),
        build(ARCHITECTURES[name], [3, 32, 32], 10, rng_seed=0),
        {"cifar10": source.train},
        rounds=rounds,
        test=source.test if examples >= 100_000 else source.test.take(torch.arange(100)),
        evaluate_every=rounds,
        augment=augmentation("crop_flip"),
    ):
        print(f"{name} on CIFAR-10, round {last.round} of {rounds}: loss {last.train_loss:.3f}", flush=True)
    assert last is not None
    print(f"{name}: {100 * (last.test_accuracy or 0):.1f} % on CIFAR-10's test images", flush=True)
    folder.mkdir(parents=True, exist_ok=True)
    save_file({key: value.contiguous() for key, value in last.weights().items()}, file)
    return file


def model(row: Row, name: str, num_classes: int, folder: Path, examples: int) -> nn.Module:
    """Return an architecture at the row's start; its classifier is new."""
    made = build(ARCHITECTURES[name], [3, 32, 32], num_classes, row.rng_seed)
    if row.start == "supervised":
        load_weights_file(made, supervised_start(name, folder, examples), head="fresh")
    if row.start == "box" and name == "resnet20":
        load_weights(made, encoders.load("fps-resnet20"), "the box", head="fresh")
    return made


def run(row: Row, folder: Path = STARTS, examples: int = 100_000) -> dict[str, Any]:
    """Run a row; return what its last round measured."""
    recipe, use, options = METHODS[row.method]
    source = load(row.data, **({"examples_per_client": 1200} if row.data == "digits_mix" else {}))
    dealt = deal(source, rng_seed=row.rng_seed, examples_per_client=1200)
    seed: SeedSet = from_clients(dealt, row.seed_images // len(dealt), row.rng_seed)
    options = dict(options)
    steps = row.local_steps * (2 if options.pop("twice", False) else 1)
    names = ["resnet20"] * len(dealt) if row.method.startswith("fedavg") else DEALT[: len(dealt)]
    made = {name: model(row, name, source.num_classes or 0, folder, examples) for name in dict.fromkeys(names)}
    began = time.process_time()
    *_, last = coterie.federate(
        recipe(lr=LR[row.start], local_steps=steps, batch_size=32, **options),
        made["resnet20"] if len(made) == 1 else [made[name] for name in names],
        add_to_clients(seed.clients, seed.examples) if use == "added" else seed.clients,
        seed_set=seed.examples if use == "shared" else None,
        test=source.test,
        own_test=dict(own_test(source, dealt)),
        evaluate_clients=True,
        evaluate_every=row.rounds,
        rounds=row.rounds,
        rng_seed=row.rng_seed,
        num_classes=source.num_classes,
    )
    measured = ("own_test_accuracy", "domain_test_accuracy", "domain_test_accuracy_worst")
    return {
        **{name: last.measures[name] for name in measured},
        "matrix": last.measures["accuracy_matrix"],
        "bytes_up": last.bytes_up / len(last.cohort),
        "cpu_seconds": round(time.process_time() - began, 1),
    }


def rows(data: str) -> Iterator[Row]:
    """Yield the rows of a data set, the ones that say most first."""
    for images in SEED_IMAGES:
        for start in ("supervised", "random", "box"):
            for rng_seed in range(3):
                for method in METHODS:
                    if method != "independent" or images == SEED_IMAGES[0]:
                        yield Row(data, start, method, images, rng_seed)


def read_results() -> dict[Row, dict[str, Any]]:
    """Read the finished rows."""
    found = RESULTS.read_text().splitlines() if RESULTS.exists() else []
    return {Row(**entry["row"]): entry["result"] for entry in map(json.loads, found)}


def table(data: str, results: dict[Row, dict[str, Any]]) -> str:
    """Return a line for each start, size of the seed set and method: percent over all domains and on the own one."""
    found = []
    for first in (row for row in rows(data) if row.rng_seed == 0):
        each = [results[row] for row in (replace(first, rng_seed=k) for k in range(3)) if row in results]
        if each:
            cells = [percent(each, m) for m in ("domain_test_accuracy", "own_test_accuracy")]
            images = "–" if first.method == "independent" else str(first.seed_images)
            found.append([first.start, images, first.method, *cells, str(len(each))])
    return lines(["start", "seed images", "method", "all", "own", "runs"], found)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", nargs="*", default=["pacs"], help=" ".join(DATA))
    parser.add_argument("--minutes", type=float, default=float("inf"), help="start no new row after this many minutes")
    parser.add_argument("--table", action="store_true")
    parser.add_argument("--quick", action="store_true")
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    if chosen.table:
        print("\n\n".join(table(data, read_results()) for data in chosen.data))
        return
    if chosen.quick:
        with tempfile.TemporaryDirectory() as folder:
            for row in (row for data in chosen.data for row in rows(data)):
                if row.rng_seed == 0 and row.seed_images == SEED_IMAGES[0] and row.start != "box":
                    print(row, run(replace(row, rounds=1, local_steps=1), Path(folder), 1000)["domain_test_accuracy"])
        return
    began, results = time.monotonic(), read_results()
    for row in (row for data in chosen.data for row in rows(data)):
        if row in results:
            continue
        if time.monotonic() - began > 60 * chosen.minutes:
            break
        result = run(row)
        with RESULTS.open("a") as file:
            file.write(json.dumps({"row": asdict(row), "result": result}) + "\n")
        print(f"{result['cpu_seconds']:6.1f} s  {result['domain_test_accuracy']:.4f}  {row}", flush=True)


if __name__ == "__main__":
    main()
