"""Load pre-trained weights into a model: names must match, and the head may be new.

>>> import torch
>>> from torch import nn
>>> encoder = {"backbone.0.weight": torch.ones(3, 2), "backbone.0.bias": torch.ones(3)}
>>> model = nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 4))
>>> print(load_weights(model, encoder, "the encoder"))
the encoder: 2 of 4 loaded; its names without "backbone."; new: 2.weight, 2.bias
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import safetensors.torch
from safetensors import SafetensorError
from torch import Tensor, nn

from coterie.core.errors import Mistake, few
from coterie.models.functional import second_names
from coterie.models.model_parts import head_names
from coterie.models.normalisation import ORIGIN
from coterie.track.checksums import check_weights

WEIGHTS_FILE = "model.safetensors"
PICKLE_SUFFIXES = (".pt", ".pth", ".bin", ".ckpt", ".pkl", ".pickle", ".tar")
CONVERSION_PROGRAM = (
    "import sys, torch, safetensors.torch as s; f = sys.argv[1]; "
    "s.save_file({k: v.clone() for k, v in torch.load(f, weights_only=True).items()}, f + '.safetensors')"
)
"""A program that converts the pickle of a `state_dict` to a safetensors file."""


@dataclass(frozen=True)
class LoadReport:
    """Which of a model's weights were loaded from a source, and which were not.

    Attributes:
        source: in words.
        loaded: the model's names that got their values from the source. total: how many names the model has.
        resized: the head's names that have another shape in the source, with that shape and the model's.
        new: the names that keep the model's own initial values.
        skipped: the source's names that were not used.
        prefix: what the other names begin with in the source.
        sha256: of the file, where the source is one.
    """

    source: str
    loaded: tuple[str, ...]
    total: int
    resized: Mapping[str, tuple[list[int], list[int]]]
    new: tuple[str, ...]
    skipped: tuple[str, ...]
    prefix: str = ""
    sha256: str | None = None

    def __str__(self) -> str:
        shapes = [f"{name} ({was} there, {now} here)" for name, (was, now) in self.resized.items()]
        parts = [f"{len(self.loaded)} of {self.total} loaded"]
        parts += [f'its names without "{self.prefix}"'] if self.prefix else []
        parts += [f"new for its size: {few(shapes)}"] if shapes else []
        parts += [f"new: {few(fresh)}"] if (fresh := [name for name in self.new if name not in self.resized]) else []
        parts += [f"not used: {few(self.skipped)}"] if self.skipped else []
        return f"{self.source}: {'; '.join(parts)}"


def load_weights_file(
    model: nn.Module,
    weights: str | Path,
    *,
    head: Literal["fresh"] | None = None,
    prefix: str | None = None,
    skip: Sequence[str] = (),
) -> LoadReport:
    """Load a safetensors file into a model, in place; see `load_weights`.

    Args:
        model: the model.
        weights: the file, or a folder with a model.safetensors, such as a run's.
        head, prefix, skip: as in `load_weights`.

    Raises:
        Mistake: there is no such file, it does not fit, or it is in a run folder and damaged.
    """
    file = find_weights_file(Path(weights))
    check_weights(file.absolute())
    tensors = read_safetensors(file)
    with file.open("rb") as opened:
        digest = hashlib.file_digest(opened, "sha256").hexdigest()
    return load_weights(model, tensors, str(weights), head=head, prefix=prefix, skip=skip, sha256=digest)


def load_weights(
    model: nn.Module,
    weights: Mapping[str, Tensor],
    source: str,
    *,
    head: Literal["fresh"] | None = None,
    prefix: str | None = None,
    skip: Sequence[str] = (),
    sha256: str | None = None,
) -> LoadReport:
    """Load weights into a model by name, in place, except a head that does not fit; refuse another model's.

    Where a weight of the head (see `coterie.models.model_parts`) is missing or has another shape, the model keeps its
    own initial values. It also keeps them for names that are skipped. All other weights must be there, in the model's
    shapes. Names that the model does not have are left out, unless they belong to a part that the model has: then these
    are the weights of another model.

    Args:
        model: the model.
        weights: by name.
        source: where they are from, for messages.
        head: "fresh": nothing of the head is loaded.
        prefix: what the names begin with before the model's own; unless given, the prefix with which most names fit.
        skip: beginnings of names in `weights` that are left out in any case.
        sha256: the digest of the file, for the report.

    Raises:
        Mistake: they do not fit, or are not finite.
    """
    wanted = {name: value for name, value in model.state_dict().items() if isinstance(value, Tensor)}
    usable = {name: value for name, value in weights.items() if not name.startswith(tuple(skip))}
    prefix = _find_prefix(usable, wanted, source) if prefix is None else prefix
    named = {name.removeprefix(prefix): value for name, value in usable.items() if name.startswith(prefix)}
    heads, resized = head_names(model), _shape_differences(wanted, named)
    absent = wanted.keys() - named.keys() - _optional_names(model, named)
    new = heads & wanted.keys() & (wanted.keys() if head == "fresh" else absent | resized.keys())
    new |= {name for name in absent if prefix + name in weights}  # there, but skipped
    taken = {name: named[name] for name in wanted if name in named and name not in new}
    _require_all(source, list(wanted), absent - new, weights)
    _require_same_shapes(source, {name: pair for name, pair in resized.items() if name not in new})
    _require_same_model(source, named.keys() - wanted.keys() - _statistics_to_remove(model), wanted.keys() - heads)
    _require_same_kind(source, {name: (value, wanted[name]) for name, value in taken.items()})
    _require_usable(source, taken, wanted)
    model.load_state_dict(taken, strict=False)
    resized = {} if head == "fresh" else resized
    used = {prefix + name for name in (*taken, *resized)}
    return LoadReport(
        source=source,
        loaded=tuple(taken),
        total=len(wanted),
        resized=resized,
        new=tuple(name for name in wanted if name in new),
        skipped=tuple(name for name in weights if name not in used),
        prefix=prefix,
        sha256=sha256,
    )


def find_weights_file(path: Path) -> Path:
    """Return the file, or the model.safetensors in the folder.

    Raises:
        Mistake: there is none.
    """
    if path.is_dir() and not (path / WEIGHTS_FILE).is_file():
        clients = sorted(path.glob("clients/*.safetensors"))
        hint = f"name one, such as {clients[0]}" if clients else "name a safetensors file"
        raise Mistake(f"the folder has no {WEIGHTS_FILE}; {hint}", key="weights", value=path)
    file = path / WEIGHTS_FILE if path.is_dir() else path
    if not file.is_file():
        raise Mistake("there is no such file; name a safetensors file or a run folder", key="weights", value=path)
    return file


def read_safetensors(file: Path) -> dict[str, Tensor]:
    """Read the tensors of a safetensors file, by name. A pickle is not opened, since reading one can run any code.

    Raises:
        Mistake: it is something else.
    """
    try:
        return safetensors.torch.load_file(file)
    except (SafetensorError, OSError, ValueError) as error:
        if file.suffix in PICKLE_SUFFIXES or _looks_pickled(file):
            raise Mistake(
                "it is a pickle, which could run any code and so is never opened; if you trust it, convert it: "
                f'python -c "{CONVERSION_PROGRAM}" {file}',
                key="weights",
                value=file,
            ) from None
        raise Mistake(f"it cannot be read as a safetensors file ({error})", key="weights", value=file) from error


def _looks_pickled(file: Path) -> bool:
    """Return whether a file begins like a pickle. Call this only after safetensors has refused the file.

    A safetensors file begins with a length, which can be any number.
    """
    with file.open("rb") as opened:
        start = opened.read(2)
    return start == b"PK" or start[:1] == b"\x80"


def _find_prefix(names: Collection[str], wanted: Collection[str], source: str) -> str:
    """Return the prefix with which most of the names are the model's; empty where there is none."""
    votes: Counter[str] = Counter()
    for name in names:
        places = [0, *(k + 1 for k, letter in enumerate(name) if letter == ".")]
        votes.update(name[:k] for k in places if name[k:] in wanted)
    best = [prefix for prefix, number in votes.items() if number == max(votes.values())]
    if len(best) > 1 and "" not in best:
        raise Mistake(
            f"{source} holds the model more than once, with names that begin with {' or '.join(sorted(best))}; choose "
            "one with `prefix`",
            key="weights",
        )
    return best[0] if len(best) == 1 else ""


