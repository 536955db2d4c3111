"""A small federation under a guarantee for each algorithm, not yet checked."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch

import coterie
from coterie import Plan, Privacy
from coterie.algorithms import ALGORITHMS
from coterie.engines.sequential import Sequential
from coterie.loop.private_plan import complete_privacy
from tests.federations import dense, ragged, seed_set


def plan_of(name: str, options: dict[str, Any], rounds: int = 3, **privacy: Any) -> Plan:
    """The plan of an algorithm with these options; its guarantee is complete, and nothing was refused."""
    needs_rate = {} if "lr" in options else {"lr": 0.05}
    recipe = ALGORITHMS[name](**needs_rate, **options)
    plan = coterie.plan(
        recipe,
        dense(),
        ragged(),
        rounds=rounds,
        seed_set=seed_set(),
        engine=Sequential(dtype=torch.float64),
        num_classes=3,
    )
    given = {"unit": "client", "clip_norm": 1.0, "noise_multiplier": 0.5, "noise": "rng_seed", **privacy}
    return replace(plan, privacy=complete_privacy(Privacy(**given), plan.cohort, len(plan.ids), rounds))
