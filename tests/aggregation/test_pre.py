"""Steps before a rule: against their formulas and ByzFL, and chained."""

import numpy as np
import pytest
import torch
from torch import Tensor

from coterie.aggregation import PRE, aggregation, arc, bucketing, clip, nnm
from coterie.core import rng
from coterie.core.aggregators import Mixed, Mixing, gram, mixing_matrix
from tests.aggregation import plain
from tests.aggregation.byzfl import oracle
from tests.aggregation.test_rules import every_size, rows


def left(x: Tensor, *mixings: Mixing, key: int = 0) -> np.ndarray:
    """The vectors that a rule would see: [m, d]."""
    return (mixing_matrix(mixings, gram(x), rng.key(key)) @ x).numpy()


@every_size
def test_nearest_neighbour_mixing(n: int, f: int) -> None:
    x = rows(n)
    np.testing.assert_allclose(left(x, nnm(f)), plain.nnm(list(x.numpy()), f), rtol=0, atol=1e-9)
    np.testing.assert_allclose(left(x, nnm(f)), oracle("aggregators").NNM(f=f)(x.numpy()), rtol=0, atol=1e-9)


@every_size
def test_clipping(n: int, f: int) -> None:
    x = rows(n)
    np.testing.assert_allclose(left(x, clip(2.5)), plain.clip(list(x.numpy()), 2.5), rtol=0, atol=1e-9)
    np.testing.assert_allclose(left(x, clip(2.5)), oracle("aggregators").Clipping(c=2.5)(x.numpy().copy()), atol=1e-9)


@every_size
def test_adaptive_clipping(n: int, f: int) -> None:
    x = rows(n)
    np.testing.assert_allclose(left(x, arc(f)), plain.arc(list(x.numpy()), f), rtol=0, atol=1e-9)
    np.testing.assert_allclose(left(x, arc(f)), oracle("aggregators").ARC(f=f)(x.numpy().copy()), rtol=0, atol=1e-9)


@every_size
@pytest.mark.parametrize("size", [1, 2, 3])
def test_buckets_are_means_of_disjoint_updates(n: int, f: int, size: int) -> None:
    """Of the updates 1, 10, 100, ... a bucket's sum shows which it has: every update is in one bucket, all buckets but
    the last have `size`, and there are as many as ByzFL makes."""
    in_bucket = mixing_matrix([bucketing(f, size)], torch.eye(n, dtype=torch.float64), rng.key(3))
    counts = (in_bucket > 0).sum(1).tolist()
    assert (in_bucket > 0).sum(0).tolist() == [1] * n
    assert counts == [size] * (n // size) + [n % size] * (n % size > 0)
    assert torch.allclose(in_bucket.sum(1), torch.ones(len(counts), dtype=torch.float64))
    assert len(counts) == len(oracle("aggregators").Bucketing(s=size)(rows(n).numpy()))


@pytest.mark.parametrize("n", range(3, 30))
@pytest.mark.parametrize("f", range(4))
def test_the_default_bucket_leaves_attackers_a_minority(n: int, f: int) -> None:
    """If each of f attackers falls into a bucket of its own, more than f are left."""
    if n > 2 * f:
        made = mixing_matrix([bucketing(f)], torch.eye(n, dtype=torch.float64))
        assert int((made[0] > 0).sum()) == plain.buckets(n, f)
        assert len(made) > 2 * f


def test_buckets_depend_on_the_key_and_on_nothing_else() -> None:
    x = rows(10)
    np.testing.assert_array_equal(left(x, bucketing(2), key=1), left(x, bucketing(2), key=1))
    assert (left(x, bucketing(2), key=1) != left(x, bucketing(2), key=2)).any()


def test_a_chain_does_one_step_after_another() -> None:
    """Clipping, then mixing the clipped ones; and the rule after both."""
    x = rows(7)
    clipped = plain.clip(list(x.numpy()), 2.0)
    np.testing.assert_allclose(left(x, clip(2.0), nnm(2)), plain.nnm(clipped, 2), rtol=0, atol=1e-9)
    expected = {
        "trimmed_mean": plain.trimmed_mean(plain.nnm(clipped, 2), 2),
        "multi_krum": plain.multi_krum(plain.nnm(clipped, 2), 5, 4),
        "mean": np.mean(plain.nnm(clipped, 2), axis=0),
    }
    for name, by_hand in expected.items():
        kind = aggregation(name, pre=["clip", "nnm"], num_byzantine=2, clip_length=2.0)
        assert isinstance(kind, Mixed)
        np.testing.assert_allclose(kind.reduce(x, [1.0] * 7).numpy(), by_hand, rtol=0, atol=1e-9)


def test_only_clipping_at_a_given_length_presumes_differences() -> None:
    steps = {name: aggregation("mean", pre=[name], **own) for name, own in PARAMETERS.items()}
    assert {n for n, s in steps.items() if isinstance(s, Mixed) and s.mixings[0].of_differences} == {"clip"}


PARAMETERS: dict[str, dict[str, float]] = {
    "arc": {"num_byzantine": 1},
    "bucketing": {"num_byzantine": 1},
    "clip": {"clip_length": 1.0},
    "nnm": {"num_byzantine": 1},
}
assert PARAMETERS.keys() == PRE.keys()
