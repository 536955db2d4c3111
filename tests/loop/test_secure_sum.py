"""A federation whose updates nobody sees ends where the plain one does, up to the precision of fixed point."""

import dataclasses
import json

import pytest
import torch
from torch import nn

import coterie
from coterie.core import tree
from coterie.core.tree import Tree
from coterie.data import deal, load
from coterie.loop.faults import Faults
from coterie.loop.federate import federate
from coterie.models import build
from coterie.privacy.masking_server import MaskingServer
from coterie.privacy.table import Privacy

SECURE = Privacy(secure_sum=True)
DIGITS = load("digits")
CLIENTS = deal(DIGITS, partition="dirichlet", alpha=0.5, num_clients=6, rng_seed=0)


def run(recipe, privacy=SECURE, model=None, **options):
    model = build("mlp", (1, 8, 8), 10, rng_seed=0) if model is None else model
    return list(coterie.federate(recipe, model, CLIENTS, rounds=2, privacy=privacy, **options))


def far(a: Tree, b: Tree) -> float:
    return max(float((x - y).abs().max()) for x, y in zip(tree.leaves(a), tree.leaves(b), strict=True))


@pytest.mark.parametrize(
    "recipe",
    [
        coterie.fedavg(lr=0.1, batch_size=64),
        coterie.fedprox(lr=0.1, batch_size=64, proximal_weight=0.1),
        coterie.scaffold(lr=0.1, batch_size=64),
        coterie.fedadam(lr=0.1, batch_size=64, server_lr=0.01),
    ],
    ids=["fedavg", "fedprox", "scaffold", "fedadam"],
)
def test_the_model_is_that_of_the_plain_sum(recipe):
    """The mean is off by n steps / 2 over the sum of weights at most.

    Here n = 6, and the weights over their power of two add up to 1 or more; a step is 2^-26, so that is below 5e-8 in
    each round, which training and Adam's division may make a hundred times larger.
    """
    plain, secure = run(recipe, privacy=None), run(recipe)
    assert far(plain[-1].state["params"], secure[-1].state["params"]) < 5e-6
    for a, b in zip(plain, secure, strict=True):
        assert (a.reached, a.dropped, a.cohort) == (b.reached, b.dropped, b.cohort)
        assert b.train_loss == pytest.approx(a.train_loss, abs=1e-6)
    assert not secure[-1].client_weights


def test_statistics_in_stages_are_those_of_the_plain_rule():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Linear(16, 10))
    recipe = coterie.fbn(lr=0.1, batch_size=128)
    plain, secure = run(recipe, None, model), run(recipe, SECURE, model)
    assert far(plain[-1].state["params"], secure[-1].state["params"]) < 1e-4
    assert far(plain[-1].state["buffers"], secure[-1].state["buffers"]) < 1e-4


def test_sums_of_posteriors_are_those_of_the_plain_rule():
    recipe = coterie.fedh2l(lr=0.1, batch_size=32)
    seed_set = coterie.Examples(DIGITS.train.tensors()[0][:20], DIGITS.train.tensors()[1][:20])
    plain, secure = (run(recipe, p, seed_set=seed_set) for p in (None, SECURE))
    assert far(plain[-1].state, secure[-1].state) < 1e-5


def test_faults_drop_clients_at_steps_of_the_sum_and_the_rest_is_summed():
    faults = Faults(drop=0.15, straggle=0.15)
    recipe = coterie.fedavg(lr=0.1, batch_size=64)
    plain, secure = run(recipe, None, faults=faults, rng_seed=3), run(recipe, faults=faults, rng_seed=3)
    assert any(round.dropped for round in plain)
    assert [r.dropped for r in plain] == [r.dropped for r in secure]
    assert far(plain[-1].state["params"], secure[-1].state["params"]) < 5e-6


def test_below_the_threshold_a_round_changes_nothing_and_says_so():
    with pytest.warns(RuntimeWarning, match="and a secure sum needs 6"):
        rounds = run(coterie.fedavg(lr=0.1), Privacy(secure_sum=True, secure_threshold=1.0), faults=Faults(drop=0.5))
    short = [round for round in rounds if round.reached == 0]
    assert short
    for round in short:
        assert tree.leaves(round.state)[0] is tree.leaves(round.before)[0]
        assert {entry["client"] for entry in round.dropped} == set(round.cohort)
        assert "and a secure sum needs 6" in json.dumps(round.dropped)


def test_updates_of_noised_gradients_are_summed_as_they_are_without_masks():
    """A guarantee for examples and a secure sum: the same noise and the same batches, so the same model to rounding."""
    clear = Privacy(unit="example", clip_norm=0.5, noise_multiplier=1.0, noise="rng_seed")
    recipe = coterie.scaffold(lr=0.1, batch_size=64)
    plain, secure = (run(recipe, dataclasses.replace(clear, secure_sum=hidden)) for hidden in (False, True))
    assert far(plain[-1].state["params"], secure[-1].state["params"]) < 5e-6
    assert [round.train_loss for round in secure] == [None, None]
    assert secure[-1].plan.example_privacy.delta == plain[-1].plan.example_privacy.delta


