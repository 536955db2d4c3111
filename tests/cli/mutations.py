"""Valid files, and what a hostile or careless user makes of them: mutations that follow from a seed.

`python -m tests.cli.mutations FIRST LAST` tries the mutations of these seeds and prints what breaks the rule.
"""

from __future__ import annotations

import contextlib
import copy
import datetime
import faulthandler
import importlib
import io
import json
import random
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from coterie.cli.main import main
from coterie.core.toml_text import toml_text

Tables = dict[str, Any]

COLUMNS = {"label_column": "ill", "feature_columns": ["dose", "age"]}
DATA = {"source": "csv", "path": "wards.csv", "client_column": "ward", **COLUMNS}
MLP = {"name": "mlp", "hidden": [4]}
FEDAVG = {"name": "fedavg", "lr": 0.1, "batch_size": 8}

RUNS: dict[str, Tables] = {
    "shards": {
        "rounds": 1,
        "rng_seed": 3,
        "data": {
            "source": "npz",
            "path": "pixels.npz",
            "partition": "shards",
            "num_clients": 4,
            "shards_per_client": 2,
        },
        "model": {"name": "cnn"},
        "algorithm": FEDAVG | {"momentum": 0.9, "weight_decay": 1e-4, "lr_decay": 0.99, "clip_norm": 1.0},
        "cohort": {"fraction": 0.5},
        "evaluate": {"every": 1, "target_accuracy": 0.9, "clients": True},
    },
    "robust": {
        "rounds": 1,
        "data": {
            "source": "synthetic",
            "num_clients": 7,
            "num_features": 3,
            "examples_per_client": 9,
        },
        "model": {"name": "logistic"},
        "algorithm": {"name": "fedadam", "lr": 0.1, "server_lr": 0.01, "server_momentum": 0.9, "local_steps": 2},
        "cohort": {"size": 7},
        "aggregation": {"name": "trimmed_mean", "pre": ["nnm"], "num_byzantine": 2},
        "attack": {"name": "gaussian", "num_clients": 2, "on": "update", "sd": 2.0},
        "faults": {"drop": 0.1, "straggle": 0.1, "corrupt": 0.1},
        "engine": {"name": "vectorised", "device": "cpu", "dtype": "float32", "chunk": 3, "compile": False},
    },
    "table": {
        "rounds": 1,
        "data": DATA | {"standardize": "federated"},
        "model": MLP,
        "algorithm": {"name": "fedprox", "lr": 0.1, "local_epochs": 1, "batch_size": "full", "proximal_weight": 0.1},
        "probe": {"names": ["drift", "gain"], "every": 1, "examples": 9},
        "engine": {"name": "sequential", "workers": 1, "compile": "auto"},
    },
    "two models": {
        "rounds": 1,
        "data": {"source": "npz", "path": "pixels.npz", "partition": "dirichlet", "alpha": 1.0, "num_clients": 3},
        "model": {"names": ["mlp", "logistic"]},
        "algorithm": {
            "name": "fedh2l",
            "lr": 0.05,
            "local_steps": 2,
            "seed_examples_per_client": 3,
            "mutual_weight": 1.0,
            "temperature": 2.0,
        },
    },
    "by client": {
        "rounds": 1,
        "data": DATA | {"test_fraction": 0.3},
        "model": {"clients": {"a": "mlp", "b": "logistic", "c": "mlp"}},
        "algorithm": {"name": "fedmd", "lr": 0.05, "transfer_epochs": 1, "digest_epochs": 1, "send_as": "float16"},
        "seed_set": {"source": "csv", "path": "wards.csv", "examples": 12, "labels": True, **COLUMNS},
    },
    "norms": {
        "rounds": 1,
        "data": {"source": "npz", "path": "pixels.npz", "partition": "label", "labels_per_client": 2, "num_clients": 3}
        | {"augment": "none"},
        "model": {"name": "tiny:normed", "width": 4},
        "algorithm": FEDAVG | {"name": "fbn", "server_lr": 1.0, "variant": "recommended"},
        "pretrain": {"freeze": ["0"], "lr_scale": {"1": 0.5}},
    },
    "pictures": {
        "rounds": 1,
        "data": {"source": "images", "path": "pictures", "test_fraction": 0.5, "num_clients": 2, "partition": "iid"},
        "model": MLP,
        "algorithm": {"name": "fedssl", "lr": 0.05, "batch_size": 4, "projection": 8, "hidden": 8},
    },
    "controls": {
        "rounds": 1,
        "data": {"source": "npz", "path": "pixels.npz", "partition": "quantity", "alpha": 1.0, "num_clients": 3},
        "model": MLP,
        "algorithm": {"name": "scaffold", "lr": 0.1, "control": "gradient", "server_lr": 1.0, "local_epochs": 1},
        "evaluate": {"every": 2},
    },
}
"""Small experiments by name; together they have every table and most keys."""

