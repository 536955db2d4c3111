"""Under a guarantee two moments give back the mean and the variance of a mixture, and posteriors stay posteriors."""

from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from coterie.algorithms.batchnorm.private_statistics import PRIVATE_STATISTICS
from coterie.algorithms.posteriors import PRIVATE_POSTERIORS, exchange, weigh_equally
from coterie.core import tree
from coterie.core.algorithm import RoundInfo
from coterie.privacy.bounded_sum import BoundedSum


def sent(values: torch.Tensor) -> tree.Tree:
    return {
        "mean": {"n": values.mean(0)},
        "var": {"n": values.var(0, unbiased=False)},
        "number": {"n": torch.tensor(float(len(values)))},
    }


@settings(max_examples=30)
@given(st.integers(0, 10**6), st.integers(1, 5), st.floats(0.1, 10.0))
def test_without_noise_the_moments_are_those_of_all_values(seed: int, clients: int, variance: float) -> None:
    """Clients with 7 values each: counted alike, their mixture is the union of their values."""
    draw = torch.Generator().manual_seed(seed)
    values = [torch.randn(7, 3, generator=draw, dtype=torch.float64) * 2 + k for k in range(clients)]
    running = {"mean": {"n": torch.full((3,), 0.4).double()}, "var": {"n": torch.full((3,), variance).double()}}
    broadcast = {"statistics": running}
    differences = [PRIVATE_STATISTICS.difference(sent(v), broadcast) for v in values]
    mean = tree.scale(differences[0], 0.0)
    for difference in differences:
        mean = tree.add(mean, difference, 1 / clients)
    pooled = PRIVATE_STATISTICS.restore(mean, broadcast)
    union = torch.cat(values)
    assert torch.allclose(pooled["mean"]["n"], union.mean(0))
    assert torch.allclose(pooled["within"]["n"] + pooled["between"]["n"], union.var(0, unbiased=False))


def test_a_client_like_the_running_statistics_sends_zeros_and_noise_leaves_no_negative_variance() -> None:
    running = {"mean": {"n": torch.tensor([1.0, -2.0])}, "var": {"n": torch.tensor([0.5, 3.0])}}
    like = {**running, "number": {"n": torch.tensor(9.0)}}
    difference = PRIVATE_STATISTICS.difference(like, {"statistics": running})
    assert all(not bool(leaf.any()) for leaf in tree.leaves(difference))
    noisy = tree.map(lambda x: x - 50.0, difference)
    pooled = PRIVATE_STATISTICS.restore(noisy, {"statistics": running})
    assert pooled["within"]["n"].tolist() == [0.0, 0.0]


def test_noisy_posteriors_are_posteriors_again() -> None:
    table = torch.tensor([[0.7, 0.2, 0.1], [1 / 3, 1 / 3, 1 / 3]])
    difference = PRIVATE_POSTERIORS.difference(table, {})
    assert torch.allclose(difference[1], torch.zeros(3), atol=1e-7)
    assert torch.allclose(PRIVATE_POSTERIORS.restore(difference, {}), table, atol=1e-5)
    mended = PRIVATE_POSTERIORS.restore(difference + torch.tensor([-2.0, 3.0, -0.5]), {})
    assert bool((mended > 0).all())
    assert torch.allclose(mended.sum(-1), torch.ones(2))


def test_mutual_learners_get_the_bounded_mean_with_their_own_share_in_it() -> None:
    """By hand: two tables on two seed examples of two classes, C = 0.5, no noise.

    Their distances from 1/2 are ((0.4, -0.4), (0.3, -0.3)), of the norm sqrt(0.5), scaled down by sqrt(0.5); and
    ((-0.1, 0.1), (0, 0)), within the bound. The server adds them up, divides by 2 and adds 1/2.
    """
    tables = [torch.tensor([[0.9, 0.1], [0.8, 0.2]]), torch.tensor([[0.4, 0.6], [0.5, 0.5]])]
    summed = BoundedSum(0.5)
    for table in tables:
        summed.add({"posteriors": PRIVATE_POSTERIORS.difference(table, {})})
    assert summed.total is not None
    mean = PRIVATE_POSTERIORS.restore(summed.total["posteriors"] / 2, {})
    shrunk = 0.5**0.5
    first = 0.5 + (0.4 * shrunk - 0.1) / 2, 0.5 + 0.3 * shrunk / 2
    expected = torch.tensor([[first[0], 1 - first[0]], [first[1], 1 - first[1]]], dtype=torch.float64)
    assert torch.allclose(mean, expected, atol=1e-9)
    peers = exchange("sum")
    for noisy, teacher in ((True, expected), (False, 2 * expected - tables[0])):
        state = peers.update(mean, RoundInfo(4, 2, 2, {}, noisy=noisy))
        found = peers.teachers(state, tables[0].double(), torch.tensor(4.0).double(), weigh_equally)
        assert torch.allclose(found["tables"][0], teacher, atol=1e-6)
        assert found["trust"].tolist() == [1.0]
