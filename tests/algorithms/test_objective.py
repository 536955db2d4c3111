"""What the optimum of SCAFFOLD and FedDyn hangs on: that the server adds up what clients keep."""

from __future__ import annotations

from functools import cache

import pytest

import coterie
from coterie.aggregation import aggregation
from coterie.core.transforms import clip
from tests.algorithms.quadratics import MANY, optimum, run, w

RECIPES = {
    "scaffold": coterie.scaffold(lr=0.1, batch_size=2),
    "feddyn": coterie.feddyn(lr=0.2, batch_size=2, proximal_weight=1.0),
}


@cache
def reached(name: str) -> float:
    """Where a recipe comes to rest without the options."""
    return w(run(RECIPES[name], MANY, rounds=300)[-1])


@pytest.mark.parametrize("name", RECIPES)
@pytest.mark.parametrize("options", [{"aggregation": aggregation("median")}, {"up": clip(0.3)}], ids=["median", "clip"])
def test_a_robust_rule_or_a_clip_of_messages_takes_the_optimum_away(name, options):
    """Clients that are all honest, and asked in every round; where rounds come to rest, it is elsewhere."""
    assert reached(name) == pytest.approx(optimum("examples"), abs=1e-9)
    *_, before, last = run(RECIPES[name], MANY, rounds=300, **options)
    assert w(last) == pytest.approx(w(before), abs=1e-9)
    assert abs(w(last) - optimum("examples")) > 0.5
