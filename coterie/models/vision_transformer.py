"""Build the vision transformer (ViT) of Dosovitskiy et al., for small images.

An Image is Worth 16x16 Words: Transformers for Image Recognition at Scale, ICLR 2021, section 3.1. Parameters have the
names that timm gives them. Departures: patches of 4 pixels, since pictures of 32 pixels have too few of 16, and the
width and heads of DeiT-Ti (Touvron et al., ICML 2021), at half its depth.

Legend: B batch, C classes, T positions, W width; shapes in comments are those of CIFAR.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from coterie.core.errors import Mistake
from coterie.core.kinds import Count, FractionBelowOne
from coterie.models.shape_checks import image_shape
from coterie.models.transformer_layer import EPSILON, TransformerLayer, draw_weights, require_sizes


class PatchEmbedding(nn.Module):
    """A linear map of each patch, as a convolution whose windows do not overlap."""

    def __init__(self, channels: int, patch: int, width: int):
        super().__init__()
        self.proj = nn.Conv2d(channels, width, patch, stride=patch)

    def forward(self, x: Tensor) -> Tensor:
        """Return patches [B, 64, W], row by row, of images x [B, 3, 32, 32]."""
        return self.proj(x).flatten(2).transpose(1, 2)  # type: ignore[no-any-return]


class VisionTransformer(nn.Module):
    """Patches and a class token with learned positions, layers of a transformer, a linear layer on the class token."""

    def __init__(
        self,
        in_shape: tuple[int, int, int],
        num_classes: int,
        patch: int,
        width: int,
        depth: int,
        heads: int,
        dropout: float,
    ):
        super().__init__()
        channels, height, wide = in_shape
        positions = (height // patch) * (wide // patch) + 1
        self.cls_token = nn.Parameter(torch.empty(1, 1, width).normal_(std=0.02))
        self.pos_embed = nn.Parameter(torch.empty(1, positions, width).normal_(std=0.02))
        self.patch_embed = PatchEmbedding(channels, patch, width)
        self.pos_drop = nn.Dropout(dropout)
        self.blocks = nn.Sequential(*(TransformerLayer(width, heads, dropout) for _ in range(depth)))
        self.norm = nn.LayerNorm(width, eps=EPSILON)
        self.head = nn.Linear(width, num_classes)
        draw_weights(self)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits [B, C] of images x [B, 3, 32, 32]."""
        x = self.patch_embed(x)  # [B, 64, W]
        x = torch.cat([self.cls_token.expand(x.shape[0], -1, -1), x], 1)  # [B, 65, W]
        x = self.blocks(self.pos_drop(x + self.pos_embed))
        return self.head(self.norm(x)[:, 0])  # type: ignore[no-any-return]


def vit(
    in_shape: Sequence[int],
    num_classes: int,
    patch: Count = 4,
    width: Count = 192,
    depth: Count = 6,
    heads: Count = 3,
    dropout: FractionBelowOne = 0.0,
) -> nn.Module:
    """Return a vision transformer, 2,693,578 parameters on CIFAR-10.

    Args:
        patch: height and width of a patch, in pixels; it divides those of the image.
        width: numbers at each position; `heads` divides it.
        depth: the number of layers.
        heads: of the attention.
        dropout: of the positions, and after attention and network of each layer.

    Raises:
        Mistake: `in_shape` is not that of an image, or another argument is out of range.
    """
    shape = image_shape("vit", in_shape, smallest=1)
    require_sizes(width, depth, heads)
    if shape[1] % patch or shape[2] % patch:
        sentence = f"it must divide the height and the width of the images, {shape[1]} and {shape[2]}"
        raise Mistake(sentence, key="patch", value=patch)
    return VisionTransformer(shape, num_classes, patch, width, depth, heads, dropout)
