"""Build a small transformer that predicts the next token at every position, of the architecture of GPT-2.

Radford et al., Language Models are Unsupervised Multitask Learners, 2019, section 2.3. Departures: the output layer has
weights of its own, with a bias, since there may be fewer classes than tokens; the weights of layers that end a shortcut
are not scaled by the depth; GELU is exact, and LayerNorm has an epsilon of 1e-6.

Legend: B batch, T positions, W width, C classes.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from coterie.core.errors import Mistake, require
from coterie.core.kinds import Count, FractionBelowOne
from coterie.models.shape_checks import sequence_length
from coterie.models.transformer_layer import EPSILON, TransformerLayer, draw_weights, require_sizes


class Transformer(nn.Module):
    """Tokens with learned positions, layers of a causal transformer, and one linear layer at every position."""

    class_axis = -1  # of the outputs: a text may be as long as the vocabulary is large

    def __init__(
        self, length: int, vocabulary: int, num_classes: int, width: int, depth: int, heads: int, dropout: float
    ):
        super().__init__()
        self.embedding = nn.Embedding(vocabulary, width)
        self.positions = nn.Parameter(torch.empty(length, width).normal_(std=0.02))
        self.dropout = nn.Dropout(dropout)
        self.layers = nn.Sequential(*(TransformerLayer(width, heads, dropout, causal=True) for _ in range(depth)))
        self.norm = nn.LayerNorm(width, eps=EPSILON)
        self.output = nn.Linear(width, num_classes)
        draw_weights(self)

    def forward(self, tokens: Tensor) -> Tensor:
        """Return logits [B, T, C] of the next token at each position of tokens [B, T] int64.

        A text may be shorter than those that the model was made for.

        Raises:
            Mistake: the examples are not tokens, or longer than that.
        """
        if tokens.is_floating_point():
            raise Mistake(f"a transformer takes tokens, whole numbers, but the examples are {tokens.dtype}")
        if tokens.shape[1] > len(self.positions):
            raise Mistake(f"the transformer has {len(self.positions)} positions; cut the text of {tokens.shape[1]} up")
        x = self.dropout(self.embedding(tokens) + self.positions[: tokens.shape[1]])  # [B, T, W]
        return self.output(self.norm(self.layers(x)))  # type: ignore[no-any-return]


def transformer(
    in_shape: Sequence[int],
    num_classes: int,
    vocabulary: Count | None = None,
    width: Count = 128,
    depth: Count = 4,
    heads: Count = 4,
    dropout: FractionBelowOne = 0.0,
) -> nn.Module:
    """Return a causal transformer, [B, T] -> [B, T, C]: 869,890 parameters with 258 characters and texts of 80.

    Args:
        vocabulary: the number of different tokens; `num_classes` unless given.
        width: numbers at each position; `heads` divides it.
        depth: the number of layers.
        heads: of the attention.
        dropout: of the embedding, and after attention and network of each layer.

    Raises:
        Mistake: an example is not a sequence, or another argument is out of range.
    """
    length = sequence_length("transformer", in_shape)
    vocabulary = num_classes if vocabulary is None else vocabulary
    require("vocabulary", vocabulary, vocabulary >= 1, "1 or more")
    require_sizes(width, depth, heads)
    return Transformer(length, vocabulary, num_classes, width, depth, heads, dropout)