PRETRAININGS: dict[str, Tables] = {
    "fps": {
        "rng_seed": 1,
        "pretrain": {
            "method": "fps",
            "steps": 1,
            "batch_size": 2,
            "image_size": 8,
            "num_systems": 4,
            "cached_systems": 4,
            "cached_renderings": 1,
            "points": 20,
            "lr": 0.1,
            "projection": 4,
            "hidden": 4,
        },
        "model": {"name": "tiny:normed", "width": 4},
        "engine": {"device": "cpu"},
    },
}

MODULE = """
from torch import nn
def normed(in_shape, num_classes: int, width: int = 4):
    head = nn.Linear(width * (in_shape[1] - 2) ** 2, num_classes)
    return nn.Sequential(nn.Conv2d(in_shape[0], width, 3), nn.BatchNorm2d(width), nn.Flatten(), head)
"""

HUGE = 10**4200
NASTY: tuple[Any, ...] = (
    *(0, -1, 1, 2, 3, 7, 10**6, 10**12, 2**31, 2**63 - 1, 2**63, -(2**63) - 1, 10**30, HUGE, -HUGE),
    *(0.0, -0.0, 0.5, 1.0, -0.1, 1e-320, 1e20, 1e308, -1e308, float("inf"), float("-inf"), float("nan")),
    *(
        True,
        False,
        "",
        " ",
        "none",
        "auto",
        "full",
        "all",
        "mean",
        "natural",
        "iid",
        "fedavg",
        "cpu",
        "cuda:99",
        "meta",
    ),
    *(
        "os:system",
        "math:sqrt",
        ":",
        "a:b:c",
        "tiny:absent",
        "tiny:",
        "torchvision:resnet18",
        "hf:x",
        "timm:x",
        "flwr:x",
    ),
    *("../..", "/dev/null", "/proc/self/mem", "~nobody", "a" * 300, "x/" * 2000, "nul\0byte", "tab\tnew\nline\x1b[31m"),
    *("ü", "\u202e", "😀", "²", "1", "0.1", "true", "nan", "=1+1", "%s", "{}", "[red]", "`lr`", "int8", "sign_flip"),
    *(
        [],
        [0],
        [1, "a"],
        [[]],
        ["mlp"],
        ["mlp"] * 3,
        [0.5, float("nan")],
        [HUGE],
        [1] * 3000,
        [-1],
        [True],
        ["drift", 3],
    ),
    *({}, {"a": 1}, {"name": "mlp"}, {"a": {"b": {"c": 1}}}, {"size": 1, "fraction": 0.5}),
    datetime.date(2024, 2, 29),
    datetime.datetime(2024, 2, 29, 1, 2, 3),
    datetime.time(1, 2, 3),
)


SLOW = ("rounds", "local_epochs", "local_steps", "steps", "minutes", "transfer_epochs", "digest_epochs", "mutual_steps")
SLOW += ("distill_steps", "iterations", "workers", "compile")
"""Keys of which a large value is possible and takes long, as an hour of rounds does, or that start processes."""
CALM = tuple(v for v in NASTY if isinstance(v, bool) or not isinstance(v, int | float) or not 1 < v < 10**17)
CALM = tuple(v for v in CALM if v is not True)


class Outcome(NamedTuple):
    """How a command ended: its exit status, and what it printed."""

    status: int | str
    out: str
    err: str
    seconds: float


class TooSlow(BaseException):
    """A command has run for longer than it may."""


def write_data(folder: Path) -> None:
    """Write the data that the files name: a table, an archive, a folder of pictures, and a module with a model."""
    from PIL import Image

    importlib.import_module("coterie.experiment.run")  # PyTorch, before any time is measured
    draw = np.random.default_rng(0)
    rows = [f"{k},{draw.normal():.3f},{30 + k % 40},{'abc'[k % 3]},{'yes' if k % 2 else 'no'}" for k in range(60)]
    (folder / "wards.csv").write_text("\n".join(["id,dose,age,ward,ill", *rows]) + "\n")
    x = draw.random((60, 1, 8, 8)).astype(np.float32)
    np.savez(folder / "pixels.npz", x=x, y=np.arange(60) % 3)
    for k in range(12):
        place = folder / "pictures" / "ab"[k % 2]
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(draw.integers(0, 255, (8, 8, 3), dtype=np.uint8)).save(place / f"{k}.png")
    (folder / "tiny.py").write_text(MODULE)


