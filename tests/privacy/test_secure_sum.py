"""A secure sum is the sum of those that stayed, bit for bit, whoever drops out at which step; else it says so."""

import math
import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coterie.core.errors import Mistake
from coterie.privacy import masking_server
from coterie.privacy.fixed_point import FixedPoint
from coterie.privacy.graph import Degree
from coterie.privacy.masking_client import Ask, MaskingClient, Neighbour, Neighbours, Unfit
from coterie.privacy.masking_server import MaskingServer, TooFew, find_quorum
from tests.privacy.one_sum import STEPS, run_sum


def numbers_of(clients, d=7, seed=0):
    draw = np.random.default_rng(seed)
    return {f"c{k}": draw.integers(0, 2**64, d, dtype=np.uint64) for k in range(clients)}


def plain_sum(numbers, names):
    return sum((numbers[name] for name in names), np.zeros(len(numbers["c0"]), np.uint64))


def sum_with_drops(clients, data):
    """Above the threshold it is exact; below it, the sentence names the step at which too few were left."""
    numbers = numbers_of(clients)
    often = data.draw(st.integers(0, 60), label="percent that drop")
    draw = random.Random(data.draw(st.integers(0, 2**32), label="who drops"))
    where = {name: draw.choice(STEPS) if draw.random() < often / 100 else None for name in numbers}
    drops = {step: [name for name, at in where.items() if at == step] for step in STEPS}
    left, first_short = clients, None
    for step in STEPS:
        left -= len(drops[step])
        least = 3 if step == "keys" else 0
        if first_short is None and left < max(least, find_quorum(clients)):
            first_short = step
    if first_short is None:
        opened, stayed = run_sum(numbers, drops)
        assert stayed == [name for name, at in where.items() if at in (None, "opening")]
        assert (opened == plain_sum(numbers, stayed)).all()
    else:
        words = dict(zip(STEPS, ("sent keys", "shared their keys", "sent their numbers", "opened"), strict=True))
        with pytest.raises(TooFew, match=words[first_short]):
            run_sum(numbers, drops)


@given(st.integers(3, 12), st.data())
@settings(deadline=None, max_examples=50)
def test_the_sum_is_that_of_those_that_stayed_whoever_drops_at_which_step(clients, data):
    sum_with_drops(clients, data)


@pytest.mark.long
@given(st.integers(13, 100), st.data())
@settings(deadline=None, max_examples=40)
def test_the_sum_of_up_to_a_hundred_is_that_of_those_that_stayed(clients, data):
    sum_with_drops(clients, data)


@pytest.mark.parametrize("clients", [3, 100])
def test_a_third_may_drop_over_the_steps(clients):
    """The most that may: of 100 clients 11 before each of the last three steps, of 3 clients one."""
    draw = random.Random(clients)
    numbers, steps = numbers_of(clients), STEPS[1:]
    gone = draw.sample(list(numbers), clients - find_quorum(clients))
    opened, stayed = run_sum(numbers, {step: gone[k::3] for k, step in enumerate(steps)})
    assert stayed == [name for name in numbers if name not in gone or name in gone[2::3]]
    assert (opened == plain_sum(numbers, stayed)).all()


def test_a_large_cohort_uses_the_sparse_graph_and_sums_exactly(monkeypatch):
    """The degree is made small here: 8 neighbours of 40, and 5 of 9 shares open a secret."""
    monkeypatch.setattr(masking_server, "choose_degree", lambda clients, needed: Degree(8, 5))
    numbers = numbers_of(40, d=3)
    opened, stayed = run_sum(numbers, {"numbers": ["c3", "c20"], "opening": ["c9"]})
    assert len(stayed) == 38
    assert (opened == plain_sum(numbers, stayed)).all()
    server = MaskingServer("p", 27)
    told = server.neighbours({name: MaskingClient(name, "p").advertise() for name in numbers})
    assert all(len(each.others) == 8 for each in told.values())


def test_real_numbers_come_back_to_the_stated_precision():
    """The fixed point's bound: half a step for each client that stayed."""
    draw = np.random.default_rng(3)
    real = {f"c{k}": draw.normal(size=50) for k in range(10)}
    form = FixedPoint(10, 40, 64.0)
    opened, stayed = run_sum({name: form.encode(x) for name, x in real.items()}, {"numbers": ["c4"]})
    expected = sum(real[name] for name in stayed)
    assert np.abs(form.decode(opened) - expected).max() <= len(stayed) * form.step / 2 + 1e-13


def test_the_keys_change_nothing_in_the_sum():
    """Two runs have other keys and masks, and the same sum bit for bit."""
    numbers, seen, again = numbers_of(5), {}, {}
    first, _ = run_sum(numbers, {"numbers": ["c1"]}, seen=seen)
    second, _ = run_sum(numbers, {"numbers": ["c1"]}, seen=again)
    assert (first == second).all()
    assert all((seen[name] != again[name]).any() for name in seen)


def test_what_the_server_sees_of_one_client_says_nothing_of_its_numbers():
    """Masked zeros, and masked numbers all alike, have bytes as even as random ones.

    The chi-squared statistic of 2^16 bytes over 256 values has mean 255 and deviation sqrt(510) = 22.6; six deviations
    are allowed, which chance exceeds once in 10^8. The same test on the unmasked numbers fails by far.
    """
    d = 2**13

    def unevenness(residues):
        counts = np.bincount(residues.view(np.uint8), minlength=256)
        return ((counts - d * 8 / 256) ** 2 / (d * 8 / 256)).sum()

    for value in (0, 12345):
        numbers = {f"c{k}": np.full(d, value, np.uint64) for k in range(3)}
        seen = {}
        run_sum(numbers, {"opening": ["c2"]}, seen=seen)
        for name, masked in seen.items():
            assert unevenness(masked) < 255 + 6 * 22.6, name
            assert unevenness(numbers[name]) > 10**6
        pair = seen["c0"] + seen["c1"]  # a part of the clients' sum is masked too
        assert unevenness(pair) < 255 + 6 * 22.6
        correlation = np.corrcoef(seen["c0"].astype(float), seen["c1"].astype(float))[0, 1]
        assert abs(correlation) < 6 / math.sqrt(d)


