"""Standardising without pooling."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from coterie.core.errors import Mistake
from coterie.core.examples import Examples
from coterie.data import Source, deal, own_test
from coterie.data.feature_encoding import ColumnEncoding
from coterie.data.standardize import compute_scale, standardize, sum_columns
from coterie.data.standardize_clients import standardize_clients

NAN = float("nan")


def table(x, groups, test=None, test_groups=None, measured=("dose",)):
    x = torch.tensor(x)
    held = None if test is None else Examples(torch.tensor(test), torch.zeros(len(test), dtype=torch.int64))
    y = torch.zeros(len(x), dtype=torch.int64)
    columns = [ColumnEncoding(name, None, missing=False) for name in measured]
    return Source("toy", Examples(x, y), held, 1, groups=groups, test_groups=test_groups, columns=columns)


def test_federated_by_hand():
    """Observed 1, 3 (a) and 5, 7 (b): n = 4, mean 4, mean square 21, variance 5. The gap becomes 0, column 1 stays.

    Each client sends three float64 for the one column, 24 bytes, and receives two, 16 bytes.
    """
    toy = table([[1.0, 9.0], [3.0, 9.0], [NAN, 9.0], [5.0, 9.0], [7.0, 9.0]], list("aaabb"), test=[[9.0, 1.0]])
    done = standardize(toy, deal(toy))
    s = 5**0.5
    expected = {"a": [-3 / s, -1 / s, 0.0], "b": [1 / s, 3 / s]}
    for c, values in expected.items():
        x = done.clients[c].tensors()[0]
        assert torch.allclose(x[:, 0], torch.tensor(values))
        assert (x[:, 1] == 9).all()
    assert done.source.test.x.tolist()[0] == pytest.approx([5 / s, 1.0])
    assert (done.bytes_up, done.bytes_down) == (24, 16)
    assert done.clients["a"].x is done.clients["b"].x
    assert toy.train.x[0, 0] == 1


def test_local_by_hand():
    """Client a: 1, 3 has mean 2, deviation 1; b: 5, 9 has 7, 2. The test rows of z and y, 10 and 20, have 15 and 5."""
    toy = table(
        [[1.0], [3.0], [5.0], [9.0]],
        list("aabb"),
        test=[[9.0], [4.0], [10.0], [20.0]],
        test_groups=["b", "a", "z", "y"],
    )
    done = standardize(toy, deal(toy), "local")
    assert [e.tensors()[0].flatten().tolist() for e in done.clients.values()] == [[-1, 1], [-1, 1]]
    assert done.source.test.x.flatten().tolist() == [1, 2, -1, 1]
    assert (done.bytes_up, done.bytes_down) == (0, 0)
    assert own_test(done.source, done.clients)["b"].tensors()[0].tolist() == [[1]]


def test_none_only_fills_the_gaps():
    toy = table([[1.0], [NAN]], list("ab"))
    done = standardize(toy, deal(toy), "none")
    assert done.source.train.x.tolist() == [[1], [0]]
    assert done.bytes_up == 0


def test_rows_of_no_client_have_their_gaps_filled_too():
    """examples_per_client = 1 leaves some rows out; a pooled baseline may still read them."""
    toy = table([[NAN], [NAN], [2.0], [4.0]], list("aabb"))
    for how in ("federated", "local", "none"):
        assert standardize(toy, deal(toy, examples_per_client=1), how).source.train.x.isfinite().all()


some_values = st.lists(st.floats(-1e3, 1e3, width=32) | st.just(NAN), min_size=1, max_size=5)


@given(st.lists(some_values, min_size=1, max_size=4))
def test_the_sums_of_clients_give_mean_and_deviation_of_the_pool(parts):
    """Against numpy over the pooled observed values; a pool without variation or observation has deviation 1."""
    scale = compute_scale(sum_columns(torch.tensor(part).unsqueeze(1), [0]) for part in parts)
    pool = np.array([v for part in parts for v in part if not np.isnan(v)], dtype=np.float64)
    assert scale.mean.item() == pytest.approx(pool.mean() if len(pool) else 0, abs=1e-6)
    deviation = pool.std() if len(pool) else 0
    if deviation > 1e-3:
        assert scale.deviation.item() == pytest.approx(deviation, rel=1e-3)
    if len(set(pool.tolist())) <= 1:
        assert scale.deviation.item() == 1


def test_a_small_deviation_survives_beside_a_large_mean():
    """2,000 +- 1 has mean square 4,000,001, which float32 would round to 4,000,000 and so lose the variance."""
    scale = compute_scale([sum_columns(torch.tensor([[1999.0], [2001.0]]), [0])])
    assert (scale.mean.item(), scale.deviation.item()) == (2000, 1)


def test_channels_of_pictures_by_hand():
    """Four pixels of channel 0 at client a: 1, 3, 1, 3; at b: 5, 7, 5, 7: mean 4, variance 5. Channel 1 is always 9."""
    levels = torch.tensor([1.0, 3.0, 1.0, 3.0, 5.0, 7.0, 5.0, 7.0]).reshape(2, 1, 2, 2)
    x = torch.cat([levels, torch.full_like(levels, 9.0)], 1)  # [2, 2, 2, 2]
    pool = Examples(torch.cat([x, x[:1]]), torch.zeros(3, dtype=torch.int64))
    toy = Source("toy", pool.take(torch.arange(2)), pool.take(torch.tensor([2])), 1, groups=["a", "b"])
    done = standardize(toy, deal(toy), "federated")
    s = 5**0.5
    seen = done.clients["b"].tensors()[0]
    assert torch.allclose(seen[0, 0].flatten(), torch.tensor([1 / s, 3 / s, 1 / s, 3 / s]))
    assert (seen[0, 1] == 0).all()
    assert torch.allclose(done.source.test.tensors()[0][0, 0, 0], torch.tensor([-3 / s, -1 / s]))
    assert done.source.test.x is done.source.train.x  # one pool stays one
    assert (done.bytes_up, done.bytes_down) == (3 * 2 * 8, 2 * 2 * 8)
    local = standardize(toy, deal(toy), "local").clients["b"].tensors()[0]
    assert local[0, 0].flatten().tolist() == [-1, 1, -1, 1]
    assert standardize(toy, deal(toy)).source is toy


def test_numbers_that_everyone_knows_cost_nothing():
    """(1 - 3) / 2 = -1 and a gap, which becomes 0; of pictures (0.5 - 0.25) / 0.5 = 0.5."""
    rows = table([[1.0, 9.0], [NAN, 9.0]], list("ab"))
    done = standardize(rows, deal(rows), {"mean": [3.0], "deviation": [2.0]})
    assert done.source.train.x.tolist() == [[-1, 9], [0, 9]]
    assert (done.bytes_up, done.bytes_down) == (0, 0)
    grey = Source("toy", Examples(torch.full((2, 1, 4, 4), 0.5), torch.zeros(2)), None, 1)
    done = standardize(grey, deal(grey, num_clients=2), {"mean": [0.25], "deviation": [0.5]})
    assert (done.source.train.x == 0.5).all()
    for wrong, says in (
        ({"mean": [0.1, 0.2], "deviation": [1.0, 1.0]}, r"each with 1 numbers, one for each column"),
        ({"mean": [0.1]}, r"must be {mean = \[...\], deviation"),
        ({"mean": [float("nan")], "deviation": [1.0]}, r"must be {mean"),
        ({"mean": [0.1], "deviation": [0.0]}, r"^standardize.deviation = \[0.0\]: it must be numbers above 0"),
    ):
        with pytest.raises(Mistake, match=says):
            standardize(grey, deal(grey, num_clients=2), wrong)


def test_rows_without_named_columns_are_standardised_only_if_asked_for():
    """An npz of two features: left alone by default, standardised if the user asks for it; tokens never."""
    rows = table([[1.0, 2.0], [3.0, 2.0]], list("ab"), measured=())
    assert standardize(rows, deal(rows)).source is rows
    assert standardize(rows, deal(rows), "federated").source.train.x.tolist() == [[-1, 0], [1, 0]]
    tokens = Source("toy", Examples(torch.zeros(2, 5, dtype=torch.int64), torch.zeros(2)), None, 1)
    with pytest.raises(Mistake, match=r'^standardize = "local": the source toy has neither a table nor pictures'):
        standardize(tokens, deal(tokens, num_clients=2), "local")
    with pytest.raises(Mistake, match=r'^standardize = "global": it must be one of federated, local, none'):
        standardize(rows, deal(rows), "global")


def test_tables_of_one_s_own_are_standardised_as_those_of_a_source() -> None:
    x = [[1.0, 1.0], [3.0, 0.0], [NAN, 1.0], [5.0, 0.0], [7.0, 1.0]]
    source = table(x, ["a", "a", "a", "b", "b"], [[9.0, 1.0]], ["a"])
    clients = deal(source)
    expected = standardize(source, clients)
    given = {client: each.tensors() for client, each in clients.items()}
    ready, test, scale = standardize_clients(given, source.test, source.numeric)
    assert list(ready) == list(clients)
    for client, each in ready.items():
        assert torch.equal(each.x, expected.clients[client].tensors()[0])
    assert test is not None
    assert expected.source.test is not None
    assert torch.equal(test.x, expected.source.test.tensors()[0])
    assert torch.equal(scale.mean, expected.scaling.scale.mean)  # type: ignore[union-attr]
    with pytest.raises(Mistake, match=r"clients: they are not those that coterie\.data\.deal made"):
        standardize(source, {client: Examples(*each.tensors()) for client, each in clients.items()})
    with pytest.raises(Mistake, match=r'clients\["1"\]: x is float32 of shape \[2, 3\]; it must be floats \[n, 2\]'):
        standardize_clients([(torch.ones(2, 2), torch.ones(2)), (torch.ones(2, 3), torch.ones(2))])
    with pytest.raises(Mistake, match=r"columns = \[2\]: it must be numbers from 0 to 1"):
        standardize_clients([(torch.ones(2, 2), torch.ones(2))], columns=[2])