def format_toml(tables: Tables) -> str:
    """Return the text of a file; values that are tables at the top become tables."""
    top = [f"{_key(k)} = {_value(v)}" for k, v in tables.items() if not isinstance(v, dict)]
    lines = [*top]
    for name, table in tables.items():
        if isinstance(table, dict):
            lines += ["", f"[{_key(name)}]", *(f"{_key(k)} = {_value(v)}" for k, v in table.items())]
    return "\n".join(lines) + "\n"


def _key(name: str) -> str:
    return name if name.isascii() and name.isidentifier() else json.dumps(name)


def _value(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, dict):
        return "{" + ", ".join(f"{_key(k)} = {_value(v)}" for k, v in value.items()) + "}"
    if isinstance(value, list):
        return f"[{', '.join(map(_value, value))}]"
    if isinstance(value, str):
        return json.dumps(value).replace("\x7f", "\\u007f")
    if isinstance(value, int) and abs(value) == HUGE:
        return "-" * (value < 0) + "9" * 5000
    return str(value)


def mutate(tables: Tables, draw: random.Random) -> Tables:
    """Return the tables with one thing changed."""
    changed = copy.deepcopy(tables)
    places = [(name, key) for name, table in changed.items() if isinstance(table, dict) for key in table]
    places += [("", key) for key, value in changed.items() if not isinstance(value, dict)]
    if not places:
        return {"rounds": draw.choice(NASTY)}
    name, key = draw.choice(places)
    table = changed[name] if name else changed
    kind = draw.choice(("value",) * 10 + ("number",) * 4 + ("missing", "extra", "extra", "misspelt", "moved", "table"))
    if kind == "value":
        table[key] = draw.choice(CALM if key in SLOW else NASTY)
    elif kind == "number":
        numbers = [(n, k) for n, k in places if isinstance((changed[n] if n else changed)[k], int | float)]
        name, key = draw.choice(numbers or places)
        table = changed[name] if name else changed
        old = table[key]
        times = draw.choice((-1, 0, 0.5, 2, 10, 1000, 10**9, 1e300))
        if isinstance(old, bool) or not isinstance(old, int | float) or abs(old) > 10**20:
            table[key] = draw.choice(CALM if key in SLOW else NASTY)
        else:
            table[key] = old * (draw.choice((-1, 0, 0.5, 10**18)) if key in SLOW else times)
    elif kind == "missing":
        del table[key]
    elif kind == "extra":
        name = draw.choice((*KEYS, "x", "", "a.b", "ü", "tab\t", "\x1b[31m", "y" * 500))
        table[name] = draw.choice(CALM if name in SLOW else NASTY)
    elif kind == "misspelt":
        place = draw.randrange(len(key) + 1)
        table[key[:place] + draw.choice("abz_-. é") + key[place + 1 :]] = table.pop(key)
    elif kind == "moved":
        other = draw.choice([n for n, t in changed.items() if isinstance(t, dict)] or [""])
        (changed[other] if other else changed)[key] = table.pop(key)
    elif name:
        other = draw.choice(list(changed))
        changed[other], changed[name] = changed[name], changed[other]
    else:
        changed[draw.choice(list(changed))] = draw.choice(CALM)
    return changed


KEYS = sorted(
    {
        key
        for each in (*RUNS.values(), *PRETRAININGS.values())
        for t in each.values()
        if isinstance(t, dict)
        for key in t
    }
)


def damage(text: str, draw: random.Random) -> bytes:
    """Return the bytes of a file with some of them changed."""
    data = bytearray(text.encode())
    for _ in range(draw.randint(1, 4)):
        place = draw.randrange(len(data))
        piece = draw.choice(
            (
                b"",
                b"\0",
                b"\xff",
                b"\n",
                b"[",
                b"]",
                b"=",
                b'"',
                b"'''",
                b"{",
                b".",
                b"#",
                b"e99",
                b"\r",
                b"-",
                b"_",
                b"0x",
            )
        )
        data[place : place + draw.randint(0, 3)] = piece
    return bytes(data)


