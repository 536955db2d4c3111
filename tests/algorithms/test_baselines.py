"""Everything in one place, and everyone alone."""

from __future__ import annotations

import pytest

import coterie
from coterie import Cohort, Faults
from coterie.aggregation import aggregation
from coterie.attacks import attack
from tests.algorithms.quadratics import MANY, A, B, optimum, run, w


@pytest.mark.parametrize("cohort", [None, 3, 0.5, Cohort(size=5)])
def test_pooled_data_are_asked_for_in_every_round_whatever_the_cohort(cohort):
    """So that a federation's own file runs with the baseline; with full batches it ends at the optimum of all."""
    rounds = run(
        coterie.centralized(lr=0.3, batch_size="full"), MANY, 120, cohort=cohort, available=lambda t, c: int(c) < t
    )
    assert all(r.reached == 1 for r in rounds)
    assert w(rounds[-1]) == pytest.approx(optimum("examples"), abs=1e-10)


def test_nobody_drops_out_or_lies_where_data_are_in_one_place():
    """A file with faults, attackers and a robust rule runs with the baseline too, and the baseline is the same."""
    options = {
        "faults": Faults(drop=0.5),
        "aggregation": aggregation("krum", num_byzantine=1),
        "attack": attack("sign_flip", num_clients=2),
    }
    recipe = coterie.centralized(lr=0.1, batch_size="full")
    plain, harmed = run(recipe, MANY, 5), run(recipe, MANY, 5, **options)
    assert [w(r) for r in harmed] == [w(r) for r in plain]


def test_everyone_alone_ends_at_an_optimum_of_their_own():
    """K steps in all leave (1 - lr a)^K of the way from 0 to b; those who are asked more rarely take fewer."""
    rounds = run(coterie.independent(lr=0.1, local_steps=2), MANY, 20, cohort=3)
    for i, (a, b) in enumerate(zip(A, B, strict=True)):
        steps = 2 * sum(str(i) in r.cohort for r in rounds)
        assert 0 < steps < 40
        assert rounds[-1].weights(str(i))["w"].item() == pytest.approx(b - b * (1 - 0.1 * a) ** steps, abs=1e-12)
