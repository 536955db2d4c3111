"""model.safetensors: a model's weights in a file that the model itself can load."""

from __future__ import annotations

from collections.abc import Mapping

import safetensors.torch
from torch import Tensor, nn


def pack_weights(model: nn.Module, weights: Mapping[str, Tensor], name: str | None = None, part: bool = False) -> bytes:
    """Return weights as the bytes of a safetensors file, under exactly the names of the model's `state_dict`.

    The same weights always give the same bytes.

    Args:
        model: the architecture; its own weights do not matter.
        weights: parameters and buffers by name. Tied parameters need only one name; the file has them under each.
        name: the file's metadata hold it under "model", where there are several models.
        part: whether `weights` may lack some names, such as a classifier's; the file then lacks them too.
    """
    sources = {name: source for name, source in _state_dict_sources(model).items() if not part or source in weights}
    tensors = {name: weights[source].detach().cpu().contiguous().clone() for name, source in sources.items()}
    metadata = {"format": "pt"} if name is None else {"model": name}
    return safetensors.torch.save(tensors, metadata)  # one key: with more, their order in the file is random


def _state_dict_sources(model: nn.Module) -> dict[str, str]:
    """Map each name of the state_dict to the one name under which `named_parameters` or `named_buffers` lists it."""
    saved = {name: value for name, value in model.state_dict(keep_vars=True).items() if isinstance(value, Tensor)}
    listed = [*model.named_parameters(), *model.named_buffers()]
    first = {id(value): name for name, value in reversed(listed) if name in saved}
    return {name: first[id(value)] for name, value in saved.items()}
