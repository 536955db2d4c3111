"""Gaussian noise that nobody can take away again who does not know the key.

It is drawn by `coterie.core.secret_draws`.

A float is not a real number: an attacker who sees every last bit of a noisy sum can learn a little from which numbers
are possible (Mironov: On Significance of the Least Significant Bits for Differential Privacy, CCS 2012). The noise is
added in float64 and the result rounded to the model's type, which hides most of these bits; nothing is proved about the
rest.
"""

from __future__ import annotations

from coterie.core import tree
from coterie.core.secret_draws import gaussian, join_purpose
from coterie.core.tree import Tree


def add_noise(total: Tree, deviation: Tree | float, key: str) -> Tree:
    """Return a tree plus Gaussian noise of a standard deviation, drawn for each leaf by its path.

    Args:
        total: float64 leaves.
        deviation: of every coordinate; or a mapping from the first key of a path to that of its subtree.
        key: a secret, and what the noise is for.
    """
    noisy = {
        path: leaf
        + (deviation[path[0]] if isinstance(deviation, dict) else deviation)
        * gaussian(join_purpose(key, tree.pointer(path)), leaf.shape).to(leaf.device)
        for path, leaf in tree.items(total)
    }
    return tree.unflatten({tree.pointer(path): leaf for path, leaf in noisy.items()}, tree.structure(total))
