"""Trees as bytes, for a disk or a network."""

from __future__ import annotations

import json

import safetensors.torch
from torch import Tensor

from coterie.core import tree
from coterie.core.tree import Tree


def pack(state: Tree) -> bytes:
    """Return a tree as safetensors, with its structure in the metadata.

    The format itself keeps neither branches without leaves nor the order of names, in which sums over leaves are taken.
    """
    seen: set[int] = set()
    flat = {name: _alone_on_host(leaf, seen) for name, leaf in tree.flatten(state).items()}
    return safetensors.torch.save(flat, {"structure": json.dumps(tree.structure(state))})


def _alone_on_host(leaf: Tensor, seen: set[int]) -> Tensor:
    """Return a leaf whose memory on the host holds nothing else: itself, or a copy. `seen`: the memory of others."""
    leaf = leaf.detach().cpu().contiguous()
    memory = leaf.untyped_storage()
    if memory.nbytes() != leaf.numel() * leaf.element_size() or memory.data_ptr() in seen:
        return leaf.clone()
    seen.add(memory.data_ptr())
    return leaf


def unpack(data: bytes) -> Tree:
    """Return the tree in bytes that `pack` made; leaves are on the host.

    Raises:
        SafetensorError: `pack` did not make these bytes.

    >>> import torch
    >>> unpack(pack({"a": {"b": torch.tensor([1, 2])}, "c": {}}))
    {'a': {'b': tensor([1, 2])}, 'c': {}}
    """
    flat = safetensors.torch.load(data)
    header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    return tree.unflatten(flat, json.loads(header["__metadata__"]["structure"]))
