"""What an algorithm need not say."""

from dataclasses import replace

import pytest
import torch

from coterie import Algorithm, Mistake, Stream
from coterie.core.algorithm import Federation, one_architecture

WEIGHTS = {"params": {"w": torch.ones(2)}, "buffers": {"n": torch.zeros(())}}
FEDERATION = Federation(("a", "b"), lambda: 3, None)


def minimal() -> Algorithm:
    """Only what has no default."""
    return Algorithm(
        start=lambda broadcast, state, ctx: broadcast,
        step=lambda carry, batches: (carry, {}),
        finish=lambda broadcast, carry, ctx: ({}, {}),
        update=lambda state, aggregate, report: state,
        streams={"private": Stream()},
        weights={},
        lr=lambda round: 0.1,
    )


def test_the_server_holds_the_model_sends_it_and_is_judged_by_it() -> None:
    algorithm = minimal()
    state = algorithm.init(WEIGHTS, FEDERATION)
    assert state is WEIGHTS
    more = {**state, "optimiser": {"m": torch.zeros(2)}}
    assert list(algorithm.broadcast(more)) == ["params", "buffers"]
    assert algorithm.personal(more, {"w": torch.zeros(2)})["params"] is WEIGHTS["params"]


def test_clients_keep_nothing_and_share_everything() -> None:
    algorithm = minimal()
    assert algorithm.client_init(WEIGHTS) == {}
    assert not algorithm.own_models
    assert not algorithm.pooled
    assert algorithm.aggregation == {}


def test_an_algorithm_cannot_be_changed() -> None:
    with pytest.raises(AttributeError):
        minimal().lr = lambda round: 1.0  # type: ignore[misc]


def test_models_of_several_architectures_have_no_average() -> None:
    assert one_architecture(WEIGHTS) is WEIGHTS
    with pytest.raises(Mistake, match="clients differ in architecture"):
        minimal().init(None, FEDERATION)


def test_a_stream_is_one_pass_over_the_client_s_own_data() -> None:
    assert (Stream().epochs, Stream().steps, Stream().source, Stream().once) == (1, None, "private", False)


def test_who_needs_a_seed_set_says_so_or_draws_from_one() -> None:
    from_one = {"private": Stream(), "seed": Stream(source="public")}
    assert not minimal().needs_seed_set
    assert replace(minimal(), streams=from_one).needs_seed_set
    assert replace(minimal(), seed_set=True).needs_seed_set
