"""The interval of an area under the ROC curve, against hand-computed numbers, plain loops and the bootstrap."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.stats import bootstrap
from sklearn.metrics import roc_auc_score
from torch import Tensor

from coterie.objectives.kinds import KINDS
from coterie.objectives.metrics import make_metric
from coterie.objectives.metrics.delong import delong_interval


def counts_of(scores: Tensor, flags: Tensor) -> Tensor:
    """How many negatives and positives have each of the scores 0 to 9 [2, 10]."""
    return torch.stack([torch.bincount(scores[flags == k], minlength=10).double() for k in (0, 1)])


def draw(examples: int = 120) -> tuple[Tensor, Tensor]:
    """Whole scores from 0 to 9 with many ties, higher for positives."""
    generator = torch.Generator().manual_seed(1)
    flags = (torch.rand(examples, generator=generator) < 0.4).long()
    scores = torch.randn(examples, generator=generator) * 2 + 4 + 2 * flags
    return scores.round().clamp(0, 9).long(), flags


def by_loops(scores: Tensor, flags: Tensor) -> tuple[float, float]:
    """The area and its variance as DeLong et al. write them, pair by pair."""
    of_0, of_1 = scores[flags == 0].tolist(), scores[flags == 1].tolist()
    pairs = np.array([[1.0 if p > q else 0.5 if p == q else 0.0 for q in of_0] for p in of_1])
    variance = pairs.mean(1).var(ddof=1) / len(of_1) + pairs.mean(0).var(ddof=1) / len(of_0)
    return float(pairs.mean()), float(variance)


def test_four_examples_by_hand() -> None:
    """Negatives 0 and 2, positives 1 and 3: of the four pairs three are in order, so the area is 3/4.

    V10 of the positives is 1/2 and 1, and V01 of the negatives 1 and 1/2; each has the variance 1/8, and the area
    1/8 / 2 + 1/8 / 2 = 1/8. The log odds of 3/4 are log 3, with the deviation sqrt(1/8) / (3/16).
    """
    found = delong_interval(counts_of(torch.tensor([0, 2, 1, 3]), torch.tensor([0, 0, 1, 1])))
    half = 1.959963984540054 * math.sqrt(1 / 8) / (3 / 16)
    assert found == pytest.approx([1 / (1 + math.exp(-(math.log(3) + sign * half))) for sign in (-1, 1)])


def test_ties_count_by_half_as_in_the_paper() -> None:
    scores, flags = draw()
    area, variance = by_loops(scores, flags)
    assert area == pytest.approx(roc_auc_score(flags, scores))
    half = 1.959963984540054 * math.sqrt(variance) / (area * (1 - area))
    expected = [1 / (1 + math.exp(-(math.log(area / (1 - area)) + sign * half))) for sign in (-1, 1)]
    assert delong_interval(counts_of(scores, flags)) == pytest.approx(expected)


def test_the_bootstrap_agrees() -> None:
    """Its 500 draws leave it uncertain by about 0.005."""
    scores, flags = (v.numpy() for v in draw())
    found = bootstrap(
        (flags, scores), roc_auc_score, vectorized=False, paired=True, n_resamples=500,
        rng=np.random.default_rng(0), method="percentile",
    ).confidence_interval  # fmt: skip
    assert delong_interval(counts_of(*draw())) == pytest.approx((found.low, found.high), abs=0.02)


def test_the_interval_covers_the_truth_as_often_as_it_says() -> None:
    """Normal scores one deviation apart: the area is Phi(1 / sqrt 2) = 0.7602. 40 and 60 examples, 400 draws."""
    generator, covered = np.random.default_rng(0), 0
    for _ in range(400):
        scores = np.concatenate([generator.normal(0, 1, 40), generator.normal(1, 1, 60)])
        ranks = scores.argsort().argsort()
        counts = torch.zeros(2, 100, dtype=torch.float64)
        counts[(np.arange(100) >= 40).astype(int), ranks] = 1
        ends = delong_interval(counts)
        assert ends is not None
        covered += ends[0] < 0.7602499389065233 < ends[1]
    assert 0.92 < covered / 400 < 0.98


@pytest.mark.parametrize(
    ("scores", "flags"),
    [([0, 1, 2], [0, 1, 1]), ([0, 1, 2, 3], [0, 0, 1, 1]), ([5, 5, 5, 5], [0, 0, 1, 1]), ([0, 1], [1, 1])],
    ids=["one negative", "an area of 1", "all tied", "no negative"],
)
def test_where_nothing_varies_there_is_no_interval(scores: list[int], flags: list[int]) -> None:
    assert delong_interval(counts_of(torch.tensor(scores), torch.tensor(flags))) is None


def test_two_classes_have_the_interval_of_their_log_odds_and_more_classes_none() -> None:
    generator = torch.Generator().manual_seed(0)
    outputs, y = torch.randn(50, 2, generator=generator), torch.arange(50) % 2
    of_classes = make_metric("auroc", KINDS["classification"], 2)
    of_logit = make_metric("auroc", KINDS["binary"], 1)
    found = of_classes.interval(of_classes.totals(outputs, y))
    assert found is not None
    assert found == of_logit.interval(of_logit.totals(outputs[:, 1] - outputs[:, 0], y))
    assert not make_metric("auroc", KINDS["classification"], 3).has_interval
    assert not make_metric("average_precision", KINDS["binary"], 1).has_interval
