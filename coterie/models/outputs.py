"""Models that return more than one tensor: which of them are the outputs.

>>> import torch
>>> x = torch.zeros(1)
>>> main_output({"logits": x, "hidden": None}, None) is x, main_output((None, x), 1) is x
(True, True)
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from coterie.core.errors import Mistake, few
from coterie.models.library_adapter import adapt

LOGITS = "logits"
"""The entry that is taken unless another is named."""


def main_output(result: Any, which: str | int | None) -> Tensor:
    """Return the outputs in what a forward has returned.

    Args:
        result: a tensor; a tuple, a dict, or an object with attributes, such as the outputs of Hugging Face's models.
        which: the entry's place or name. None: the tensor itself, the entry "logits", or the only tensor that there is.

    Raises:
        Mistake: there is no such entry, or several could be meant.
    """
    if isinstance(result, Tensor) and which is None:
        return result
    entries = _entries(result)
    tensors = {key: value for key, value in entries.items() if isinstance(value, Tensor)}
    known = few([repr(key) for key in tensors]) or "no tensors"
    if which is None:
        chosen = LOGITS if LOGITS in tensors else next(iter(tensors), None) if len(tensors) == 1 else None
        if chosen is None:
            raise Mistake(
                f"its forward returns a {type(result).__name__} with {known}; say with `outputs` which of them holds a "
                "score for each class, or let the model return that tensor alone"
            )
        return tensors[chosen]
    if which not in tensors:
        raise Mistake(f"its forward returns a {type(result).__name__} with {known}", key="outputs", value=which)
    return tensors[which]


def _entries(result: Any) -> dict[str | int, Any]:
    """Return what a forward has returned by name or place."""
    if isinstance(result, Mapping):
        return dict(result)
    if isinstance(result, tuple) and hasattr(result, "_fields"):
        return dict(zip(result._fields, result, strict=True)) | dict(enumerate(result))
    if isinstance(result, list | tuple):
        return dict(enumerate(result))
    return {} if isinstance(result, Tensor) else dict(getattr(result, "__dict__", {}))


def take_output(model: nn.Module, which: str | int | None) -> None:
    """Let a model's forward return its outputs alone, in place; see `main_output`."""
    adapt(model, lambda forward, self, x: main_output(forward(x), which))
