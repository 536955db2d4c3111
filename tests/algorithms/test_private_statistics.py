"""Statistics under a guarantee: the two moments give back the mean and the variance of the clients' mixture."""

from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from coterie.algorithms.batchnorm.private_statistics import PRIVATE_STATISTICS
from coterie.algorithms.posteriors import PRIVATE_POSTERIORS
from coterie.core import tree


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
