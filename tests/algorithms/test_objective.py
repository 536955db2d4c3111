"""What the optimum of SCAFFOLD and FedDyn hangs on: that the server adds up what clients keep."""

from __future__ import annotations

import pytest

import coterie
from coterie.aggregation import aggregation
from coterie.core.transforms import clip
from tests.algorithms.quadratics import MANY, optimum, run, w

RECIPES = {
    "scaffold": coterie.scaffold(lr=0.1, batch_size=2),
    "feddyn": coterie.feddyn(lr=0.2, batch_size=2, proximal_weight=1.0),
}


@pytest.mark.parametrize("recipe", RECIPES.values(), ids=RECIPES)
@pytest.mark.parametrize("options", [{"aggregation": aggregation("median")}, {"up": clip(0.3)}], ids=["median", "clip"])
def test_a_robust_rule_or_a_clip_of_messages_takes_the_optimum_away(recipe, options):
    """Clients that are all honest, and asked in every round; where rounds come to rest, it is elsewhere."""
    assert w(run(recipe, MANY, rounds=300)[-1]) == pytest.approx(optimum("examples"), abs=1e-9)
    *_, before, last = run(recipe, MANY, rounds=300, **options)
    assert w(last) == pytest.approx(w(before), abs=1e-9)
    assert abs(w(last) - optimum("examples")) > 0.5
