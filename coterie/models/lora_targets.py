"""Which layers of a model get an adapter: see `coterie.models.lora`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from difflib import get_close_matches
from fnmatch import fnmatchcase

from torch import nn

from coterie.core.errors import Mistake, few
from coterie.models.lora_layers import CONVOLUTION, Kind, find_kind
from coterie.models.model_parts import head_names

CAN = "linear layers, embeddings, and convolutions without groups"


def find_targets(model: nn.Module, targets: Sequence[str] | None) -> list[str]:
    """Return the names of the layers that targets name, in the order of the model.

    Raises:
        Mistake: one of them names no layer, or only layers that cannot have an adapter.
    """
    modules = {name: module for name, module in model.named_modules() if name}
    able = {name: kind for name, module in modules.items() if (kind := find_kind(module)) is not None}
    tied = _tied(model)
    if targets is None:
        chosen = _usual(model, {name: kind for name, kind in able.items() if name not in tied})
        if not chosen:
            raise Mistake(
                f"no layer of the model can have an adapter: they are for {CAN}, and the head is trained as it is",
                key="adapter",
                value="lora",
            )
        return chosen
    shown = list(targets)
    for target in targets:
        found = [name for name in modules if _is_meant(name, target)]
        if not found:
            near = get_close_matches(target, [*able, *(name.rpartition(".")[2] for name in able)], n=3)
            hint = f"did you mean {' or '.join(dict.fromkeys(near))}?" if near else f"there are {few(list(able), 6)}"
            raise Mistake(f'the model has no layer "{target}"; {hint}', key="targets", value=shown)
        if not any(name in able for name in found):
            what = type(modules[found[0]]).__name__
            raise Mistake(f"{found[0]} is a {what}; adapters are for {CAN}", key="targets", value=shown)
    chosen = [name for name in able if any(_is_meant(name, target) for target in targets)]
    if not chosen:
        raise Mistake("name at least one layer, or leave it out", key="targets", value=shown)
    shared = next((name for name in chosen if name in tied), None)
    if shared is not None:
        raise Mistake(
            f"{shared} shares its weight with another layer, which would go without its adapter; leave it out",
            key="targets",
            value=shown,
        )
    return chosen


def _usual(model: nn.Module, able: dict[str, Kind]) -> list[str]:
    """Return the layers that get an adapter where none are named."""
    head = {name.rpartition(".")[0] for name in head_names(model)}
    body = {name: kind for name, kind in able.items() if name not in head}
    linear = [name for name, kind in body.items() if kind.name == "linear"]
    return linear or [name for name, kind in body.items() if kind is CONVOLUTION]


def _is_meant(name: str, target: str) -> bool:
    """Return whether a target names a layer: by its name, by the end of it after a dot, or by a pattern."""
    return name == target or name.endswith(f".{target}") or fnmatchcase(name, target)


def _tied(model: nn.Module) -> Collection[str]:
    """Return the names of modules whose weight is another module's too."""
    weights = {name: m._parameters.get("weight") for name, m in model.named_modules()}
    holders = Counter(id(weight) for weight in weights.values() if weight is not None)
    return {name for name, weight in weights.items() if weight is not None and holders[id(weight)] > 1}
