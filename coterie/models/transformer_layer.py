"""A layer of a transformer whose norms come first, as ViT and GPT-2 have it.

Parameters have the names that timm gives them. Attention is written out, not `scaled_dot_product_attention`: on a CPU
that has no second derivative, which a probe of the Hessian takes, and no batching rule over clients.

Legend: B batch, T positions, W width, N heads.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from coterie.core.errors import require

EPSILON = 1e-6
"""Of LayerNorm, as in ViT."""


class Attention(nn.Module):
    """Self-attention of several heads; with `causal`, a position sees itself and those before it."""

    def __init__(self, width: int, heads: int, causal: bool):
        super().__init__()
        self.heads, self.causal = heads, causal
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        """Return [B, T, W] from x [B, T, W]."""
        parts = self.qkv(x).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)  # [3, B, N, T, W / N]
        q, k, v = parts.unbind(0)
        scores = (q * q.shape[-1] ** -0.5) @ k.transpose(-2, -1)  # [B, N, T, T]
        if self.causal:
            later = torch.ones(x.shape[1], x.shape[1], dtype=torch.bool, device=x.device).triu(1)
            scores = scores.masked_fill(later, float("-inf"))
        return self.proj((scores.softmax(-1) @ v).transpose(1, 2).flatten(2))  # type: ignore[no-any-return]


class FeedForward(nn.Module):
    """A network of one hidden layer, four times as wide, at each position."""

    def __init__(self, width: int):
        super().__init__()
        self.fc1 = nn.Linear(width, 4 * width)
        self.fc2 = nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        """Return [B, T, W] from x [B, T, W]."""
        return self.fc2(F.gelu(self.fc1(x)))  # type: ignore[no-any-return]


class TransformerLayer(nn.Module):
    """Attention, then a network at each position, each after a LayerNorm and beside a shortcut."""

    def __init__(self, width: int, heads: int, dropout: float, causal: bool = False):
        super().__init__()
        self.norm1 = nn.LayerNorm(width, eps=EPSILON)
        self.attn = Attention(width, heads, causal)
        self.norm2 = nn.LayerNorm(width, eps=EPSILON)
        self.mlp = FeedForward(width)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        """Return [B, T, W] from x [B, T, W]."""
        x = x + self.dropout(self.attn(self.norm1(x)))
        return x + self.dropout(self.mlp(self.norm2(x)))  # type: ignore[no-any-return]


def require_sizes(width: int, depth: int, heads: int) -> None:
    """Refuse sizes of which no transformer can be made.

    Raises:
        Mistake: one is below 1, or the heads do not share the width evenly.
    """
    require("width", width, width >= 1, "1 or more")
    require("depth", depth, depth >= 1, "1 or more")
    require("heads", heads, heads >= 1 and width % heads == 0, f"a number that divides the width, {width}")


def draw_weights(model: nn.Module) -> None:
    """Draw the initial weights of linear layers and embeddings, in place, as ViT and GPT-2 do.

    They are normal with a standard deviation of 0.02; biases are 0.
    """
    for module in model.modules():
        if isinstance(module, (nn.Linear, nn.Embedding)):
            nn.init.normal_(module.weight, std=0.02)
        if isinstance(module, nn.Linear):
            nn.init.zeros_(module.bias)
