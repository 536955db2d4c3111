"""Compare reconstructed examples with the true ones, and describe both in plain values for a report.

Legend: B examples, M reconstructions.
"""

from __future__ import annotations

import base64
import math
from typing import Any

import torch
from torch import Tensor

from coterie.probes.inversion import Range

MAX_SHOWN, MAX_SIDE, MAX_NUMBERS = 4, 64, 12
MAX_PSNR = 100.0
"""What an exact reconstruction is said to have; the rounding of float32 alone allows about this much."""


def match_examples(guesses: Tensor, x: Tensor, box: Range) -> tuple[Tensor, Tensor]:
    """Return the guess of each true example [B, ...], and its squared error [B] in units of the examples' range.

    Each example gets another guess, so that the sum of errors is smallest; an attacker knows no order of the examples.

    Args:
        guesses: [M, ...], M of at least B; fewer are repeated.
        x: the true examples [B, ...].
        box: their range.
    """
    from scipy.optimize import linear_sum_assignment

    guesses = guesses[torch.arange(max(len(guesses), len(x))) % len(guesses)]
    a, b = box.unscale(x).flatten(1).double(), box.unscale(guesses).flatten(1).double()
    errors = torch.cdist(a, b, compute_mode="donot_use_mm_for_euclid_dist").square() / a.shape[1]  # [B, M]
    rows, columns = linear_sum_assignment(errors.cpu().numpy())
    return guesses[columns], errors[rows, columns]


def signal_to_noise(error: float) -> float:
    """Return the peak signal-to-noise ratio of a mean squared error, in dB; at most `MAX_PSNR`.

    >>> round(signal_to_noise(0.01), 6), signal_to_noise(0.0)
    (20.0, 100.0)
    """
    return min(MAX_PSNR, -10 * math.log10(error)) if error > 0 else MAX_PSNR


def describe_examples(x: Tensor, box: Range) -> list[Any]:
    """Return up to four examples [B, ...]: pictures as {"size", "picture"}, others as their first twelve numbers."""
    if x.dim() == 4 and x.shape[1] in (1, 3):
        return [_picture(z) for z in box.unscale(x[:MAX_SHOWN])]
    return [row.double().tolist() for row in x[:MAX_SHOWN].flatten(1)[:, :MAX_NUMBERS].cpu()]


def _picture(z: Tensor) -> dict[str, Any]:
    """Return a picture [C, H, W] of values between 0 and 1 as base64 of red, green and blue bytes."""
    step = math.ceil(max(z.shape[1:]) / MAX_SIDE)
    shades = (z[:, ::step, ::step].expand(3, -1, -1).clamp(0, 1) * 255).round().to(torch.uint8)
    data = shades.permute(1, 2, 0).contiguous().cpu().numpy().tobytes()
    return {"size": list(shades.shape[1:]), "picture": base64.b64encode(data).decode()}
