"""What is refused, in one sentence that names the key."""

from typing import Any

import pytest
import torch

import coterie
from coterie import Mistake
from coterie.aggregation import aggregation
from tests.federations import dense, ragged

WRONG: list[tuple[dict[str, Any], str]] = [
    ({"name": "trimed_mean", "num_byzantine": 1}, 'name = "trimed_mean": did you mean "trimmed_mean"'),
    ({"name": "median", "pre": ["nmm"]}, 'pre = "nmm": did you mean "nnm"'),
    ({"name": "trimmed_mean"}, "num_byzantine: missing; trimmed_mean needs it"),
    ({"name": "median", "pre": ["nnm"]}, "num_byzantine: missing; nnm needs it"),
    ({"name": "trimmed_mean", "num_bizantine": 2}, "num_bizantine = 2: trimmed_mean does not take it"),
    (
        {"name": "mean", "num_byzantine": 2},
        "num_byzantine = 2: mean does not take it; it takes nothing",
    ),
    ({"name": "krum", "pre": ["nnm"], "num_byzantine": 1, "radius": 2.0}, "krum after nnm|nnm after krum"),
    ({"name": "centred_clipping"}, "radius: missing"),
    ({"name": "centred_clipping", "radius": 0.0}, "radius = 0.0: it must be a number above 0"),
    ({"name": "centred_clipping", "radius": 1.0, "iterations": 0}, "iterations = 0"),
    ({"name": "geometric_median", "smoothing": -1.0}, "smoothing = -1.0"),
    ({"name": "geometric_median", "iterations": 1.5}, "iterations = 1.5"),
    ({"name": "krum", "num_byzantine": 1, "neighbours": "all"}, 'neighbours = "all"'),
    ({"name": "krum", "num_byzantine": -1}, "num_byzantine = -1: it must be a whole number, 0 or more"),
    ({"name": "krum", "num_byzantine": True}, "num_byzantine = true"),
    ({"name": "krum", "num_byzantine": 1.0}, "num_byzantine = 1.0"),
    ({"name": "mean", "pre": ["bucketing"], "num_byzantine": 1, "bucket_size": 0}, "bucket_size = 0"),
    ({"name": "mean", "pre": ["clip"], "clip_length": -2.0}, "clip_length = -2.0"),
]


@pytest.mark.parametrize(("table", "sentence"), WRONG, ids=[s for _, s in WRONG])
def test_a_table_that_cannot_be_used(table: dict[str, Any], sentence: str) -> None:
    with pytest.raises(Mistake, match=sentence) as error:
        aggregation(**table)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", ["geometric_median", "krum", "mda", "meamed", "median", "multi_krum", "trimmed_mean"])
def test_attackers_that_could_be_the_majority(name: str) -> None:
    """n = 2 f is too few, n = 2 f + 1 is enough."""
    rule = aggregation(name, num_byzantine=2)
    rule.reduce(torch.zeros(5, 1), [1.0] * 5)
    with pytest.raises(Mistake, match=rf"num_byzantine = 2: {name} then needs 5 updates or more, and has 4"):
        rule.reduce(torch.zeros(4, 1), [1.0] * 4)


@pytest.mark.parametrize("step", ["arc", "bucketing", "nnm"])
def test_a_step_before_a_rule_asks_the_same(step: str) -> None:
    rule = aggregation("mean", pre=[step], num_byzantine=2)
    rule.reduce(torch.zeros(5, 1), [1.0] * 5)
    with pytest.raises(Mistake, match=rf"num_byzantine = 2: {step} then needs 5"):
        rule.reduce(torch.zeros(4, 1), [1.0] * 4)


def test_krum_with_fewer_neighbours_needs_more_updates() -> None:
    with pytest.raises(Mistake, match="krum then needs 7 updates or more, and has 6"):
        aggregation("krum", num_byzantine=2, neighbours="n-f-2").reduce(torch.zeros(6, 1), [1.0] * 6)


def test_more_sets_than_can_be_tried() -> None:
    with pytest.raises(Mistake, match="choose multi_krum"):
        aggregation("mda", num_byzantine=20).reduce(torch.zeros(60, 1), [1.0] * 60)


def test_a_cohort_that_is_too_small_is_refused_before_the_first_round() -> None:
    rounds = coterie.federate(
        coterie.fedavg(lr=0.1),
        dense(),
        ragged(),
        rounds=3,
        cohort=4,
        aggregation=aggregation("trimmed_mean", num_byzantine=2),
    )
    with pytest.raises(Mistake, match="needs 5 updates or more, and has 4"):
        next(rounds)