def call(arguments: list[str], limit_seconds: float) -> Outcome:
    """Run the command in this process, and return how it ended; the status is "traceback" or "too slow" if it broke."""
    out, err = io.StringIO(), io.StringIO()

    def stop(number: int, frame: object) -> None:
        raise TooSlow

    before = signal.signal(signal.SIGALRM, stop)
    began = time.perf_counter()
    signal.setitimer(signal.ITIMER_REAL, limit_seconds)
    status: int | str
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            try:
                main(arguments)
                status = 0
            except SystemExit as ended:
                status = ended.code if isinstance(ended.code, int) else 0 if ended.code is None else 1
    except TooSlow:
        status = "too slow"
        err.write(traceback.format_exc())
    except BaseException:
        status = "traceback"
        err.write(traceback.format_exc())
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    return Outcome(status, out.getvalue(), err.getvalue(), time.perf_counter() - began)


def what_is_wrong(outcome: Outcome, folder: Path) -> str | None:
    """Return what breaks the rule: status 0, or 2 with one sentence, or 1 for a run that says that it failed."""
    lines = outcome.err.splitlines()
    if outcome.status == 0:
        return None
    if outcome.status == 2:
        if len(lines) != 1:
            return f"{len(lines)} lines"
        if not lines[0].isprintable():
            return "unprintable"
        if outcome.out:
            return "output beside a mistake"
        return "too long" if len(lines[0]) > 10_000 else "a folder is left" if folder.exists() else None
    if outcome.status == 1:
        summary = folder / "summary.json"
        failed = summary.is_file() and "failure" in json.loads(summary.read_text())
        return None if failed else "status 1 without a failure"
    return str(outcome.status)


def cases(first: int, last: int) -> Iterator[tuple[str, list[str], bytes]]:
    """Yield for each seed a name, the arguments of a command, and the bytes of its file."""
    for seed in range(first, last):
        draw = random.Random(seed)
        base, tables = draw.choice([*RUNS.items(), *list(RUNS.items()), *PRETRAININGS.items()])
        command = "pretrain" if base in PRETRAININGS else draw.choice(("run",) * 5 + ("show",))
        data: bytes
        if draw.random() < 0.1:
            data = damage(format_toml(tables), draw)
        else:
            for _ in range(draw.choice((1, 1, 1, 2, 3))):
                tables = mutate(tables, draw)
            data = format_toml(tables).encode()
        arguments = ["data", "show", "file.toml"] if command == "show" else [command, "file.toml", "--out", "out"]
        if draw.random() < 0.15:
            name, table = draw.choice([(n, t) for n, t in RUNS["robust"].items() if isinstance(t, dict)])
            value = draw.choice(NASTY)
            text = toml_text(value) if not isinstance(value, int) or abs(value) != HUGE else "9" * 5000
            arguments.insert(
                3 if command == "show" else 2, f"{name}.{draw.choice(list(table))}={text}".replace("\0", "")
            )
        yield f"{seed} {base}", arguments, data


def try_case(arguments: list[str], data: bytes, limit_seconds: float) -> tuple[Outcome, str | None]:
    """Run one case in the working directory, and return its outcome and what is wrong with it."""
    Path("file.toml").write_bytes(data)
    outcome = call(arguments, limit_seconds)
    wrong = what_is_wrong(outcome, Path("out"))
    shutil.rmtree("out", ignore_errors=True)
    return outcome, wrong


def _try_many(first: int, last: int) -> None:
    """Try the mutations of these seeds, print what breaks the rule and what takes long, and at the end the counts."""
    counts: Counter[int | str] = Counter()
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
        write_data(Path())
        for name, arguments, data in cases(first, last):
            faulthandler.dump_traceback_later(60)  # where even a signal does not stop it
            outcome, wrong = try_case(arguments, data, 10)
            counts[wrong or outcome.status] += 1
            if wrong or outcome.seconds > 5:
                print(
                    f"=== {name} {[a[:99] for a in arguments]}: {wrong or 'slow'}, {outcome.seconds:.1f} s", flush=True
                )
                print(
                    f"{data[:1500].decode(errors='replace')}\n--- {outcome.out[-300:]}\n{outcome.err[-2500:]}",
                    flush=True,
                )
    print(dict(counts))


if __name__ == "__main__":
    _try_many(int(sys.argv[1]), int(sys.argv[2]))
