"""Refuse models that cannot be trained as pure functions, before anything is computed with them."""

from __future__ import annotations

import copy
from collections.abc import Iterator

import torch
from torch import nn

from coterie.core.errors import UNSET, Mistake, reason
from coterie.models.rewritten_layers import find_obstacles
from coterie.models.shape_checks import require_known_sizes

CLASS_AXIS = "class_axis"
"""The attribute by which a model says which dimension of its outputs holds the classes: -1, the last, or 1."""


def require_usable_model(model: object, key: str, value: object = UNSET) -> None:
    """Refuse anything but a module, and a module that cannot be copied, called with other weights, or trained.

    Args:
        model: the model.
        key: the argument that gave it, and its `value`, for messages.

    Raises:
        Mistake: the model cannot be used; the sentence says what to change.
    """
    problem = _wrong_type(model)
    if problem is None:
        assert isinstance(model, nn.Module)
        require_known_sizes(model, key, value)
        problem = next(_problems(model), None)
    if problem is not None:
        raise Mistake(problem, key=key, value=value)


def _wrong_type(model: object) -> str | None:
    """Return why a value cannot be used as a module; None where it can."""
    if isinstance(model, type) and issubclass(model, nn.Module):
        return f"{model.__name__} is a class; give a module made from it, {model.__name__}(...)"
    if not isinstance(model, nn.Module):
        return f"it is of type {type(model).__name__}; it must be a torch.nn.Module"
    return None


def _problems(model: nn.Module) -> Iterator[str]:
    """Yield why a module cannot be trained here, a sentence each."""
    for name, module in model.named_modules():
        where = f"its layer {name}" if name else "it"
        if isinstance(module, torch.jit.ScriptModule):
            yield f"{where} is compiled by torch.jit, which fixes its weights; give the module that it was made from"
        if isinstance(module, nn.DataParallel | nn.parallel.DistributedDataParallel):
            yield f"{where} is a torch.nn.{type(module).__name__}; give the module inside, its attribute module"
        if getattr(module, "sparse", False) is True and isinstance(module, nn.Embedding | nn.EmbeddingBag):
            yield f"{where} gives sparse gradients, which cannot be sent; leave out sparse=True"
        if getattr(module, "max_norm", None) is not None and isinstance(module, nn.Embedding | nn.EmbeddingBag):
            yield f"{where} writes into its weights in every forward; leave out max_norm, and set `clip_norm` instead"
    for name, value in (*model.named_parameters(), *model.named_buffers()):
        if value.is_complex():
            yield (
                f"{name} holds complex numbers, and their imaginary parts would be lost; hold real and imaginary "
                "parts as real numbers (torch.view_as_real), and join them in the forward (torch.view_as_complex)"
            )
    yield from find_obstacles(model)
    if not any(parameter.requires_grad for parameter in model.parameters()):
        frozen = any(True for _ in model.parameters())
        yield f"nothing in it can be trained: {'all its parameters are frozen' if frozen else 'it has no parameters'}"
    if getattr(model, CLASS_AXIS, None) not in (None, -1, 1):
        yield f"its {CLASS_AXIS} is {getattr(model, CLASS_AXIS)!r}; it must be -1, the last dimension, or 1"
    yield from _copying_problem(model)


def _copying_problem(model: nn.Module) -> Iterator[str]:
    """Yield why a module cannot be copied, if it cannot. Every client trains a copy."""
    for name, module in model.named_modules():
        for attribute, value in vars(module).items():
            if isinstance(value, torch.Tensor) and not value.is_leaf:
                full = f"{name}.{attribute}" if name else attribute
                yield (
                    f"its attribute {full} is computed from its weights and cannot be copied; compute it in the "
                    "forward, use torch.nn.utils.parametrizations instead of torch.nn.utils.weight_norm, or end a "
                    "pruning with torch.nn.utils.prune.remove"
                )
    try:
        copy.deepcopy(model)
    except Exception as error:  # anything that its attributes raise
        yield f"it cannot be copied ({reason(error)}), and every client trains a copy; change the attribute that fails"
