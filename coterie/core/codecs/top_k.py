"""A codec that sends the largest entries of an update, and keeps the rest for the client's next rounds.

    wanted = update + residual;  sent = the k entries of `wanted` with the largest magnitudes;  residual = wanted - sent

So the sum of what a client has sent, plus its residual, is the sum of its updates (error feedback): nothing is lost,
only late. The k entries are chosen among all numbers of the tree together, so that k follows from the shapes alone.

Stich, Cordonnier, Jaggi: Sparsified SGD with memory, NeurIPS 2018, Algorithm 1.

Legend: d numbers of the tree, k of them that travel.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from coterie.core import tree
from coterie.core.errors import Mistake, require
from coterie.core.transforms import Transform
from coterie.core.tree import Tree

MAX_NUMBERS = 2**31 - 1
"""How many numbers of a tree an int32 can tell apart."""


def top_k(share: float) -> Transform:
    """Return a transform that sends the largest entries, a share of all, and keeps what it did not send.

    The payload holds "values" [k], "places" (int32 [k], increasing, in the tree's numbers one after another), and
    "shapes": for each leaf an empty tensor [0, *shape] of its type, from which the server makes the leaf again. It
    judges them against those of an honest payload, like every shape. k is `share` times d, rounded up.

    Raises:
        Mistake: the share is not above 0 and at most 1; from `encode`, the update holds whole numbers, or more than
            2^31 - 1 numbers.
    """
    require("share", share, 0 < share <= 1, "above 0 and at most 1")

    def init(update: Tree) -> Tree:
        return {"residual": torch.zeros_like(_as_vector(update))}

    def encode(update: Tree, state: Tree, key: Tensor) -> tuple[Tree, Tree]:
        wanted = _as_vector(update) + state["residual"]
        places = _largest(wanted, math.ceil(share * len(wanted)))
        values = wanted[places]
        residual = wanted.index_fill(0, places, 0.0)
        shapes = tree.map(lambda x: x.new_empty((0, *x.shape)), update)
        return {"values": values, "places": places.to(torch.int32), "shapes": shapes}, {"residual": residual}

    return Transform(encode, _decode, init, problem=_problem, sparse=True)


def _as_vector(update: Tree) -> Tensor:
    """Return all numbers of a tree, leaf after leaf [d]."""
    leaves = tree.leaves(update)
    if not all(leaf.is_floating_point() for leaf in leaves):
        raise Mistake("the codec top_k sends floats, and this update holds whole numbers as well; choose another codec")
    vector = torch.cat([leaf.reshape(-1) for leaf in leaves]) if leaves else torch.zeros(0)
    if len(vector) > MAX_NUMBERS:
        raise Mistake(f"the codec top_k tells up to {MAX_NUMBERS:,} numbers apart; choose another codec")
    return vector


def _largest(vector: Tensor, k: int) -> Tensor:
    """Return the places of the k entries with the largest magnitudes, increasing, int64 [k]; of equals the first ones.

    `torch.topk` alone does not say which of several equals it takes, and the same run must send the same entries.
    """
    if k == 0:
        return torch.zeros(0, dtype=torch.int64, device=vector.device)
    size = vector.abs().nan_to_num(nan=math.inf, posinf=math.inf)
    least = size.topk(k, sorted=False).values.min()
    above, equal = (size > least).nonzero()[:, 0], (size == least).nonzero()[:, 0]
    return torch.cat([above, equal[: k - len(above)]]).sort().values


def _sizes(shapes: Tree) -> list[int]:
    """Return how many numbers each leaf has."""
    return [math.prod(leaf.shape[1:]) for leaf in tree.leaves(shapes)]


def _decode(payload: Tree) -> Tree:
    sizes = _sizes(payload["shapes"])
    vector = payload["values"].new_zeros(sum(sizes))
    vector[payload["places"].long()] = payload["values"]
    parts = iter(vector.split(sizes))
    return tree.map(lambda like: next(parts).reshape(like.shape[1:]).to(like.dtype), payload["shapes"])


def _problem(payload: Tree) -> str | None:
    """Return what is wrong with the places of a payload."""
    places, d = payload["places"], sum(_sizes(payload["shapes"]))
    if len(places) and not (int(places[0]) >= 0 and int(places[-1]) < d):
        return "names places that the model does not have"
    return None if _increase(places) else "names places twice or in another order"


def _increase(places: Tensor) -> bool:
    """Return whether each place is above the one before."""
    return bool((places[1:] > places[:-1]).all())
