"""Train the encoders that come with coterie (coterie/weights), in pieces that can stop at any moment.

    python benchmarks/pretrain/box.py train [NAME ...] [--minutes 60] [--runs DIR]   # piece after piece, in turns
    python benchmarks/pretrain/box.py save [NAME ...]        # the newest checkpoint -> benchmarks/pretrain/box/NAME/
    python benchmarks/pretrain/box.py restore [NAME ...]     # and back into DIR, where nothing was trained yet
    COTERIE_DATA=... python benchmarks/pretrain/box.py export [NAME ...]   # encoder and card -> coterie/weights/

NAME is one of the files box/NAME.toml, or all of them. A training takes 12,000 steps on one thread, an hour or
less. It is that of `coterie pretrain`: it continues bit for bit from its last checkpoint. `train` saves after
every piece of so many minutes. So one can continue in another clone of the repository: restore, train, export, commit.

`export` takes the encoder as it is, finished or not, and its card says after how many steps. It also measures how well
a logistic regression on the encoder's outputs tells CIFAR-10's classes apart (2,000 images to train on, 2,000 to test),
beside the same network with random weights; without COTERIE_DATA the card lacks
these numbers.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shutil
import sys
import time
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import tomlkit
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import Tensor, nn

from coterie.core.examples import Examples
from coterie.core.files import write_atomic
from coterie.data import load
from coterie.experiment.build_trainer import build_trainer
from coterie.experiment.pretraining_run import SilentPretraining, pretrain
from coterie.experiment.pretraining_settings import load_pretraining
from coterie.experiment.save_checkpoints import CheckpointSaver
from coterie.loop.manifests import list_manifests, read_checked, read_manifest
from coterie.pretrain.pretrained_weights import load_weights
from coterie.track import RunFolder
from coterie.track.rounds_file import Record
from coterie.track.weights_file import pack_weights
from coterie.weights.cards import FOLDER

HERE = Path(__file__).resolve().parent
HOURS_FILE = "hours.json"
PROBED = 2_000
"""Images to train on, and to test on, for the number on a card."""
ABOUT = {"batch": "BatchNorm, whose running statistics come with the weights", "group": "GroupNorm with two groups"}


class Piece(SilentPretraining):
    """Ends a piece of a training after some minutes, and counts the processor's hours.

    Args:
        hours: the file with the hours of earlier pieces.
        minutes: of this piece.
    """

    def __init__(self, hours: Path, minutes: float) -> None:
        self.hours, self.until = hours, time.monotonic() + 60 * minutes
        self.before = read_hours(hours) - time.process_time() / 3600

    def interval(self, record: Record) -> None:
        write_atomic(self.hours, json.dumps({"core_hours": self.before + time.process_time() / 3600}).encode())
        print(time.strftime("%H:%M"), self.hours.parent.name, f"step {record['step']:,}", end=" ")
        print(f"loss {record['loss']:.4f} spread {record['spread']:.3f} {record['seconds']:.1f} s", flush=True)
        if time.monotonic() > self.until:
            raise KeyboardInterrupt  # a checkpoint is saved on the way out

    def say(self, sentence: str) -> None:
        print(sentence, file=sys.stderr)


def read_hours(path: Path) -> float:
    """Return the core-hours of the pieces so far."""
    return float(json.loads(path.read_bytes())["core_hours"]) if path.is_file() else 0.0


def train(name: str, runs: Path, box: Path, minutes: float) -> bool:
    """Train for some minutes, save, and return whether the training is finished."""
    restore(name, runs, box)
    folder = runs / name / "run"
    try:
        pretrain(load_pretraining(box / f"{name}.toml"), folder, True, Piece(runs / name / HOURS_FILE, minutes))
    except KeyboardInterrupt:
        save(name, runs, box)
        return False
    save(name, runs, box)
    return True


def save(name: str, runs: Path, box: Path) -> None:
    """Copy the newest whole checkpoint to the box's folder, in place of the one there."""
    files = _newest_checkpoint(runs / name / "run" / "checkpoint")
    files[HOURS_FILE] = (runs / name / HOURS_FILE).read_bytes()
    beside = box / f".{name}.new"
    shutil.rmtree(beside, ignore_errors=True)
    for file, data in files.items():
        write_atomic(beside / file, data)
    shutil.rmtree(box / name, ignore_errors=True)
    beside.rename(box / name)


def restore(name: str, runs: Path, box: Path) -> None:
    """Copy the saved checkpoint to where it is trained, unless a training is there already.

    The checkpoint holds copies of config.toml and of the records, which `--resume` puts back.
    """
    checkpoint = runs / name / "run" / "checkpoint"
    if list_manifests(checkpoint) or not list_manifests(box / name):
        return
    for file, data in _newest_checkpoint(box / name).items():
        write_atomic(checkpoint / file, data)
    write_atomic(runs / name / HOURS_FILE, (box / name / HOURS_FILE).read_bytes())


def _newest_checkpoint(folder: Path) -> dict[str, bytes]:
    """Return the files of the newest checkpoint in a folder by name, each compared with its checksum."""
    manifest = list_manifests(folder)[0]
    entries = _entries(read_manifest(manifest))
    return {entry["file"]: read_checked(folder, entry) for entry in entries} | {manifest.name: manifest.read_bytes()}