def _shape_differences(
    wanted: Mapping[str, Tensor], named: Mapping[str, Tensor]
) -> dict[str, tuple[list[int], list[int]]]:
    """Return the shapes in the source and in the model where they differ, by name."""
    shapes = {n: (list(named[n].shape), list(w.shape)) for n, w in wanted.items() if n in named}
    return {name: (was, now) for name, (was, now) in shapes.items() if was != now}


def _optional_names(model: nn.Module, named: Collection[str]) -> set[str]:
    """Return the model's names that may be missing.

    These are a name of a tied parameter whose other name is there, and counts of batches, which older files lack.
    """
    pairs = [pair for second, first in second_names(model).items() for pair in ((second, first), (first, second))]
    counts = {name for name, _ in model.named_buffers() if name.rpartition(".")[2] == "num_batches_tracked"}
    return {one for one, other in pairs if other in named} | counts


def _statistics_to_remove(model: nn.Module) -> set[str]:
    """Return the names of the statistics of BatchNorm layers that were converted to another normalisation."""
    converted = [name for name, module in model.named_modules() if hasattr(module, ORIGIN)]
    return {f"{name}.{of}" for name in converted for of in ("running_mean", "running_var", "num_batches_tracked")}


def _require_all(source: str, wanted: Sequence[str], missing: Collection[str], there: Collection[str]) -> None:
    """Refuse weights that lack names of the model."""
    if missing:
        lacking = few([name for name in wanted if name in missing])
        raise Mistake(
            f"{source} does not fit the model: it lacks {lacking}, and has {few(sorted(there)) or 'nothing'}; name the "
            "model that these weights were made with, or give with `prefix` what their names begin with",
            key="weights",
        )


