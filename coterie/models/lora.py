"""Low-rank adapters: of a layer with the weight W, only two small factors A and B are trained.

    W' = W + (alpha / rank) B A,    A [rank, in], B [out, rank]

W is frozen, so neither it nor anything else that is frozen travels. Of the two factors one starts at random and the
other at zero, as in `peft`: the start is the model as it was, bit for bit.

A layer with an adapter keeps its class, as a derived one, and its names; the factors are its further parameters
`lora_A` and `lora_B`. Its attribute `weight` is W', so code that reads it gets what the forward uses: so does
`nn.MultiheadAttention`, which never calls its output layer. Layers with a forward of PyTorch's do not build W': they
add the adapter's output to their own.

Averages over clients. The mean of the products B_i A_i is not the product of the means:

    mean_i(B_i A_i) = mean(B) mean(A) + mean_i((B_i - mean B) (A_i - mean A))

`aggregate = "factors"` leaves the last term out, as most federations with adapters do. It is 0 where clients agree, and
grows with the square of how far they part. `aggregate = "exact"` freezes the factor that starts at random, the same
for all clients. Then every B_i A_i has the same A, the term is 0, and half as many numbers travel. This is FFA-LoRA.
FedEx-LoRA keeps both factors and adds the term to W instead; W then moves, and the server sends every client a dense
matrix, or the factors of all clients, in every round. We do not.

Hu, Shen, Wallis, Allen-Zhu, Li, Wang, Wang, Chen: LoRA: Low-Rank Adaptation of Large Language Models, ICLR 2022.
Sun, Li, Li, Ding: Improving LoRA in Privacy-preserving Federated Learning, ICLR 2024 (FFA-LoRA).
Singhal, Ponkshe, Vepakomma: FedEx-LoRA: Exact Aggregation for Federated and Efficient Fine-Tuning of Large Language
Models, ACL 2025.

>>> model = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 3))
>>> _ = add_adapters(model, rank=2)
>>> [name for name, p in model.named_parameters() if p.requires_grad]
['0.lora_A', '0.lora_B', '2.weight', '2.bias']
>>> sorted(merge_values(model, model.state_dict()))
['0.bias', '0.weight', '2.bias', '2.weight']
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import torch
from torch import Tensor, nn

from coterie.core import rng
from coterie.core.errors import require
from coterie.core.kind_checks import describe_kind, is_of_kind
from coterie.core.kinds import Count, NonNegativeInt, Positive
from coterie.models.lora_layers import A, B, Kind, kind_of
from coterie.models.lora_targets import find_targets
from coterie.models.model_parts import head_names

RANK, ALPHA = 8, 8.0
"""The usual rank and alpha, those of `peft`."""


def add_adapters(
    model: nn.Module,
    *,
    rank: Count | None = None,
    alpha: Positive | None = None,
    targets: list[str] | None = None,
    aggregate: Literal["factors", "exact"] = "factors",
    rng_seed: NonNegativeInt = 0,
) -> nn.Module:
    """Add adapters to layers of a model, in place, freeze all of it but the adapters and the head, and return it.

    Parts of the head that are frozen already stay so. What else was trained, biases and normalisation layers among
    it, is frozen.

    Args:
        model: the model.
        rank: the number of rows of A; 8 unless given.
        alpha: the adapter's output is multiplied by alpha / rank; 8 unless given.
        targets: which layers get one: their names, the ends of their names after a dot, or patterns with * and ?.
            Unless given, all linear layers but the head; where there are none, all convolutions but the head.
        aggregate: "factors": both factors are trained, and averaged apart. "exact": the one that starts at random is
            frozen, so that the average is that of the clients' weights.
        rng_seed: the random factors follow from it and the layers' names.

    Raises:
        Mistake: the model has adapters, a target names no layer, or one that cannot have an adapter.
    """
    given: dict[str, tuple[object, Any]] = {
        "rank": (rank, Count | None),
        "alpha": (alpha, Positive | None),
        "aggregate": (aggregate, Literal["factors", "exact"]),
        "rng_seed": (rng_seed, NonNegativeInt),
    }
    for key, (value, kind) in given.items():
        require(key, value, is_of_kind(value, kind), describe_kind(kind))
    is_list = targets is None or (isinstance(targets, list | tuple) and all(isinstance(each, str) for each in targets))
    require("targets", targets, is_list, "a list, of names of layers")
    require("model", type(model).__name__, not find_adapters(model), "a model without adapters")
    head = {name for name, p in model.named_parameters() if p.requires_grad} & head_names(model)
    layers = find_targets(model, targets)
    model.requires_grad_(False)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name in head and name.rpartition(".")[0] not in layers)
    scale = (ALPHA if alpha is None else float(alpha)) / (rank or RANK)
    for name in layers:
        layer = model.get_submodule(name)
        _adapt(layer, kind_of(layer), rank or RANK, scale, aggregate, rng.generator(rng_seed, "lora", name))
    return model


def _adapt(layer: nn.Module, kind: Kind, rank: int, scale: float, aggregate: str, generator: torch.Generator) -> None:
    """Give one layer its factors, and a class derived from its own."""
    weight: Tensor = layer._parameters["weight"]  # type: ignore[assignment]
    shapes = kind.shapes(weight, rank)
    factors = {name: torch.zeros(shape) for name, shape in shapes.items()}
    if kind.starts_at_random == A:
        nn.init.kaiming_uniform_(factors[A], a=5**0.5, generator=generator)
    else:
        nn.init.normal_(factors[B], generator=generator)
    for name, value in factors.items():
        trained = aggregate == "factors" or name != kind.starts_at_random
        layer.register_parameter(name, nn.Parameter(value.to(weight.device, weight.dtype), requires_grad=trained))
    layer.lora_scale = scale  # type: ignore[assignment]
    own = type(layer)
    layer.__class__ = type(own.__name__, (own,), kind.members(layer) | {"before_lora": own, "lora_kind": kind})


def find_adapters(model: nn.Module) -> dict[str, Any]:
    """Return the layers that have an adapter, by name; a layer with several names has all of them here."""
    return {name: m for name, m in model.named_modules(remove_duplicate=False) if hasattr(type(m), "lora_kind")}


def merge_values(model: nn.Module, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return weights with the adapters merged, under the names that the model had before it got them.

    Args:
        model: the model with adapters; its own weights do not matter. One without adapters changes nothing.
        weights: by the names of its `state_dict`.
    """
    merged = dict(weights)
    for name, layer in find_adapters(model).items():
        dot = f"{name}." if name else ""
        a, b = merged.pop(f"{dot}{A}"), merged.pop(f"{dot}{B}")
        weight = merged[f"{dot}weight"]
        merged[f"{dot}weight"] = weight + layer.lora_scale * layer.lora_kind.product(a, b).reshape(weight.shape)
    return merged


def merge_adapters(model: nn.Module) -> nn.Module:
    """Merge the adapters of a model into its weights, in place; return it as the model that it was before it got them.

    What is frozen stays frozen.

    >>> model = add_adapters(nn.Sequential(nn.Linear(4, 6), nn.Linear(6, 3)))
    >>> [name for name, _ in merge_adapters(model).named_parameters()]
    ['0.weight', '0.bias', '1.weight', '1.bias']
    """
    for layer in set(find_adapters(model).values()):
        merged = layer.weight.detach()
        layer.__class__ = type(layer).before_lora
        layer._parameters["weight"].data = merged
        for name in (A, B):
            delattr(layer, name)
        del layer.lora_scale
    return model
