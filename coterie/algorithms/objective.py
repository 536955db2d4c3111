"""The objective of the federation: sum_i p_i F_i with p_i = n_i / n ("examples"), or with p_i = 1 / N ("clients").

Some algorithms keep a state that must add up over all clients, absent ones included. They need the p_i themselves, not
only the proportions within a cohort. The sum of p_i over the reached clients is their weight over the total weight.
"""

from __future__ import annotations

from typing import Literal, TypeAlias

import torch
from torch import Tensor

from coterie.core.algorithm import Federation, RoundInfo, Weighting
from coterie.core.errors import require

Objective: TypeAlias = Literal["examples", "clients"]


def objective_weighting(objective: Objective) -> Weighting:
    """Return how updates are weighted, so that their mean is the objective's.

    Raises:
        Mistake: there is no such objective.
    """
    require("objective", objective, objective in ("examples", "clients"), '"examples" or "clients"')
    return "examples" if objective == "examples" else "one"


def total_weight(objective: Objective, federation: Federation) -> Tensor:
    """Return the weight of all clients together, float64 []. The server state keeps it for `reached_share`."""
    count = federation.examples() if objective == "examples" else len(federation.ids)
    return torch.tensor(float(count), dtype=torch.float64)


def reached_share(objective: Objective, info: RoundInfo, total: Tensor) -> float:
    """Return the sum of p_i over the clients that a round reached.

    It is a float, not a tensor: a tensor of float64 would change the type of a parameter of shape [].
    """
    return info.weighting[objective_weighting(objective)] / float(total)
