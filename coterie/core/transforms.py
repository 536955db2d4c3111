"""Codecs: how an update is encoded into the payload that travels, and decoded at the server.

A transform is one step, a small (init, encode, decode) value after optax; `chain` makes one codec of several.
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
    """One step between an update and its payload.

    Attributes:
        encode: (update, state, key) -> (payload, new state), at the client. `key` (int64 []) is for random transforms.
        decode: payload -> update, at the server.
        init: update -> the client's first state, which it keeps between rounds, such as an error feedback; an empty
            tree if it keeps none.
        rounding: how far a number from 0 to 1 may lie from itself after `encode` and `decode`; None if that is unknown
            or without a limit. The server needs it to judge what it decodes.
        problem: payload -> why it cannot be decoded, in a few words; None if it can. The server asks after it has
            checked the payload's structure, shapes, types and finite numbers.
        sparse: whether only some of an update's numbers travel in a round, and the others arrive as 0. Only a mean
            makes sense of such updates.
    """

    encode: Callable[[Tree, Tree, Tensor], tuple[Tree, Tree]]
    decode: Callable[[Tree], Tree] = lambda payload: payload
    init: Callable[[Tree], Tree] = lambda update: {}
    rounding: float | None = None
    problem: Callable[[Tree], str | None] = lambda payload: None
    sparse: bool = False


def identity() -> Transform:
    """Return a transform that sends updates unchanged."""
    return Transform(lambda update, state, key: (update, state), rounding=0.0)


def chain(*transforms: Transform) -> Transform:
    """Return a transform that applies `transforms` from left to right, and undoes them from right to left.

    The state of the k-th one is kept under the name k. It is made from the first update as the transforms before have
    encoded it.
    """

    def encode_in_turn(update: Tree, state: Tree, key: Tensor) -> tuple[Tree, Tree]:
        """Return the update after each transform's `encode` in turn, and their states under their numbers."""
        after = {}
        for k, transform in enumerate(transforms):
            before = state.get(str(k)) or transform.init(update)
            update, after[str(k)] = transform.encode(update, before, rng.fold(key, k))
        return update, after if any(after.values()) else {}

    def decode_backwards(payload: Tree) -> Tree:
        """Return the payload after each transform's `decode`, last to first."""
        for transform in reversed(transforms):
            payload = transform.decode(payload)
        return payload

    def first_problem(payload: Tree) -> str | None:
        """Return what the last transform whose payload is wrong says; None if all can be decoded."""
        for transform in reversed(transforms):
            wrong = transform.problem(payload)
            if wrong is not None:
                return wrong
            payload = transform.decode(payload)
        return None

    each = [transform.rounding for transform in transforms]
    known = [rounding for rounding in each if rounding is not None]
    return Transform(
        encode_in_turn,
        decode_backwards,
        rounding=sum(known) if len(known) == len(each) else None,
        problem=first_problem,
        sparse=any(transform.sparse for transform in transforms),
    )


def clip(limit: float) -> Transform:
    """Return a transform that scales updates down to the Euclidean norm `limit` > 0 over all leaves, if they exceed it.

    Raises:
        Mistake: the limit is not a number above 0.
    """
    if not 0 < limit < float("inf"):
        raise Mistake(key="limit", value=limit, allowed="a number above 0")

    def scale_down(update: Tree, state: Tree, key: Tensor) -> tuple[Tree, Tree]:
        factor = (limit / tree.norm(update).clamp(min=limit)).clamp(max=1.0)
        return tree.scale(update, factor), state

    return Transform(scale_down)


def cast(dtype: torch.dtype, back: torch.dtype = torch.float32) -> Transform:
    """Return a transform that sends floats as `dtype`, clamped to its range, and decodes them as `back`.

    torch.float16 halves the bytes. Numbers that are not finite stay so: the server must refuse an update that diverged,
    and not take it for a large one.
    """
    limit = torch.finfo(dtype).max

    def narrow(x: Tensor) -> Tensor:
        """Return a float tensor cast to `dtype` and clamped to its range; other tensors unchanged."""
        if not x.is_floating_point():
            return x
        most = min(limit, torch.finfo(x.dtype).max)
        return x.clamp(-most, most).where(x.isfinite(), x).to(dtype)

    def narrow_floats(update: Tree, state: Tree, key: Tensor) -> tuple[Tree, Tree]:
        return tree.map(narrow, update), state

    return Transform(
        narrow_floats,
        lambda payload: tree.map(lambda x: x.to(back) if x.is_floating_point() else x, payload),
        rounding=max(torch.finfo(dtype).eps, torch.finfo(back).eps),
    )


def eight_bits() -> Transform:
    """Return a transform that sends floats from 0 to 1, such as posteriors, as one byte each; they lose 1/510 at most.

    A leaf that is not finite, or outside [0, 1] by more than rounding, is sent unchanged. The server refuses it for its
    type.
    """

    def floats_to_bytes(update: Tree, state: Tree, key: Tensor) -> tuple[Tree, Tree]:
        return tree.map(_to_bytes, update), state

    return Transform(
        floats_to_bytes,
        lambda payload: tree.map(lambda x: x / 255 if x.dtype == torch.uint8 else x, payload),
        rounding=1 / 500,  # 1/510, and the rounding of floats
    )


def _to_bytes(x: Tensor) -> Tensor:
    """Return numbers from 0 to 1 in 256 steps, one byte each; x itself if some lie outside."""
    fits = x.is_floating_point() and bool(((x >= -1e-6) & (x <= 1 + 1e-6)).all())  # a comparison with nan is false
    return (x * 255).round().clamp(0, 255).to(torch.uint8) if fits else x