def ready_client():
    """Return a client that has masked, its server and the names of its neighbours."""
    names = ["a", "b", "c", "d"]
    clients = {name: MaskingClient(name, "p") for name in names}
    server = MaskingServer("p", 3)
    told = server.neighbours({name: clients[name].advertise() for name in names})
    sealed = server.deliver({name: clients[name].share_keys(told[name]) for name in names})
    for name in names:
        server.add(name, clients[name].mask(np.zeros(4, np.uint64), sealed[name]))
    return clients["a"], clients, sealed, told


def test_a_client_never_gives_both_halves_for_one_neighbour():
    client, *_ = ready_client()
    with pytest.raises(Unfit, match="stayed or is gone"):
        client.unmask(Ask(["a", "b", "c", "d"], ["d"]))
    assert set(client.unmask(Ask(["a", "b", "c"], ["d"]))) == {"a", "b", "c", "d"}
    with pytest.raises(Unfit, match="once in a sum"):
        client.unmask(Ask(["a", "b", "c", "d"], []))


@pytest.mark.parametrize(
    ("stayed", "gone", "why"),
    [
        (["a", "b"], ["c", "d"], "only 2 clients stayed"),
        (["b", "c", "d"], [], "stayed or is gone"),  # leaves out the client itself
        (["a", "b", "c"], [], "stayed or is gone"),  # leaves out a neighbour
        (["a", "b", "c", "d", "e"], [], "stayed or is gone"),  # a stranger
    ],
)
def test_a_client_refuses_to_open_for_a_server_that_lies(stayed, gone, why):
    client, *_ = ready_client()
    with pytest.raises(Unfit, match=why):
        client.unmask(Ask(stayed, gone))


def test_a_client_masks_once_and_only_among_enough():
    client, _clients, sealed, told = ready_client()
    with pytest.raises(Unfit, match="masks once"):
        client.mask(np.ones(4, np.uint64), sealed["a"])
    with pytest.raises(Unfit, match="has shared its keys"):
        client.share_keys(told["a"])
    alone = MaskingClient("a", "p")
    with pytest.raises(Unfit, match="after it has shared"):
        alone.mask(np.zeros(4, np.uint64), {})
    alone.share_keys(told["a"]._replace(others=dict(told["a"].others)))
    with pytest.raises(Unfit, match="too few"):
        alone.mask(np.zeros(4, np.uint64), {"b": sealed["a"]["b"]})


def test_a_client_shares_only_where_that_protects_it():
    keys = [MaskingClient(name, "p").advertise() for name in "bcd"]
    three = {name: Neighbour(k, key) for k, (name, key) in enumerate(zip("bcd", keys, strict=True), start=2)}
    for told, why in (
        (Neighbours(1, 2, {"b": three["b"]}), "3 clients or more"),
        (Neighbours(1, 1, three), "1 of 4 shares"),
        (Neighbours(1, 2, three), "2 of 4 shares"),  # two others could give its key away, and two its seed
        (Neighbours(1, 5, three), "5 of 4 shares"),
        (Neighbours(2, 3, three), "one place"),
        (Neighbours(1, 3, {**three, "c": Neighbour(3, keys[0])}), "one key"),
    ):
        with pytest.raises(Unfit, match=why):
            MaskingClient("a", "p").share_keys(told)


def test_shares_that_were_changed_or_sent_to_another_are_refused():
    fresh = {name: MaskingClient(name, "p") for name in "abcd"}
    server = MaskingServer("p", 3)
    roster = server.neighbours({name: fresh[name].advertise() for name in fresh})
    real = server.deliver({name: fresh[name].share_keys(roster[name]) for name in fresh})
    fresh["a"].mask(np.zeros(4, np.uint64), {**real["a"], "b": real["c"]["b"]})  # what b sealed for c
    with pytest.raises(Unfit, match="changed on their way"):
        fresh["a"].unmask(Ask(list("abcd"), []))


def test_wrong_shares_open_nothing():
    numbers = numbers_of(4)
    server = MaskingServer("p", 3)
    clients = {name: MaskingClient(name, "p") for name in numbers}
    told = server.neighbours({name: clients[name].advertise() for name in clients})
    sealed = server.deliver({name: clients[name].share_keys(told[name]) for name in clients})
    for name in ("c0", "c1", "c2"):
        server.add(name, clients[name].mask(numbers[name], sealed[name]))
    with pytest.raises(ValueError, match="not awaited"):
        server.add("c0", numbers["c0"])
    asks = server.ask()
    shares = {name: clients[name].unmask(asks[name]) for name in asks}
    shares["c1"]["c3"] = bytes(33)  # a lie about the key of the client that is gone
    with pytest.raises(TooFew, match="c3 do not belong together"):
        server.open(shares)


def test_thresholds():
    assert [find_quorum(n) for n in (3, 4, 30, 99, 100)] == [2, 3, 20, 66, 67]
    assert [find_quorum(n, 0.5) for n in (3, 4, 30, 99, 100)] == [2, 3, 16, 50, 51]
    with pytest.raises(Mistake, match="threshold"):
        find_quorum(10, 0.3)