def _entries(content: Any) -> Iterator[Mapping[str, Any]]:
    """Yield the entries of files, wherever they stand in a manifest."""
    if isinstance(content, Mapping) and {"file", "sha256"} <= content.keys():
        yield content
    elif isinstance(content, Mapping | list):
        for each in content.values() if isinstance(content, Mapping) else content:
            yield from _entries(each)


def export(name: str, runs: Path, box: Path, to: Path) -> None:
    """Write the encoder and its card, the card last."""
    settings, folder = load_pretraining(box / f"{name}.toml"), RunFolder(runs / name / "run", "interval")
    plain = load_pretraining(box / f"{name}.toml", ["engine.compile=false"])
    model, trainer = build_trainer(plain)
    found = CheckpointSaver(folder).load()
    assert found is not None, "there is a checkpoint"
    steps = settings.pretrain.steps or 0
    done = min(found.round * settings.pretrain.interval, steps)
    trainer.restore(done, found.state)
    weights = trainer.encoder_weights()
    data = pack_weights(model, weights, part=True)
    found_data = "COTERIE_DATA" in os.environ
    accuracies = {"random_weights": probe(model, {}), "accuracy": probe(model, weights)} if found_data else {}
    size, norm = settings.pretrain.image_size, settings.model["norm"]
    tables = settings.tables()
    card = {
        "about": f"the encoder of a ResNet-20, trained on pairs of fractals (FPS, SimSiam), with {ABOUT[norm]}",
        "model": {"name": settings.model["name"], "norm": norm},
        "inputs": f"images [{settings.pretrain.channels}, {size}, {size}] from 0 to 1, not standardised",
        "normalisation": norm,
        "licence": "Apache-2.0, as coterie; no data of anybody were used",
        "sha256": hashlib.sha256(data).hexdigest(),
        "made_by": f"python benchmarks/pretrain/box.py train {name}; COTERIE_DATA=... "
        f"python benchmarks/pretrain/box.py export {name}",
        "trained": {
            "steps": done,
            "planned_steps": steps,
            "images": 2 * settings.pretrain.batch_size * done,
            "core_hours": round(read_hours(runs / name / HOURS_FILE), 2),
        },
        "settings": tables,
        "evaluations": [
            {
                "what": f"accuracy of a logistic regression on the encoder's outputs, CIFAR-10, {PROBED:,} images to "
                f"train on and {PROBED:,} to test",
                "command": f"COTERIE_DATA=... python benchmarks/pretrain/box.py export {name}",
                **accuracies,
            }
        ]
        if accuracies
        else [],
    }
    write_atomic(to / f"{name}.safetensors", data)
    write_atomic(to / f"{name}.toml", tomlkit.dumps(card).encode())
    print(f"{name}: {done:,} steps, {accuracies}")


@cache
def images() -> list[Examples]:
    """Return the images to train on and to test on, for the number on a card."""
    source = load("cifar10")
    assert source.test is not None
    return [examples.take(torch.arange(PROBED)) for examples in (source.train, source.test)]


@torch.no_grad()
def probe(model: nn.Module, weights: Mapping[str, Tensor]) -> float:
    """Return how well a logistic regression on the encoder's outputs does, with the model's own weights where none."""
    if weights:
        load_weights(model, weights, "the encoder")
    kept, model.output = model.output, nn.Identity()
    model.eval()
    inputs, labels = zip(*(part.tensors() for part in images()), strict=True)
    features = [torch.cat([model(x) for x in own.split(250)]).numpy() for own in inputs]
    model.output = kept
    fitted = make_pipeline(StandardScaler(), LogisticRegression(max_iter=2000, C=0.01)).fit(features[0], labels[0])
    return round(float(fitted.score(features[1], labels[1])), 4)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["train", "save", "restore", "export"])
    parser.add_argument("names", nargs="*", help="of the encoders; all of them unless given")
    parser.add_argument("--minutes", type=float, default=60, help="of a piece")
    parser.add_argument("--pieces", type=int, default=10**9, help="stop after so many")
    parser.add_argument("--runs", type=Path, default=HERE.parents[1] / "runs" / "box", help="where they are trained")
    parser.add_argument("--box", type=Path, default=HERE / "box", help="settings and saved checkpoints")
    parser.add_argument("--to", type=Path, default=FOLDER, help="where encoders and cards are written")
    chosen = parser.parse_args()
    names = chosen.names or sorted(path.stem for path in chosen.box.glob("*.toml"))
    torch.set_num_threads(1)
    pieces = 0
    while chosen.what == "train" and names and pieces < chosen.pieces:
        name, pieces = names.pop(0), pieces + 1
        names += [] if train(name, chosen.runs, chosen.box, chosen.minutes) else [name]
    for name in names if chosen.what != "train" else ():
        if chosen.what == "export":
            restore(name, chosen.runs, chosen.box)
            export(name, chosen.runs, chosen.box, chosen.to)
        else:
            (save if chosen.what == "save" else restore)(name, chosen.runs, chosen.box)


if __name__ == "__main__":
    main()
