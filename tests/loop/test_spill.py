"""Trees beyond a budget of memory are on the disk, and come back as they were."""

import gc
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from coterie.core.errors import Mistake
from coterie.core.machine import memory_limits
from coterie.core.tree import Tree
from coterie.loop import spill
from coterie.loop.spill import MIN_BUDGET_BYTES, Memory, StoredTree, budget_bytes
from coterie.loop.store import Store


def state(value: float) -> Tree:
    """A hundred bytes, and a branch without leaves."""
    return {"c": torch.full((25,), float(value)), "empty": {}}


def value(kept: Tree | None) -> float:
    assert kept is not None
    assert list(kept) == ["c", "empty"]
    return float(kept["c"][0])


def files(memory: Memory) -> list[Path]:
    return [] if memory._folder is None else list(Path(memory._folder.name).iterdir())


def test_the_least_lately_used_goes_first() -> None:
    """Three of a hundred bytes fit 300. The first was used after the second, so the fourth drives out the second."""
    memory = Memory(budget=300)
    held = [memory.hold(state(k)) for k in range(3)]
    assert files(memory) == []
    memory.get(held[0])
    held.append(memory.hold(state(3)))
    assert [h.content is None for h in held] == [False, True, False, False]
    assert len(files(memory)) == 1
    assert [value(memory.get(h)) for h in held] == [0, 1, 2, 3]


def test_what_is_forgotten_leaves_no_file_and_takes_no_room() -> None:
    memory = Memory(budget=100)
    held = [memory.hold(state(k)) for k in range(4)]
    folder = Path(memory._folder.name) if memory._folder else Path()
    assert len(files(memory)) == 3
    del held[:3]
    gc.collect()
    assert files(memory) == []
    assert memory._bytes == 100
    del held, memory
    gc.collect()
    assert not folder.exists()


def test_a_tree_is_written_once_however_often_it_comes_and_goes() -> None:
    memory = Memory(budget=100)
    one, two = memory.hold(state(1)), memory.hold(state(2))
    for _ in range(3):
        assert (value(memory.get(one)), value(memory.get(two))) == (1, 2)
    assert len(files(memory)) == 2


def test_what_was_read_from_elsewhere_does_not_depend_on_it_afterwards() -> None:
    """A checkpoint may be removed once another has taken its place."""
    memory, reads = Memory(budget=100), []
    held = StoredTree(None, lambda: reads.append(1) or state(5))
    memory.get(held)
    memory.hold(state(6))
    assert held.content is None
    assert value(memory.get(held)) == 5
    assert reads == [1]


def test_one_tree_larger_than_the_budget_stays() -> None:
    memory = Memory(budget=10)
    assert memory.hold(state(1)).content is not None


def test_a_disk_that_is_full_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(self: Path, data: bytes) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    store = Store(Memory(budget=100)).after(1, {"a": state(1)})
    with pytest.raises(Mistake, match=r"do not fit into memory.*No space left.*TMPDIR"):
        store.after(2, {"b": state(2)})
    assert value(store.get("a")) == 1


changes = st.lists(st.dictionaries(st.sampled_from("abcdefgh"), st.integers(0, 99), max_size=4), max_size=12)


@given(changes, st.sampled_from([0, 250, 10**6]))
def test_every_store_of_a_history_is_a_plain_dict_of_its_time(rounds: list[dict[str, int]], budget: int) -> None:
    """Whatever the budget, and however long ago it was."""
    store, expected = Store(Memory(budget)), {}
    history = [(store, expected)]
    for number, made in enumerate(rounds, 1):
        store = store.after(number, {client: state(v) for client, v in made.items()})
        expected = expected | {client: (number, v) for client, v in made.items()}
        history.append((store, expected))
    for store, expected in history:
        assert store.versions() == {client: number for client, (number, _) in expected.items()}
        assert {c: value(store.get(c)) for c in "abcdefgh" if c in store} == {c: v for c, (_, v) in expected.items()}
        newer = {client: v for client, (number, v) in expected.items() if number > 2}
        assert {client: value(kept) for client, _, kept in store.since(2)} == newer


def test_a_round_copies_little_of_a_long_history() -> None:
    """After 1,000 rounds of one client each there are about log2(1000) layers, and a client more adds one at most."""
    store = Store()
    for number in range(1, 1001):
        store = store.after(number, {str(number): state(number)})
    assert len(store._layers) <= 11
    assert value(store.get("1")) == 1
    assert all(len(before) > 2 * len(after) for before, after in zip(store._layers, store._layers[1:], strict=False))


def test_states_that_come_back_soon_may_take_more_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """An eighth of 2^36 bytes is 2^33. A client of 100 comes back every 10 rounds, one of 10,000 every 1,000."""
    monkeypatch.setattr(spill, "memory_bytes", lambda: 2**36)
    assert budget_bytes(100, 10) == budget_bytes(1_000, 10) == 2**33
    assert budget_bytes(1_000, 10, processes=2) == 2**32
    assert budget_bytes(10_000, 10) == 2**33 // 10
    assert budget_bytes(10**6, 10) == MIN_BUDGET_BYTES == 2**26


@pytest.mark.parametrize(
    ("groups", "files", "expected"),
    [
        ("0::/\n", {"memory.max": "max\n"}, []),  # a machine of its own
        ("0::/\n", {"memory.max": "4096\n"}, [4096]),  # a container sees its group as the root
        ("0::/slurm/job_7/step_0\n", {"slurm/job_7/memory.max": "512\n", "slurm/memory.max": "max\n"}, [512]),
        ("9:name=systemd:/\n4:cpu,memory:/job\n0::/\n", {"memory/job/memory.limit_in_bytes": "64\n"}, [64]),
    ],
)
def test_what_a_job_may_use_of_a_machine(
    tmp_path: Path, groups: str, files: dict[str, str], expected: list[int]
) -> None:
    for name, text in {"proc/self/cgroup": groups, **{f"sys/fs/cgroup/{k}": v for k, v in files.items()}}.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    assert list(memory_limits(tmp_path)) == expected
    assert list(memory_limits(tmp_path / "elsewhere")) == []


def test_a_round_s_new_states_are_on_the_disk_before_it_ends() -> None:
    """Two of a hundred bytes fit; the store takes all four as they are held."""
    store = Store()
    store.limit(200)
    held = {str(k): store.hold(state(k)) for k in range(4)}
    assert [h.content is None for h in held.values()] == [True, True, False, False]
    assert [value(store.after(1, held).get(str(k))) for k in range(4)] == [0, 1, 2, 3]
