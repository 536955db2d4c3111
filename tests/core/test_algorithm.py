"""What an algorithm need not say."""

from dataclasses import replace

import pytest
import torch

from coterie import Algorithm, Mistake, Stream
from coterie.core.algorithm import ClientHalf, Federation, ServerHalf, one_architecture

WEIGHTS = {"params": {"w": torch.ones(2)}, "buffers": {"n": torch.zeros(())}}
FEDERATION = Federation(("a", "b"), lambda: 3, None)


def minimal() -> Algorithm:
    """Only what has no default."""
    return Algorithm(
        client=ClientHalf(
            start=lambda broadcast, state, ctx: broadcast,
            step=lambda carry, batches, ctx: (carry, {}),
            finish=lambda broadcast, carry, ctx: ({}, {}),
            streams={"private": Stream()},
            lr=lambda round: 0.1,
        ),
        server=ServerHalf(
            update=lambda state, aggregate, info: state,
            weighting={},
        ),
    )


def test_the_server_holds_the_model_sends_it_and_is_judged_by_it() -> None:
    algorithm = minimal()
    state = algorithm.server.initial_state(WEIGHTS, FEDERATION)
    assert state is WEIGHTS
    more = {**state, "optimiser": {"m": torch.zeros(2)}}
    assert list(algorithm.server.broadcast(more)) == ["params", "buffers"]
    assert algorithm.server.evaluated_weights(more, {"w": torch.zeros(2)})["params"] is WEIGHTS["params"]


def test_clients_keep_nothing_and_share_everything() -> None:
    algorithm = minimal()
    assert algorithm.client.initial_state(WEIGHTS) == {}
    assert not algorithm.traits.own_models
    assert not algorithm.traits.pooled
    assert algorithm.server.aggregation == {}


def test_an_algorithm_cannot_be_changed() -> None:
    with pytest.raises(AttributeError):
        minimal().client.lr = lambda round: 1.0  # type: ignore[misc]


def test_models_of_several_architectures_have_no_average() -> None:
    assert one_architecture(WEIGHTS) is WEIGHTS
    with pytest.raises(Mistake, match="clients differ in architecture"):
        minimal().server.initial_state(None, FEDERATION)


def test_a_stream_is_one_pass_over_the_client_s_own_data() -> None:
    assert (Stream().epochs, Stream().steps, Stream().source, Stream().once) == (1, None, "private", False)


def test_who_needs_a_seed_set_says_so_or_draws_from_one() -> None:
    from_one = {"private": Stream(), "seed": Stream(source="seed_set")}
    assert not minimal().needs_seed_set
    assert replace(
        minimal(),
        client=replace(
            minimal().client,
            streams=from_one,
        ),
    ).needs_seed_set
    assert replace(
        minimal(),
        traits=replace(
            minimal().traits,
            reads_seed_set=True,
        ),
    ).needs_seed_set
