"""Membership inference: whether an example was part of the training, from the model alone.

    loss   score = -loss(x)                                              Yeom et al., adversary 1 with all thresholds
    lira   score = log Phi((phi(x) - mean phi_out(x)) / sd phi_out)      Carlini et al., section VI-B (offline)
           phi = log(p / (1 - p)) of the right label; phi_out of shadow models that were trained without x

An attack is judged by how many members it finds at a false positive rate so low that its claims can be believed, and by
the area under its ROC curve, which is 0.5 for a guess.

Departures from the papers: the standard deviation is one for all examples, as Carlini et al. advise for few shadow
models. For losses that are not -log p, phi is the negative loss.

Yeom, Giacomelli, Fredrikson, Jha: Privacy Risk in Machine Learning, CSF 2018.
Carlini, Chien, Nasr, Song, Terzis, Tramèr: Membership Inference Attacks From First Principles, IEEE S&P 2022.

Legend: M examples, S shadow models.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from coterie.objectives.metrics.delong import delong_interval

CURVE_POINTS = 200
LOW_RATES = (0.001, 0.01)


@dataclass(frozen=True)
class Membership:
    """How well members are told from others.

    Attributes:
        members, others: how many examples of each were judged.
        auc: the area under the ROC curve. interval: its 95 % interval; None where it cannot be told.
        advantage: the largest true minus false positive rate over all thresholds (Yeom et al., definition 4).
        at_low_rates: false positive rate -> the share of members found at it; None where fewer than one example of the
            others could be wrong at this rate.
        false_positive, true_positive: the ROC curve, of up to 200 points.
    """

    members: int
    others: int
    auc: float
    interval: tuple[float, float] | None
    advantage: float
    at_low_rates: dict[float, float | None]
    false_positive: list[float]
    true_positive: list[float]


def judge_membership(members: Tensor, others: Tensor) -> Membership:
    """Return how well scores, higher for members, tell members [M] from others [M'].

    >>> judge_membership(torch.tensor([1.0, 3.0]), torch.tensor([0.0, 2.0])).auc
    0.75
    """
    scores = torch.cat([others, members]).double()
    labels = torch.cat([torch.zeros(len(others)), torch.ones(len(members))]).long()
    values, place = torch.unique(scores, return_inverse=True)
    counts = torch.bincount(labels * len(values) + place, minlength=2 * len(values)).reshape(2, -1).double()
    rates = counts.flip(1).cumsum(1) / counts.sum(1, keepdim=True)  # [2, values], from the highest score down
    false, true = torch.cat([torch.zeros(2, 1, dtype=torch.float64), rates], 1)
    chosen = torch.linspace(0, len(false) - 1, min(CURVE_POINTS, len(false))).round().long()
    return Membership(
        len(members),
        len(others),
        float(torch.trapezoid(true, false)),
        delong_interval(counts),
        float((true - false).max()),
        {rate: float(true[false <= rate].max()) if rate * len(others) >= 1 else None for rate in LOW_RATES},
        false[chosen].tolist(),
        true[chosen].tolist(),
    )


def log_odds(losses: Tensor) -> Tensor:
    """Return log(p / (1 - p)) for losses -log p [...], without overflow.

    >>> [round(float(x), 2) for x in log_odds(torch.tensor([0.5, 50.0]))]
    [0.43, -50.0]
    """
    p_log = -losses.double().clamp(min=1e-16)
    return p_log - torch.log(-torch.expm1(p_log))


def offline_scores(phi: Tensor, shadow_phi: Tensor, out: Tensor) -> Tensor:
    """Return the score of each example, float64 [M], by the offline attack.

    Args:
        phi: of the attacked model [M].
        shadow_phi: of the shadow models [S, M].
        out: which shadow models were trained without which example, bool [S, M]; one for each example at least.
    """
    weight = out.double()
    mean = (shadow_phi.double() * weight).sum(0) / weight.sum(0)  # [M]
    residual = (shadow_phi.double() - mean) * weight
    freedom = (weight.sum() - len(phi)).clamp(min=1)  # a mean was fitted to each example
    spread = (residual.square().sum() / freedom).sqrt().clamp(min=1e-9)
    scores: Tensor = torch.special.log_ndtr((phi.double() - mean) / spread)
    return scores
