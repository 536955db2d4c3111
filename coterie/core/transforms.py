"""What is done to a message before it goes on the wire, and undone after: chains of small (init, encode, decode) pairs,
after optax.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from coterie.core import rng, tree
from coterie.core.errors import Mistake
from coterie.core.tree import Tree


@dataclass(frozen=True)
class Transform:
    """One step between a message and what travels.

    Attributes:
        encode: (message, state, key) -> (wire, new state), at the sender. `key` (int64 []) is for random transforms.
        decode: wire -> message, at the receiver.
        init: message-like tree -> the sender's state, kept between rounds (an error feedback, say); an empty tree if
            none is needed.
    """

    encode: Callable[[Tree, Tree, Tensor], tuple[Tree, Tree]]
    decode: Callable[[Tree], Tree] = lambda wire: wire
    init: Callable[[Tree], Tree] = lambda message: {}


def identity() -> Transform:
    """Send the message as it is."""
    return Transform(lambda message, state, key: (message, state))


def chain(*transforms: Transform) -> Transform:
    """Apply `transforms` from left to right, and undo them from right to left; the k-th one's state is kept under k.

    A transform's state begins at its first message, since that is what the ones before it made of it.
    """

    def encode(message: Tree, state: Tree, key: Tensor) -> tuple[Tree, Tree]:
        after = {}
        for k, transform in enumerate(transforms):
            before = state.get(str(k)) or transform.init(message)
            message, after[str(k)] = transform.encode(message, before, rng.fold(key, k))
        return message, after if any(after.values()) else {}

    def decode(wire: Tree) -> Tree:
        for transform in reversed(transforms):
            wire = transform.decode(wire)
        return wire

    return Transform(encode, decode)


def clip(limit: float) -> Transform:
    """Scale a message whose Euclidean norm over all leaves exceeds `limit` > 0 down to it.

    Raises:
        Mistake: the limit is not a number above 0.
    """
    if not 0 < limit < float("inf"):
        raise Mistake(f"the clipping norm is {limit}; it must be a number above 0")

    def encode(message: Tree, state: Tree, key: Tensor) -> tuple[Tree, Tree]:
        factor = (limit / tree.norm(message).clamp(min=limit)).clamp(max=1.0)
        return tree.scale(message, factor), state

    return Transform(encode)


def cast(dtype: torch.dtype, back: torch.dtype = torch.float32) -> Transform:
    """Send floats as `dtype` (torch.float16 halves the bytes), clamped to its range, and read them as `back`.

    What is not finite stays so: an update that diverged is to be refused, not made to look like a large one.
    """
    limit = torch.finfo(dtype).max

    def narrow(x: Tensor) -> Tensor:
        return x.clamp(-limit, limit).where(x.isfinite(), x).to(dtype) if x.is_floating_point() else x

    def encode(message: Tree, state: Tree, key: Tensor) -> tuple[Tree, Tree]:
        return tree.map(narrow, message), state

    return Transform(encode, lambda wire: tree.map(lambda x: x.to(back) if x.is_floating_point() else x, wire))


def eight_bits() -> Transform:
    """Send floats from 0 to 1, such as posteriors, in 256 steps: a byte each, off by 1/510 at most.

    A leaf that is not finite, or outside of [0, 1] by more than rounding, is sent as it is, which the server refuses
    for its type.
    """

    def encode(message: Tree, state: Tree, key: Tensor) -> tuple[Tree, Tree]:
        return tree.map(_as_byte, message), state

    return Transform(encode, lambda wire: tree.map(lambda x: x / 255 if x.dtype == torch.uint8 else x, wire))


def _as_byte(x: Tensor) -> Tensor:
    fits = x.is_floating_point() and bool(((x >= -1e-6) & (x <= 1 + 1e-6)).all())  # a comparison with nan is false
    return (x * 255).round().clamp(0, 255).to(torch.uint8) if fits else x