def _require_same_shapes(source: str, differing: Mapping[str, tuple[list[int], list[int]]]) -> None:
    """Refuse weights that differ in shape from the model's."""
    if differing:
        shown = few([f"{name} is {was} there and {now} in the model" for name, (was, now) in differing.items()])
        raise Mistake(
            f"{source} does not fit the model: {shown}; give the model the sizes that these weights were made with",
            key="weights",
        )


def _require_same_model(source: str, left_over: Collection[str], wanted: Collection[str]) -> None:
    """Refuse names that are left over inside a part that the model has."""
    parts = {name.partition(".")[0] for name in wanted if "." in name}
    inside = sorted(name for name in left_over if name.partition(".")[0] in parts)
    if inside:
        raise Mistake(
            f"{source} does not fit the model, which has no {few(inside)}; name the model that these weights were made "
            "with, or leave such names out with `skip`",
            key="weights",
        )


def _require_same_kind(source: str, pairs: Mapping[str, tuple[Tensor, Tensor]]) -> None:
    """Refuse numbers that mean something else in the model: quantised weights, which need scales, or complex ones."""
    for name, (theirs, ours) in pairs.items():
        narrow = theirs.dtype.itemsize == 1 and theirs.is_floating_point()
        whole = not theirs.is_floating_point() and not theirs.is_complex()
        if narrow or theirs.is_complex() != ours.is_complex() or (whole and ours.is_floating_point()):
            kinds = [str(each.dtype).removeprefix("torch.") for each in (theirs, ours)]
            raise Mistake(
                f"{source} does not fit the model: {name} is {kinds[0]} there and {kinds[1]} in the model; convert "
                "quantised weights to float32 with their scales, or take other weights",
                key="weights",
            )


def _require_usable(source: str, taken: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> None:
    """Refuse weights of which the model would take none, or that are not finite in the model's type of number.

    Infinite values that the model has itself, such as those of a mask, are fine.
    """
    if not taken:
        raise Mistake(f"nothing of the model would come from {source}; name other weights, or none", key="weights")
    broken = [name for name, value in taken.items() if not _is_usable(value, wanted[name])]
    if broken:
        kind = str(wanted[broken[0]].dtype).removeprefix("torch.")
        raise Mistake(
            f"{source} has values in {few(broken)} that are not finite as {kind}, the model's type of number; take "
            "other weights",
            key="weights",
        )


def _is_usable(value: Tensor, own: Tensor) -> bool:
    """Return whether a value is finite once it is in the model, except where the model has the same infinities."""
    held = value.to(own.device, own.dtype)
    return bool((held.isfinite() | (held == own)).all())
