"""What every engine runs: the same rows, keys and numbers, planned beforehand."""

from dataclasses import replace
from typing import Any

import pytest
import torch

import coterie
from coterie import Algorithm, Batch, Examples, Stream
from coterie.core.engine import Job, as_input, batch_rows, client_context, count_steps, step_keys
from coterie.engines.sequential import Sequential
from coterie.models.functional import make_task
from coterie.objectives import cross_entropy
from tests.federations import dense, ragged

SEED_SET = Examples(torch.randn(7, 6), torch.arange(7) % 3)


def algorithm(**streams: Stream) -> Algorithm:
    base = coterie.fedavg(lr=0.1, lr_decay=0.5)(make_task(dense(), loss=cross_entropy))
    return replace(base, client=replace(base.client, streams={"private": Stream(5), **streams}))


def job(client: str = "1", **changes: Any) -> Job:
    data = {"private": ragged()[client], "seed": SEED_SET, "first": ragged()[client]}
    return Job(client, "model", {}, data, None, 3, 9)._replace(**changes)


def test_the_first_stream_sets_the_number_of_steps_and_others_follow() -> None:
    """23 examples in batches of 5 are five steps; 7 of the seed set in batches of 3 start over as often as needed; a
    stream that comes once has one batch."""
    both = algorithm(seed=Stream(3, source="seed_set"), first=Stream("full", once=True))
    assert count_steps(both, job()) == 5
    rows = batch_rows(both, job(), 5)
    assert [len(b) for b in rows["private"]] == [5, 5, 5, 5, 3]
    assert [len(b) for b in rows["seed"]] == [3, 3, 1, 3, 3]
    assert [len(b) for b in rows["first"]] == [23]


def test_orders_and_keys_are_those_of_seed_round_client_and_stream() -> None:
    both = algorithm(seed=Stream(3, source="seed_set"), first=Stream(5))
    jobs = {
        "itself": job(),
        "again": job(),
        "another seed": job(rng_seed=8),
        "another round": job(round=4),
        "another client": job()._replace(client="one more"),
    }
    orders = {name: torch.cat(batch_rows(both, j, 5)["private"]).tolist() for name, j in jobs.items()}
    keys = {name: tuple(step_keys(both, j, 5)["private"].tolist()) for name, j in jobs.items()}
    for found in (orders, keys):
        assert found.pop("itself") == found["again"]
        assert len({tuple(v) for v in found.values()}) == 4
    streams = step_keys(both, job(), 5)
    assert len({int(k) for ks in streams.values() for k in ks}) == 15
    rows = batch_rows(both, job(), 5)
    assert torch.cat(rows["private"]).tolist() != torch.cat(rows["first"]).tolist()


def test_a_context_tells_the_round_s_facts() -> None:
    ctx = client_context(algorithm(), job(), 5, Sequential(dtype=torch.float64))
    assert (ctx.round, ctx.examples, ctx.steps, ctx.seed_set) == (3, 23, 5, None)
    assert float(ctx.lr) == pytest.approx(0.1 * 0.5**2)
    assert {t.dtype for t in (ctx.round, ctx.examples, ctx.steps, ctx.lr)} == {torch.float64}
    assert {t.shape for t in ctx[:5]} == {torch.Size([])}


def test_a_context_holds_the_whole_seed_set_in_its_order() -> None:
    ctx = client_context(algorithm(), job(seed_set=SEED_SET), 5, Sequential())
    assert isinstance(ctx.seed_set, Batch)
    assert torch.equal(ctx.seed_set.x, SEED_SET.x)
    assert torch.equal(ctx.seed_set.y, SEED_SET.y)
    assert ctx.seed_set.rows.tolist() == list(range(7))
    assert ctx.seed_set.mask is None


def test_only_floats_take_the_engine_s_type() -> None:
    engine = Sequential(dtype=torch.float64)
    assert as_input(torch.ones(2), engine).dtype == torch.float64
    assert as_input(torch.ones(2, dtype=torch.int32), engine).dtype == torch.int32
    assert as_input(torch.ones(2, dtype=torch.bool), engine).dtype == torch.bool
