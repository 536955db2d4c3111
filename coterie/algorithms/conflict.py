"""Resolve conflicts between a client's own gradient and the gradient that all clients share.

Two gradients l and g at the same weights conflict where <l, g> < 0. Every rule subtracts a multiple of each from the
other,

    l' = l - beta g,    g' = g - alpha l,

and the step goes along l' + g'. With a = |l|^2, b = |g|^2, c = <l, g>:

    "project_global"   alpha = min(c, 0) / a, beta = 0: g' is the nearest to g that does not raise the local loss
    "project_local"    beta = min(c, 0) / b, alpha = 0: l' is the nearest to l that does not raise the shared loss
    "gem"              alpha = min(a + c, 0) / a, beta = min(b + c, 0) / b: l' + g' is the nearest to l + g that raises
                       neither loss
    "none"             alpha = beta = 0

"gem" is the solution of min_z 1/2 |z - u|^2 subject to <z, l> >= 0 and <z, g> >= 0, where u = l + g. In general its
dual has four active sets; here <u, l> = a + c and <u, g> = b + c add up to |u|^2, so that at most one is negative.
Where it is <u, l>, z = u - (a + c) / a l = g - (c / a) l satisfies the other constraint too: <z, g> = b - c^2 / a >= 0
(Cauchy and Schwarz). So three sets remain, and -alpha and -beta are the dual's variables.

Lopez-Paz, Ranzato: Gradient Episodic Memory for Continual Learning, NIPS 2017, equations 8 to 11; with one constraint
Chaudhry et al.: Efficient Lifelong Learning with A-GEM, ICLR 2019, equation 11.
"""

from __future__ import annotations

from typing import Literal, TypeAlias

import torch
from torch import Tensor

from coterie.core import tree
from coterie.core.errors import require
from coterie.core.tree import Tree

Conflict: TypeAlias = Literal["project_global", "project_local", "gem", "none"]
CONFLICTS = ("project_global", "project_local", "gem", "none")


def check_conflict(conflict: Conflict) -> Conflict:
    """Return the rule's name unchanged; refuse a name that is not one of `CONFLICTS`.

    Raises:
        Mistake: there is no such rule.
    """
    require("conflict", conflict, conflict in CONFLICTS, f"one of {', '.join(CONFLICTS)}")
    return conflict


def resolve_conflict(conflict: Conflict, local: Tree, shared: Tree) -> tuple[Tree, Tree]:
    """Return (l', g'): the gradients l = `local` and g = `shared` after the rule removed their conflict, as trees."""
    if conflict == "none":
        return local, shared
    alpha, beta = _multiples(conflict, tree.dot(local, local), tree.dot(shared, shared), tree.dot(local, shared))
    return tree.add(local, shared, -beta), tree.add(shared, local, -alpha)


def _multiples(conflict: Conflict, a: Tensor, b: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
    """Return alpha and beta [] of the rule, given a = |l|^2, b = |g|^2 and c = <l, g>; 0 where a gradient is zero."""
    none, tiny = torch.zeros_like(c), torch.finfo(c.dtype).tiny
    along_local, along_shared = (c, c) if conflict != "gem" else (a + c, b + c)
    alpha = along_local.clamp(max=0) / a.clamp(min=tiny)
    beta = along_shared.clamp(max=0) / b.clamp(min=tiny)
    return none if conflict == "project_local" else alpha, none if conflict == "project_global" else beta
