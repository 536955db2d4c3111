"""Weights from a file into a model: names as they are, the head as it fits, and everything else or nothing.

>>> import torch
>>> from torch import nn
>>> encoder = {"backbone.0.weight": torch.ones(3, 2), "backbone.0.bias": torch.ones(3)}
>>> model = nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 4))
>>> print(fill(model, encoder, "the encoder"))
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
from coterie.models.functional import tied
from coterie.models.model_parts import head_names
from coterie.models.normalisation import ORIGIN

KEY = "pretrain.weights"
FILE = "model.safetensors"
PICKLES = (".pt", ".pth", ".bin", ".ckpt", ".pkl", ".pickle", ".tar")
CONVERT = (
    "import sys, torch, safetensors.torch as s; f = sys.argv[1]; "
    "s.save_file({k: v.clone() for k, v in torch.load(f, weights_only=True).items()}, f + '.safetensors')"
)
"""A program that makes a safetensors file of the pickle of a `state_dict`."""


@dataclass(frozen=True)
class Loaded:
    """What of a model came from where.

    Attributes:
        source: in words.
        loaded: names of the model that have their values from there. total: how many names there are.
        resized: those of the head that were there in another shape, with that shape and the model's.
        new: those that keep the model's own initial values.
        skipped: names that were there, and not used.
        prefix: what the others' names began with there.
        sha256: of the file, where it was one.
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


def load(
    model: nn.Module,
    path: str | Path,
    *,
    head: Literal["fresh"] | None = None,
    prefix: str | None = None,
    skip: Sequence[str] = (),
) -> Loaded:
    """Load a safetensors file into a model, in place; see `fill`.

    Args:
        model: the model.
        path: the file, or a folder with a model.safetensors, such as a run's.
        head, prefix, skip: as in `fill`.

    Raises:
        Mistake: it is no such file, or does not fit.
    """
    file = found(Path(path))
    weights = read(file)
    with file.open("rb") as opened:
        digest = hashlib.file_digest(opened, "sha256").hexdigest()
    return fill(model, weights, str(path), head=head, prefix=prefix, skip=skip, sha256=digest)


def fill(
    model: nn.Module,
    weights: Mapping[str, Tensor],
    source: str,
    *,
    head: Literal["fresh"] | None = None,
    prefix: str | None = None,
    skip: Sequence[str] = (),
    sha256: str | None = None,
) -> Loaded:
    """Give a model the weights of these names, in place.

    Of the head (see `coterie.models.model_parts`) what is missing, or has another shape, keeps the model's own
    initial values, and so does what is skipped. All else must be there, in the model's shapes. What the model has no
    place for is left over, unless it belongs to a part that the model has: then these are the weights of another model.

    Args:
        model: the model.
        weights: by name.
        source: where they are from, for messages.
        head: "fresh": none of the head is taken.
        prefix: what the names begin with beside the model's own; unless given, what makes most of them fit.
        skip: beginnings of names, as they are there, that are left over in any case.
        sha256: for the record.

    Raises:
        Mistake: they do not fit, or are not finite.
    """
    wanted = {name: value for name, value in model.state_dict().items() if isinstance(value, Tensor)}
    usable = {name: value for name, value in weights.items() if not name.startswith(tuple(skip))}
    prefix = _prefix(usable, wanted, source) if prefix is None else prefix
    named = {name.removeprefix(prefix): value for name, value in usable.items() if name.startswith(prefix)}
    heads, resized = head_names(model), _resized(wanted, named)
    absent = wanted.keys() - named.keys() - _implied(model, named)
    new = heads & wanted.keys() & (wanted.keys() if head == "fresh" else absent | resized.keys())
    new |= {name for name in absent if prefix + name in weights}  # there, but skipped
    taken = {name: named[name] for name in wanted if name in named and name not in new}
    _complete(source, list(wanted), absent - new, weights)
    _same_shapes(source, {name: pair for name, pair in resized.items() if name not in new})
    _same_model(source, named.keys() - wanted.keys() - _statistics(model), wanted.keys() - heads)
    _usable(source, taken)
    model.load_state_dict(taken, strict=False)
    resized = {} if head == "fresh" else resized
    used = {prefix + name for name in (*taken, *resized)}
    return Loaded(
        source=source,
        loaded=tuple(taken),
        total=len(wanted),
        resized=resized,
        new=tuple(name for name in wanted if name in new),
        skipped=tuple(name for name in weights if name not in used),
        prefix=prefix,
        sha256=sha256,
    )


