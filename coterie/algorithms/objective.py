"""Whose optimum is sought: sum_i p_i F_i with p_i = n_i / n ("examples"), or with p_i = 1 / N ("clients").

An algorithm with state that must add up over all clients, absent ones included, needs p_i itself and not only the
proportions within a cohort: the sum of p_i over the reached clients is their weight over the total.
"""

from __future__ import annotations

from typing import Literal, TypeAlias

import torch
from torch import Tensor

from coterie.core.algorithm import Federation, RoundInfo, Weighting
from coterie.core.errors import require

Objective: TypeAlias = Literal["examples", "clients"]


def weight_of(objective: Objective) -> Weighting:
    """How updates are weighted, so that their mean is that of the objective.

    Raises:
        Mistake: there is no such objective.
    """
    require("objective", objective, objective in ("examples", "clients"), '"examples" or "clients"')
    return "examples" if objective == "examples" else "one"


def total(objective: Objective, federation: Federation) -> Tensor:
    """The weight of all clients together, float64 []: kept in the server's state, for `reached_share`."""
    count = federation.examples() if objective == "examples" else len(federation.ids)
    return torch.tensor(float(count), dtype=torch.float64)


def reached_share(objective: Objective, info: RoundInfo, total: Tensor) -> float:
    """The sum of p_i over the clients that a round reached; no tensor: a parameter of shape [] would take its type."""
    return info.weighting[weight_of(objective)] / float(total)
