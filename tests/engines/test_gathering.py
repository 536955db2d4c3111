"""Batches that are gathered in blocks are those of their steps."""

import pytest
import torch

from coterie import Examples
from coterie.engines import gathering
from coterie.engines.gathering import gather_batches, steps_per_block
from coterie.engines.sequential import Sequential

POOL = Examples(torch.randn(7, 6), torch.arange(7) % 3)
ENGINE = Sequential(dtype=torch.float64)
ROWS = [torch.tensor(rows) for rows in ([4, 2], [0, 1, 6], [5], [3, 3, 1])]
KEYS = torch.arange(4)


@pytest.mark.parametrize("block", [1, 100, 2**20])
def test_a_batch_has_its_own_step_s_rows(block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The number of steps gathered at a time changes nothing."""
    monkeypatch.setattr(gathering, "BLOCK_BYTES", block)
    batches = list(gather_batches(POOL, ROWS, KEYS, ENGINE))
    assert [batch.rows.tolist() for batch in batches] == [rows.tolist() for rows in ROWS]
    for batch, rows, key in zip(batches, ROWS, KEYS, strict=True):
        assert torch.equal(batch.x, POOL.x[rows].double())
        assert batch.y is not None
        assert torch.equal(batch.y, POOL.y[rows])  # type: ignore[index]
        assert batch.mask is None
        assert batch.key == key


@pytest.mark.parametrize("block", [1, 2**20])
def test_a_batch_is_padded_with_its_first_example_and_masked(block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gathering, "BLOCK_BYTES", block)
    batches = list(gather_batches(POOL, ROWS, KEYS, ENGINE, width=4))
    assert [batch.rows.tolist() for batch in batches] == [[4, 2, 4, 4], [0, 1, 6, 0], [5, 5, 5, 5], [3, 3, 1, 3]]
    assert [batch.mask.tolist() for batch in batches if batch.mask is not None] == [
        [True, True, False, False],
        [True, True, True, False],
        [True, False, False, False],
        [True, True, True, False],
    ]
    assert all(torch.equal(batch.x, POOL.x[batch.rows].double()) for batch in batches)


def test_no_labels_and_no_steps() -> None:
    (batch,) = gather_batches(Examples(POOL.x), ROWS[:1], KEYS[:1], ENGINE)
    assert batch.y is None
    assert list(gather_batches(POOL, [], KEYS[:0], ENGINE)) == []


def test_a_block_is_bounded_in_bytes() -> None:
    """An example takes 6 x 4 bytes, a step of 8 of them 192: 5461 such steps fit in a megabyte."""
    assert steps_per_block(POOL, 8) == 2**20 // 192
    assert steps_per_block(Examples(torch.zeros(2, 2**20)), 8) == 1
