"""Apply a trained causal language model to texts: how well it predicts each, and how it goes on.

Legend: N texts, T tokens, V tokens that there are.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from coterie.core.errors import Mistake
from coterie.data.numpy_arrays import IGNORED_LABEL
from coterie.data.text_columns import TextColumn
from coterie.experiment.trained_model import TrainedModel

BATCH_TEXTS, NEW_TOKENS = 16, 20


@dataclass(frozen=True)
class NextTokens:
    """What a model says about one text.

    Attributes:
        tokens: how many were predicted, the text's own and its end.
        loss: the mean of -log p of each, given those before it.
        continuation: the likeliest next tokens, one after another, up to the end of the text or 20.
    """

    tokens: int
    loss: float
    continuation: str


def predict_next(model: TrainedModel, texts: Sequence[str]) -> tuple[list[NextTokens], int]:
    """Return what a causal language model says about each of N texts, and how many were cut.

    Raises:
        Mistake: the model does not predict tokens, or its outputs are not finite.
    """
    text = model.inputs.text
    if text is None or not text.next_token:
        raise Mistake("the model does not predict the tokens of texts; use its `probabilities`")
    x, y, cut = text.documents(texts)
    losses = torch.cat(
        [_losses(model, *part) for part in zip(torch.split(x, BATCH_TEXTS), torch.split(y, BATCH_TEXTS), strict=True)]
    )
    if not bool(losses.isfinite().all()):
        raise Mistake("the model's outputs are not finite; look for a run that diverged")
    tokens = (y != IGNORED_LABEL).sum(1).tolist()
    given = [row[:number].tolist() for row, number in zip(x, tokens, strict=True)]
    more = [
        new for k in range(0, len(given), BATCH_TEXTS) for new in _continue(model, text, given[k : k + BATCH_TEXTS])
    ]
    facts = zip(tokens, losses.tolist(), more, strict=True)
    return [NextTokens(n, loss / n, text.tokenizer.decode(new)) for n, loss, new in facts], cut


def perplexity(found: Sequence[NextTokens]) -> float:
    """Return exp of the mean loss of all tokens of all texts."""
    return math.exp(sum(each.loss * each.tokens for each in found) / sum(each.tokens for each in found))


@torch.no_grad()
def _losses(model: TrainedModel, x: Tensor, y: Tensor) -> Tensor:
    """Return the sum of -log p over the tokens y [N, T] of each text, float64 [N]."""
    logits: Tensor = model.model(x)  # [N, T, V]
    return F.cross_entropy(logits.movedim(-1, 1).double(), y, ignore_index=IGNORED_LABEL, reduction="none").sum(1)


@torch.no_grad()
def _continue(model: TrainedModel, text: TextColumn, given: list[list[int]]) -> list[list[int]]:
    """Return the likeliest tokens after each of some texts. What is filled in at the ends is never seen before them."""
    new: list[list[int]] = [[] for _ in given]
    for _ in range(NEW_TOKENS):
        rows = [(own + more)[-text.max_length :] for own, more in zip(given, new, strict=True)]
        length = max(map(len, rows))
        x = torch.tensor([row + [text.tokenizer.pad] * (length - len(row)) for row in rows])
        last = torch.tensor([len(row) - 1 for row in rows])
        likeliest = model.model(x)[torch.arange(len(rows)), last].argmax(-1).tolist()
        for own, token in zip(new, likeliest, strict=True):
            if not own or own[-1] != text.tokenizer.end:
                own.append(token)
        if all(own[-1] == text.tokenizer.end for own in new):
            break
    return new
