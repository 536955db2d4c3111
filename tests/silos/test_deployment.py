"""Deployment equals simulation: the same rows at the same clients give the same weights, bit for bit."""

from pathlib import Path

import pytest

from coterie import Recipe
from coterie.core.packing import unpack
from tests.common.recipes import RECIPES
from tests.silos.deployment import Deployment, same_bits, server_state

DEPLOYABLE = {name: recipe for name, recipe in RECIPES.items() if name != "centralized"}


@pytest.mark.parametrize("recipe", DEPLOYABLE.values(), ids=DEPLOYABLE)
def test_weights_are_those_of_the_simulation(recipe: Recipe, tmp_path: Path) -> None:
    """Every algorithm; six clients at three silos, of which a round asks four; states stay at the silos."""
    both = Deployment(recipe, tmp_path, options={"cohort": 0.7})
    simulated, deployed = both.simulate(), both.deploy()
    for a, b in zip(simulated, deployed, strict=True):
        assert same_bits(server_state(a), server_state(b))
        assert (a.cohort, a.reached, a.dropped) == (b.cohort, b.reached, b.dropped)
        assert (a.train_loss, a.bytes_up, a.bytes_down) == (b.train_loss, b.bytes_up, b.bytes_down)
        assert a.client_weights == b.client_weights
    models = both.models_at_silos()
    for client in both.clients:
        assert same_bits(unpack(models[client]), simulated[-1].weights(client))
    assert both.said == []
