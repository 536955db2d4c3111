"""Client states between rounds: values that a round replaces and never changes."""

import torch

from coterie.core.tree import Tree
from coterie.loop.store import Store


def state(value: float) -> Tree:
    return {"c": torch.tensor(value)}


def held(store: Store) -> dict[str, float]:
    return {client: float(kept["c"]) for client in "abc" if (kept := store.get(client)) is not None}


def test_a_client_that_never_took_part_has_no_state() -> None:
    assert Store().get("a") is None
    assert Store().versions() == {}


def test_a_round_leaves_the_store_before_it_as_it_was() -> None:
    before = Store().after(1, {"a": state(1), "b": state(2)})
    after = before.after(4, {"b": state(3), "c": state(4)})
    assert held(before) == {"a": 1, "b": 2}
    assert before.versions() == {"a": 1, "b": 1}
    assert held(after) == {"a": 1, "b": 3, "c": 4}
    assert after.versions() == {"a": 1, "b": 4, "c": 4}


def test_states_are_shared_not_copied() -> None:
    one = Store().after(1, {"a": state(1)})
    assert one.after(2, {"b": state(2)}).get("a") is one.get("a")
    assert one.after(2, {}) is one


def test_a_deferred_state_is_read_once_and_only_when_asked_for() -> None:
    reads: list[str] = []

    def read(client: str) -> Tree:
        reads.append(client)
        return state(ord(client))

    store = Store()
    for client in "abc":
        store.defer(client, 7, lambda client=client: read(client))
    assert store.versions() == {"a": 7, "b": 7, "c": 7}
    assert reads == []
    store.get("b"), store.get("b")
    assert reads == ["b"]
    later = store.after(8, {"a": state(0)})
    assert held(later) == {"a": 0, "b": ord("b"), "c": ord("c")}
    assert reads == ["b", "c"]
    assert later.versions() == {"a": 8, "b": 7, "c": 7}


def test_since_gives_the_newer_states_deferred_ones_included() -> None:
    """A checkpoint in another folder than the one that was resumed from must hold those too."""
    store = Store()
    store.defer("a", 3, lambda: state(1))
    store.defer("b", 5, lambda: state(2))
    store = store.after(6, {"c": state(3)})
    assert [(client, made, float(kept["c"])) for client, made, kept in store.since(3)] == [("b", 5, 2), ("c", 6, 3)]
    assert len(list(store.since(0))) == 3
    assert list(store.since(6)) == []
