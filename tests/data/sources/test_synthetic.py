"""Clients that are made when they are looked up."""

from __future__ import annotations

import pytest
import torch

from coterie.core.errors import Mistake
from coterie.data import deal, load, own_test
from coterie.data.sources.synthetic import Synthetic


def test_a_million_clients_cost_nothing_until_looked_up(monkeypatch):
    """Making the source looks up the first client and the hundred of the test set, and dealing looks up nobody."""
    looked_up = []
    make = Synthetic.__getitem__
    monkeypatch.setattr(Synthetic, "__getitem__", lambda self, c: looked_up.append(c) or make(self, c))
    source = load("synthetic", num_clients=1_000_000, examples_per_client=9)
    clients = deal(source, num_clients=1_000_000, examples_per_client=9)
    assert len(clients) == 1_000_000
    assert len(looked_up) == 101
    assert len(clients["999999"]) == 9
    assert len(source.test) == 100


def test_a_client_is_a_function_of_its_id_and_the_rng_seed():
    few, many = (load("synthetic", num_clients=n, examples_per_client=20) for n in (3, 50))
    other = load("synthetic", num_clients=3, examples_per_client=20, rng_seed=1)
    assert torch.equal(few.clients["2"].x, many.clients["2"].x)
    assert torch.equal(few.clients["2"].y, many.clients["2"].y)
    assert not torch.equal(few.clients["2"].x, few.clients["1"].x)
    assert not torch.equal(few.clients["2"].x, other.clients["2"].x)


def test_shapes_and_sizes():
    """Sizes are at least 51 and vary; a test set has one example for every nine."""
    source = load("synthetic", num_clients=20, num_features=7, num_classes=3)
    sizes = [len(e) for e in source.clients.values()]
    assert min(sizes) >= 51
    assert max(sizes) > 2 * min(sizes)
    assert source.train.x.shape[1:] == (7,)
    assert source.num_classes == 3
    assert all(e.y.max() < 3 for e in source.clients.values())
    own = own_test(source, source.clients)
    assert [len(own[str(k)]) for k in range(20)] == [n // 9 for n in sizes]
    assert len(source.test) == len(source.test_groups) == sum(n // 9 for n in sizes)


def test_clients_are_counted_without_being_made(monkeypatch):
    """Of 50 + round(exp(N(4, 2^2))), half are above 50 + e^4 = 104.6, and few at 10,000, where they end."""
    source = load("synthetic", num_clients=100_000)
    ids = [str(k) for k in range(0, 100_000, 400)]
    assert source.clients.sizes(ids) == [len(source.clients[k]) for k in ids]
    assert source.own_tests.sizes(ids) == [len(source.own_tests[k]) for k in ids]
    assert load("synthetic", num_clients=3, examples_per_client=7).clients.sizes(["0", "2"]) == [7, 7]
    monkeypatch.setattr(Synthetic, "__getitem__", lambda self, c: pytest.fail("made"))
    sizes = torch.tensor(source.clients.sizes(list(source.clients)))
    assert sizes.float().median() == pytest.approx(104.6, abs=1)
    assert (sizes.min(), sizes.max()) == (50, 10_000)
    assert float((sizes == 10_000).float().mean()) == pytest.approx(0.0046, abs=0.001)  # P(N(4, 2^2) > ln 9950)


def test_a_clients_test_examples_are_others_of_the_same_problem():
    """Least squares on a client's 4,000 examples of two linear classes gets most of its test examples right."""
    source = load(
        "synthetic", num_clients=3, num_features=5, num_classes=2, examples_per_client=4000, input_variation=0
    )
    train, test = source.clients["1"], source.own_tests["1"]
    assert not any((train.x == row).all(1).any() for row in test.x[:20])
    ones = torch.ones(len(train), 1)
    solved = torch.linalg.lstsq(torch.cat([train.x, ones], 1), train.y.float().unsqueeze(1) * 2 - 1).solution
    guess = torch.cat([test.x, torch.ones(len(test), 1)], 1) @ solved > 0
    assert (guess.flatten() == test.y.bool()).float().mean() > 0.9


def test_without_variation_models_still_differ_but_scales_agree():
    """v_k ~ N(B_k, 1) for 60 features: a client's mean input is about 20 from 0 at input_variation 400, 0.1 at 0."""
    near, far = (load("synthetic", num_clients=5, examples_per_client=200, input_variation=v) for v in (0, 400))
    spread = [max(abs(e.x.mean().item()) for e in s.clients.values()) for s in (near, far)]
    assert spread[0] < 1 < 5 < spread[1]


@pytest.mark.parametrize("client", ["3", "-1", "01", "", "one", "²", 2])
def test_other_ids_are_no_clients(client):
    clients = load("synthetic", num_clients=3).clients
    assert client not in clients
    with pytest.raises(KeyError):
        clients[client]
    assert list(clients) == ["0", "1", "2"]


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({}, "^num_clients: missing"),
        ({"num_clients": 0}, "^num_clients = 0"),
        ({"num_clients": 2, "model_variation": -1}, "^model_variation = -1"),
        ({"num_clients": 2, "input_variation": float("nan")}, "^input_variation = nan"),
        ({"num_clients": 2, "examples_per_client": 0}, "^examples_per_client = 0"),
    ],
)
def test_what_is_out_of_range_is_a_mistake(options, says):
    with pytest.raises(Mistake, match=says):
        load("synthetic", **options)


def test_its_clients_are_its_own():
    source = load("synthetic", num_clients=3)
    with pytest.raises(Mistake, match=r'^partition = "iid": the source synthetic makes its clients itself'):
        deal(source, partition="iid", num_clients=3)
    with pytest.raises(Mistake, match=r"^num_clients = 4"):
        deal(source, num_clients=4)
