"""A model's weights as a safetensors file that the model itself can load."""

from __future__ import annotations

from collections.abc import Mapping

import safetensors.torch
from torch import Tensor, nn


def packed(model: nn.Module, weights: Mapping[str, Tensor], name: str | None = None, part: bool = False) -> bytes:
    """The file: exactly the names of the model's `state_dict`, and the same bytes for the same weights.

    Args:
        model: the architecture; its own weights do not matter.
        weights: parameters and buffers by name. Of tied parameters, one name is enough: the file has them under each.
        name: what the file's metadata say under "model", where there are several.
        part: whether `weights` may lack some, such as a classifier's; the file then lacks them too.
    """
    sources = {name: source for name, source in _sources(model).items() if not part or source in weights}
    named = {name: weights[source].detach().cpu().contiguous().clone() for name, source in sources.items()}
    about = {"format": "pt"} if name is None else {"model": name}
    return safetensors.torch.save(named, about)  # one key: with more, their order in the file is random


def _sources(model: nn.Module) -> dict[str, str]:
    """For each name of the state_dict the name under which a parameter, or a buffer, is listed once."""
    saved = {name: value for name, value in model.state_dict(keep_vars=True).items() if isinstance(value, Tensor)}
    listed = [*model.named_parameters(), *model.named_buffers()]
    first = {id(value): name for name, value in reversed(listed) if name in saved}
    return {name: first[id(value)] for name, value in saved.items()}