def test_noise_that_does_not_fit_into_the_sum_is_not_sent():
    """Noise has no bound, and the sum must not overflow: a client whose numbers are above the limit sends none."""
    loud = Privacy(unit="example", clip_norm=1.0, noise_multiplier=1e6, secure_sum=True, secure_limit=4.0)
    with pytest.warns(RuntimeWarning, match="no client's update was accepted"):
        rounds = run(coterie.fedavg(lr=0.1, batch_size=64), loud)
    assert all(round.reached == 0 for round in rounds)
    assert all("takes numbers up to 4" in entry["why"] for round in rounds for entry in round.dropped)


def test_a_client_with_a_number_out_of_range_sends_nothing():
    with pytest.warns(RuntimeWarning, match="no client's update was accepted"):
        rounds = run(coterie.fedavg(lr=1e4), Privacy(secure_sum=True, secure_limit=1.0, secure_threshold=0.5))
    assert rounds[0].reached == 0
    assert all("takes numbers up to 1" in entry["why"] for entry in rounds[0].dropped)


def test_steps_in_which_every_update_is_0_train_nothing_and_say_so():
    """16 bits for six clients and numbers up to 1024 leave steps of 0.25."""
    with pytest.warns(RuntimeWarning, match="no client's update was accepted"):
        rounds = run(coterie.fedavg(lr=0.1, batch_size=64), Privacy(secure_sum=True, secure_bits=16))
    assert [round.reached for round in rounds] == [0, 0]
    assert all("0 in the steps of the secure sum, 0.25; give more" in entry["why"] for entry in rounds[0].dropped)
    assert tree.leaves(rounds[1].state)[0] is tree.leaves(rounds[0].before)[0]


def test_other_keys_give_the_same_bits_and_a_resumed_run_too():
    recipe, model = coterie.fedavg(lr=0.1, batch_size=64), build("mlp", (1, 8, 8), 10, rng_seed=0)
    plan = coterie.plan(recipe, model, CLIENTS, rounds=3, privacy=SECURE, cohort=0.7)
    first, again = list(federate(plan)), list(federate(plan))
    middle = first[1]
    resumed = list(federate(plan, coterie.loop.plan.Resume(2, middle.state, middle.store)))
    for other in (again, resumed):
        pairs = zip(tree.leaves(first[-1].state), tree.leaves(other[-1].state), strict=True)
        assert all(torch.equal(x, y) for x, y in pairs)


def test_the_server_sees_masked_numbers_alone(monkeypatch):
    """All that the server adds has bytes as even as chance: six deviations of chi-squared over 256 values."""
    seen = []
    add = MaskingServer.add
    monkeypatch.setattr(MaskingServer, "add", lambda self, c, x: (seen.append(x.copy()), add(self, c, x))[1])
    run(coterie.fedavg(lr=0.1, local_steps=1))
    assert len(seen) == 12
    for masked in seen:
        low = masked.view("u1").reshape(-1, 8)[:, :5].ravel()  # the five bytes that travel
        counts = torch.bincount(torch.from_numpy(low).int(), minlength=256).double()
        expected = len(low) / 256
        assert float(((counts - expected) ** 2 / expected).sum()) < 255 + 6 * 22.6


def test_bytes_are_those_of_the_bits_and_the_keys():
    """Up: 40 bits a number, three weights and the logs, then keys (64 bytes) and shares to five neighbours each."""
    secure = run(coterie.fedavg(lr=0.1))[0]
    numbers = sum(leaf.numel() for leaf in tree.leaves(secure.state["params"])) + 3
    least = 6 * (numbers * 5 + 64 + 5 * (2 * 33 + 28) + 6 * 33)
    assert least <= secure.bytes_up <= least + 6 * 5 * 10  # some logs


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"aggregation": coterie.aggregation.aggregation("median")}, "has to see them"),
        ({"faults": Faults(corrupt=0.1)}, "faults.corrupt"),
        ({"attack": coterie.attacks.attack("sign_flip", num_clients=1)}, r"leave out \[attack\]"),
        ({"cohort": 2}, "3 clients or more"),
        ({"probe": coterie.probes.Probe(["drift"])}, r"leave out \[probe\]"),
        ({"up": coterie.Communication("top_k")}, "choose another codec"),
    ],
)
def test_what_needs_single_updates_is_refused(options, words):
    with pytest.raises(coterie.Mistake, match=words):
        run(coterie.fedavg(lr=0.1), **options)


def test_tables_of_posteriors_and_kept_updates_are_refused():
    seed_set = coterie.Examples(DIGITS.train.tensors()[0][:20], DIGITS.train.tensors()[1][:20])
    with pytest.raises(coterie.Mistake, match='exchange = "sum"'):
        run(coterie.fedh2l(lr=0.1, exchange="tables"), seed_set=seed_set)
    with pytest.raises(coterie.Mistake, match="keep_updates"):
        run(coterie.fedavg(lr=0.1), keep_updates=True)


def test_keys_without_a_secure_sum_are_refused():
    with pytest.raises(coterie.Mistake, match="secure_bits = 32: it must be left out"):
        Privacy(secure_bits=32)
    with pytest.raises(coterie.Mistake, match="secure_bits = 33"):
        Privacy(secure_sum=True, secure_bits=33)
    assert dataclasses.replace(SECURE, secure_bits=32).secure_bits == 32