def found(path: Path) -> Path:
    """The file, or the one in the folder.

    Raises:
        Mistake: there is none.
    """
    if path.is_dir() and not (path / FILE).is_file():
        clients = sorted(path.glob("clients/*.safetensors"))
        hint = f"name one, such as {clients[0]}" if clients else "name a safetensors file"
        raise Mistake(f'{KEY} = "{path}": the folder has no {FILE}; {hint}')
    file = path / FILE if path.is_dir() else path
    if not file.is_file():
        raise Mistake(f'{KEY} = "{path}": there is no such file; name a safetensors file or a run folder')
    return file


def read(file: Path) -> dict[str, Tensor]:
    """What a safetensors file holds, by name. A pickle is not opened: reading one can run any code.

    Raises:
        Mistake: it is something else.
    """
    try:
        return safetensors.torch.load_file(file)
    except (SafetensorError, OSError, ValueError) as error:
        if file.suffix in PICKLES or _looks_pickled(file):
            raise Mistake(
                f'{KEY} = "{file}": is a pickle, which could run any code and so is never opened; convert it, where '
                f'you trust it: python -c "{CONVERT}" {file}'
            ) from None
        raise Mistake(f'{KEY} = "{file}": cannot be read as a safetensors file ({error})') from error


def _looks_pickled(file: Path) -> bool:
    """By its first bytes, which say so only of what is no safetensors file: such a file's begin with any number."""
    with file.open("rb") as opened:
        start = opened.read(2)
    return start == b"PK" or start[:1] == b"\x80"


def _prefix(names: Collection[str], wanted: Collection[str], source: str) -> str:
    """What the names begin with beside the model's own: what makes most of them fit, or nothing."""
    votes: Counter[str] = Counter()
    for name in names:
        places = [0, *(k + 1 for k, letter in enumerate(name) if letter == ".")]
        votes.update(name[:k] for k in places if name[k:] in wanted)
    best = [prefix for prefix, number in votes.items() if number == max(votes.values())]
    if len(best) > 1 and "" not in best:
        raise Mistake(
            f"{KEY}: {source} holds the model more than once, its names beginning with "
            f"{' or '.join(sorted(best))}; say which with pretrain.prefix"
        )
    return best[0] if len(best) == 1 else ""


def _resized(wanted: Mapping[str, Tensor], named: Mapping[str, Tensor]) -> dict[str, tuple[list[int], list[int]]]:
    """What has another shape there, with that shape and the model's."""
    shapes = {n: (list(named[n].shape), list(w.shape)) for n, w in wanted.items() if n in named}
    return {name: (was, now) for name, (was, now) in shapes.items() if was != now}


def _implied(model: nn.Module, named: Collection[str]) -> set[str]:
    """Names that need not be there: second ones of tied parameters whose first is, or the other way round, and counts
    of batches, which older files lack.
    """
    pairs = [pair for second, first in tied(model).items() for pair in ((second, first), (first, second))]
    counts = {name for name, _ in model.named_buffers() if name.rpartition(".")[2] == "num_batches_tracked"}
    return {one for one, other in pairs if other in named} | counts


def _statistics(model: nn.Module) -> set[str]:
    """What was of BatchNorm layers that another normalisation took the place of: it goes by none of these."""
    converted = [name for name, module in model.named_modules() if hasattr(module, ORIGIN)]
    return {f"{name}.{of}" for name in converted for of in ("running_mean", "running_var", "num_batches_tracked")}


def _complete(source: str, wanted: Sequence[str], missing: Collection[str], there: Collection[str]) -> None:
    if missing:
        lacking = few([name for name in wanted if name in missing])
        raise Mistake(
            f"{KEY}: {source} does not fit the model: it lacks {lacking}, and has {few(sorted(there)) or 'nothing'}; "
            "name the model that these weights were made with, or say in pretrain.prefix what their names begin with"
        )


def _same_shapes(source: str, differing: Mapping[str, tuple[list[int], list[int]]]) -> None:
    if differing:
        shown = few([f"{name} is {was} there and {now} in the model" for name, (was, now) in differing.items()])
        raise Mistake(
            f"{KEY}: {source} does not fit the model: {shown}; give [model] the sizes that these were made with"
        )


def _same_model(source: str, over: Collection[str], wanted: Collection[str]) -> None:
    """What is left over lies in no part that the model has."""
    parts = {name.partition(".")[0] for name in wanted if "." in name}
    inside = sorted(name for name in over if name.partition(".")[0] in parts)
    if inside:
        raise Mistake(
            f"{KEY}: {source} does not fit the model, which has no {few(inside)}; name the model that these weights "
            "were made with, or leave such names out with pretrain.skip"
        )


def _usable(source: str, taken: Mapping[str, Tensor]) -> None:
    if not taken:
        raise Mistake(f"{KEY}: nothing of the model would come from {source}; name other weights, or none")
    broken = [name for name, value in taken.items() if value.is_floating_point() and not bool(value.isfinite().all())]
    if broken:
        raise Mistake(f"{KEY}: {source} has values in {few(broken)} that are not finite; take other weights")
