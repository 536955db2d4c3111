"""Seed sets: what each client gives and keeps, and how many bytes travel."""

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given

from coterie import Examples, Mistake
from coterie.data.seed_set import add_to_clients, count_bytes, from_clients, from_pool


def holding(*labels: int, first: int = 0) -> Examples:
    """Return examples of which number i holds first + i, so that each can be recognised."""
    return Examples(torch.arange(first, first + len(labels)).float()[:, None], torch.tensor(labels))


def numbers(examples: Examples) -> list[float]:
    return sorted(examples.tensors()[0].flatten().tolist())


def counts(examples: Examples, classes: int) -> list[int]:
    return torch.bincount(examples.tensors()[1], minlength=classes).tolist()


@given(st.lists(st.integers(0, 4), min_size=2, max_size=60), st.data())
def test_a_client_gives_its_classes_as_evenly_as_it_can(labels, data):
    """No class that has examples left gave two fewer than another: the definition of even under limits."""
    wanted = data.draw(st.integers(1, len(labels) - 1))
    seed = from_clients({"a": holding(*labels)}, wanted, rng_seed=data.draw(st.integers(0, 5)))
    gave, left = counts(seed.examples, 5), counts(seed.clients["a"], 5)
    assert sum(gave) == wanted
    assert all(gave[c] >= max(gave) - 1 for c in range(5) if left[c] > 0)
    assert [g + r for g, r in zip(gave, left, strict=True)] == counts(holding(*labels), 5)


def test_seed_examples_are_removed_from_the_private_data():
    clients = {"a": holding(*[0, 1] * 10), "b": holding(*[1, 2] * 15, first=100)}
    seed = from_clients(clients, 6)
    assert len(seed.examples) == 12
    assert counts(seed.examples, 3) == [3, 6, 3]
    everything = sorted(numbers(seed.examples) + numbers(seed.clients["a"]) + numbers(seed.clients["b"]))
    assert everything == sorted(numbers(clients["a"]) + numbers(clients["b"]))


def test_the_choice_depends_on_the_rng_seed_and_the_client_alone():
    clients = {"a": holding(*[0, 1] * 20), "b": holding(*[0, 1] * 20, first=100)}
    chosen = numbers(from_clients(clients, 6, rng_seed=1).examples)
    assert numbers(from_clients(dict(reversed(clients.items())), 6, rng_seed=1).examples) == chosen
    assert numbers(from_clients(clients, 6, rng_seed=2).examples) != chosen
    assert {n % 100 for n in chosen if n >= 100} != {n for n in chosen if n < 100}


def test_a_pool_is_shared_not_copied():
    whole = holding(*[0, 1] * 20)
    clients = {"a": whole.take(torch.arange(0, 20)), "b": whole.take(torch.arange(20, 40))}
    seed = from_clients(clients, 4)
    assert seed.examples.x is whole.x
    assert seed.clients["b"].x is whole.x
    assert add_to_clients(seed.clients, seed.examples)["a"].x is whole.x


def test_examples_without_classes_are_drawn_at_random():
    windows = Examples(torch.zeros(10, 4), torch.zeros(10, 4, dtype=torch.int64))
    assert len(from_clients({"a": windows}, 3).examples) == 3
    assert len(from_clients({"a": Examples(torch.zeros(10, 4))}, 3).examples) == 3


def test_a_client_keeps_at_least_one_example():
    with pytest.raises(Mistake, match=r"^seed_examples_per_client = 3: client b holds 3 examples"):
        from_clients({"a": holding(0, 1, 0, 1), "b": holding(0, 1, 0)}, 3)
    with pytest.raises(Mistake, match=r"^seed_examples_per_client = 0: it must be a whole number"):
        from_clients({"a": holding(0, 1)}, 0)


def test_a_seed_set_from_a_pool_takes_nothing_from_the_clients():
    clients = {"a": holding(0, 1), "b": holding(0, 1)}
    seed = from_pool(holding(*[0] * 30, *[1] * 3, *[2] * 30), 12, clients)
    assert counts(seed.examples, 3) in ([5, 3, 4], [4, 3, 5])
    assert seed.clients is clients
    with pytest.raises(Mistake, match=r"^examples = 5: there are 2 to draw from"):
        from_pool(holding(0, 1), 5, clients)


def test_the_bytes_of_collecting_and_distributing():
    """An example here is one float32 and one int64, 12 bytes. Collected from 3 clients, 6 examples go up once and each
    client receives the 4 that it did not give: 6 x 12 up, 3 x 4 x 12 = 2 x 72 down. From elsewhere all 6 go to all
    3."""
    clients = {name: holding(*[0, 1] * 5) for name in "abc"}
    seed = from_clients(clients, 2)
    assert (seed.bytes_up, seed.bytes_down) == (72, 144)
    bare = seed.without_labels()
    assert bare.examples.y is None
    assert (bare.bytes_up, bare.bytes_down) == (24, 48)
    other = from_pool(holding(*[0, 1] * 10), 6, clients)
    assert (other.bytes_up, other.bytes_down) == (0, 3 * 72)
    assert count_bytes(holding(0, 1)) == 24


def test_the_seed_set_can_be_added_to_the_training_data():
    clients = {"a": holding(*[0, 1] * 5), "b": holding(*[0, 1] * 5, first=100)}
    seed = from_clients(clients, 2)
    more = add_to_clients(seed.clients, seed.examples)
    assert numbers(more["a"]) == sorted(numbers(seed.clients["a"]) + numbers(seed.examples))
    with pytest.raises(Mistake, match="a seed set without labels cannot be added"):
        add_to_clients(seed.clients, seed.without_labels().examples)
