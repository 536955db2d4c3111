"""The layers that can have a low-rank adapter, and how each computes with it: see `coterie.models.lora`.

Legend: r rank, in and out the numbers of a layer's inputs and outputs, k the kernel.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F

A, B = "lora_A", "lora_B"
"""The names of the factors, in the layer and so in the model's `state_dict`."""

CONVOLUTIONS = {nn.Conv1d: F.conv1d, nn.Conv2d: F.conv2d, nn.Conv3d: F.conv3d}


@dataclass(frozen=True)
class Kind:
    """How one kind of layer has an adapter.

    Attributes:
        name: in words.
        forward: the layer's forward with its adapter, where its own forward is the one that `of` tells.
        of: whether a layer's forward is the one that `forward` extends.
        factors: the weight, r -> the shapes of A and B.
        product: (A, B) -> B A as numbers in the order of the weight's.
        starts_at_random: the factor that does; the other starts at zero.
        in_file: what `peft` calls A and B in its files.
    """

    name: str
    forward: Callable[[Any, Tensor], Tensor]
    of: Callable[[nn.Module], bool]
    factors: Callable[[Tensor, int], tuple[tuple[int, ...], tuple[int, ...]]]
    product: Callable[[Tensor, Tensor], Tensor]
    starts_at_random: str = A
    in_file: tuple[str, str] = ("lora_A.weight", "lora_B.weight")

    def shapes(self, weight: Tensor, rank: int) -> dict[str, tuple[int, ...]]:
        """Return the shapes of the factors for a layer's weight, by name."""
        return dict(zip((A, B), self.factors(weight, rank), strict=True))

    def members(self, layer: nn.Module) -> dict[str, Any]:
        """Return what the derived class of a layer has: its weight with the adapter, and where it fits, a forward."""
        own = type(layer)
        members: dict[str, Any] = {"weight": property(merge_weight), "__module__": own.__module__}
        return members | ({"forward": self.forward} if self.of(layer) else {})


def merge_weight(layer: Any) -> Tensor:
    """Return the layer's weight with its adapter, W + scale B A."""
    weight: Tensor = layer._parameters["weight"]
    product: Tensor = layer.lora_kind.product(layer.lora_A, layer.lora_B)
    return _plus(weight, layer.lora_scale, product.reshape(weight.shape))


def _plus(own: Tensor, scale: float, adapters: Tensor) -> Tensor:
    """Return what the layer has, plus what its adapter has times alpha / rank."""
    return own + scale * adapters


def _linear(self: Any, x: Tensor) -> Tensor:  # [B, ..., in] -> [B, ..., out]
    """Return the layer's outputs plus the adapter's."""
    own = F.linear(x, self._parameters["weight"], self.bias)
    return _plus(own, self.lora_scale, F.linear(F.linear(x, self.lora_A), self.lora_B))


def _linear_transposed(self: Any, x: Tensor) -> Tensor:  # [B, ..., in] -> [B, ..., out]
    """Return the same for a layer whose weight is [in, out]."""
    own = F.linear(x, self._parameters["weight"].T, self.bias)
    return _plus(own, self.lora_scale, F.linear(F.linear(x, self.lora_A), self.lora_B))


def _embedding(self: Any, x: Tensor) -> Tensor:  # [B, ...] -> [B, ..., out]
    """Return the entries of the table plus the adapter's."""
    own = F.embedding(x, self._parameters["weight"], self.padding_idx)
    return _plus(own, self.lora_scale, F.linear(F.embedding(x, self.lora_A.T, self.padding_idx), self.lora_B))


def _convolution(self: Any, x: Tensor) -> Tensor:  # [B, in, ...] -> [B, out, ...]
    """Return the layer's outputs plus the adapter's: A is a convolution like the layer's, B one with a kernel of 1."""
    own = self._conv_forward(x, self._parameters["weight"], self.bias)
    convolve = CONVOLUTIONS[next(kind for kind in CONVOLUTIONS if isinstance(self, kind))]
    return _plus(own, self.lora_scale, convolve(self._conv_forward(x, self.lora_A, None), self.lora_B))


def _has_forward_of(*kinds: type[nn.Module]) -> Callable[[nn.Module], bool]:
    return lambda layer: any(type(layer).forward is kind.forward for kind in kinds)


LINEAR = Kind(
    "linear",
    _linear,
    _has_forward_of(nn.Linear),
    lambda w, r: ((r, w.shape[1]), (w.shape[0], r)),
    lambda a, b: b @ a,
)
TRANSPOSED_LINEAR = Kind(
    "linear",
    _linear_transposed,
    lambda layer: True,  # the only one of its class
    lambda w, r: ((r, w.shape[0]), (w.shape[1], r)),
    lambda a, b: (b @ a).T,
)
EMBEDDING = Kind(
    "embedding",
    _embedding,
    _has_forward_of(nn.Embedding),
    lambda w, r: ((r, w.shape[0]), (w.shape[1], r)),
    lambda a, b: (b @ a).T,
    starts_at_random=B,
    in_file=("lora_embedding_A", "lora_embedding_B"),
)
CONVOLUTION = Kind(
    "convolution",
    _convolution,
    _has_forward_of(*CONVOLUTIONS),
    lambda w, r: ((r, *w.shape[1:]), (w.shape[0], r, *[1] * (w.dim() - 2))),
    lambda a, b: b.flatten(1) @ a.flatten(1),
)


def find_kind(layer: nn.Module) -> Kind | None:
    """Return which kind a layer is; None for one that cannot have an adapter."""
    if layer._parameters.get("weight") is None:  # it has none, or computes it from others
        return None
    if isinstance(layer, nn.Linear):
        return LINEAR
    if isinstance(layer, nn.Embedding):
        return EMBEDDING
    if isinstance(layer, tuple(CONVOLUTIONS)):
        return CONVOLUTION if layer.groups == 1 else None
    own = type(layer)
    return TRANSPOSED_LINEAR if (own.__name__, own.__module__.partition(".")[0]) == ("Conv1D", "transformers") else None


def kind_of(layer: nn.Module) -> Kind:
    """Return the kind of a layer that can have an adapter."""
    kind = find_kind(layer)
    assert kind is not None, "targets are layers that can have an adapter"
    return kind
