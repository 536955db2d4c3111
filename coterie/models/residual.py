"""Build the CIFAR residual network of He, Zhang, Ren and Sun.

Deep Residual Learning for Image Recognition, CVPR 2016, section 4.2.

Legend: B batch, C classes, W channels of a stage; shapes in comments are those of CIFAR.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from torch import Tensor, nn
from torch.nn import functional as F

from coterie.core.errors import require
from coterie.models.shape_checks import image_shape

Norm = Literal["batch", "group"]


def make_norm(kind: Norm, channels: int) -> nn.Module:
    """Return BatchNorm, or GroupNorm with two groups, over the channels of images."""
    return nn.BatchNorm2d(channels) if kind == "batch" else nn.GroupNorm(2, channels)


class Block(nn.Module):
    """Two 3 x 3 convolutions and the shortcut around them.

    Where the shape changes, the shortcut takes every second pixel and adds channels of zeros, half before and half
    after the others. This is the paper's option A, which has no parameters.
    """

    def __init__(self, before: int, after: int, norm: Norm):
        super().__init__()
        self.stride, self.added = (1, 0) if before == after else (2, after - before)
        self.conv1 = nn.Conv2d(before, after, 3, stride=self.stride, padding=1, bias=False)
        self.norm1 = make_norm(norm, after)
        self.conv2 = nn.Conv2d(after, after, 3, padding=1, bias=False)
        self.norm2 = make_norm(norm, after)

    def forward(self, x: Tensor) -> Tensor:
        """Return [B, after, H, W] from x [B, before, H, W]; half as high and wide where `after` differs."""
        y = F.relu(self.norm1(self.conv1(x)))
        return F.relu(self.norm2(self.conv2(y)) + self._shortcut(x))

    def _shortcut(self, x: Tensor) -> Tensor:
        """Return x; if the block adds channels, every second pixel, with channels of zeros on both sides."""
        half = self.added // 2
        return F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, half, self.added - half)) if self.added else x


class ResNet(nn.Module):
    """A 3 x 3 convolution, three stages of blocks, an average over pixels, a linear layer: 6 `blocks` + 2 layers."""

    def __init__(self, channels: int, num_classes: int, blocks: int, width: int, norm: Norm):
        super().__init__()
        self.conv = nn.Conv2d(channels, width, 3, padding=1, bias=False)
        self.norm = make_norm(norm, width)
        self.stage1 = self._stage(width, width, blocks, norm)
        self.stage2 = self._stage(width, 2 * width, blocks, norm)
        self.stage3 = self._stage(2 * width, 4 * width, blocks, norm)
        self.output = nn.Linear(4 * width, num_classes)
        for module in self.modules():
            if isinstance(module, (nn.Conv2d, nn.Linear)):
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")

    @staticmethod
    def _stage(before: int, after: int, blocks: int, norm: Norm) -> nn.Sequential:
        return nn.Sequential(Block(before, after, norm), *(Block(after, after, norm) for _ in range(blocks - 1)))

    def forward(self, x: Tensor) -> Tensor:
        """Return logits [B, C] of images x [B, 3, 32, 32]."""
        x = F.relu(self.norm(self.conv(x)))  # [B, 16, 32, 32]
        x = self.stage3(self.stage2(self.stage1(x)))  # [B, 64, 8, 8]
        return self.output(x.mean((2, 3)))  # type: ignore[no-any-return]


def resnet20(in_shape: Sequence[int], num_classes: int, width: int = 16, norm: Norm = "batch") -> nn.Module:
    """Return ResNet-20 for small images: three blocks per stage, 269,722 parameters on CIFAR-10.

    Args:
        width: channels of the first stage; the others have twice and four times as many.
        norm: "batch", or "group" for GroupNorm with two groups, which keeps no statistics of the data.

    Raises:
        Mistake: `in_shape` is not that of an image, or another argument is out of range.
    """
    channels, _, _ = image_shape("resnet20", in_shape, smallest=4)
    require("norm", norm, norm in ("batch", "group"), '"batch" or "group"')
    require("width", width, width >= 2 and width % 2 == 0, "an even number above 0")
    return ResNet(channels, num_classes, 3, width, norm)
