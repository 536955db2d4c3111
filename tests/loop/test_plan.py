"""A plan's answers: a client's data and state, its model, and what the server knows."""

import pytest
import torch

import coterie
from coterie import Examples, Mistake, Plan
from coterie.loop.store import Store
from tests.contract.sketches import mutual
from tests.federations import dense, distance, ragged

SEED_SET = Examples(torch.randn(4, 6), torch.tensor([0, 1, 2, 0]))


def plan(seed_set: Examples | None = None, **options: object) -> Plan:
    return coterie.plan(mutual(4, 3), dense(), ragged(), rounds=1, seed_set=seed_set, **options)


def test_each_stream_has_its_source() -> None:
    made = plan(SEED_SET)
    assert made.data("1")["private"] is made.clients["1"]
    assert made.data("1")["seed"] is SEED_SET


@pytest.mark.parametrize("seed_set", [None, Examples(torch.zeros(0, 6), torch.zeros(0, dtype=torch.int64))])
def test_a_seed_set_that_is_missing_or_empty_is_a_mistake(seed_set: Examples | None) -> None:
    """And never replaced by the client's private data."""
    with pytest.raises(Mistake, match="needs a seed set that every client holds"):
        plan(seed_set).data("1")


def test_a_client_begins_with_the_initial_weights_and_goes_on_with_what_it_kept() -> None:
    made = plan(SEED_SET)
    begun = made.client_state(Store(), "1")
    assert distance(begun["algorithm"]["params"], made.initial["model"]["params"]) == 0
    kept = {"algorithm": {"params": {"w": torch.ones(1)}, "buffers": {}}, "up": {}}
    store = Store().after(3, {"1": kept})
    assert made.client_state(store, "1")["algorithm"]["params"]["w"] == 1
    assert made.evaluated_weights({}, store, "1")["params"]["w"] == 1
    assert made.client_state(store, "2")["up"] == {}


def test_the_federation_counts_examples_only_when_asked() -> None:
    looks: list[str] = []

    class Looking(dict[str, Examples]):
        def __getitem__(self, client: str) -> Examples:
            looks.append(client)
            return super().__getitem__(client)

    made = coterie.plan(coterie.fedavg(lr=0.1), dense(), Looking(ragged()), rounds=1)
    federation = made.federation()
    assert looks == []
    assert federation.examples() == 68
    assert tuple(federation.ids) == tuple("012345")


def test_weights_have_the_names_of_the_model_s_state_dict() -> None:
    for recipe in (coterie.fedavg(lr=0.1), coterie.independent(lr=0.1)):
        (only,) = coterie.federate(recipe, dense(), ragged(), rounds=1)
        assert set(only.weights()) == set(only.weights("3")) == set(dense().state_dict())
        dense().load_state_dict(only.weights("3"))
