"""Build ResNet-18 of He, Zhang, Ren and Sun, for small images too.

Deep Residual Learning for Image Recognition, CVPR 2016, table 1. Parameters have the names that torchvision gives them,
so its weights fit.

Legend: B batch, C classes, W channels of a stage; shapes in comments are those of CIFAR.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from torch import Tensor, nn
from torch.nn import functional as F

from coterie.core.errors import require
from coterie.models.residual import Norm, make_norm
from coterie.models.shape_checks import image_shape

Stem = Literal["auto", "small", "imagenet"]

SMALL = 64
"""The largest side of images that "auto" takes for small, in pixels: that of Tiny ImageNet; CIFAR has 32."""


class BasicBlock(nn.Module):
    """Two 3 x 3 convolutions and the shortcut around them.

    Where the shape changes, the shortcut is a 1 x 1 convolution with a norm, the paper's option B.
    """

    def __init__(self, before: int, after: int, stride: int, norm: Norm):
        super().__init__()
        self.conv1 = nn.Conv2d(before, after, 3, stride=stride, padding=1, bias=False)
        self.bn1 = make_norm(norm, after)
        self.conv2 = nn.Conv2d(after, after, 3, padding=1, bias=False)
        self.bn2 = make_norm(norm, after)
        self.downsample: nn.Module | None = None
        if before != after or stride != 1:
            shortcut = nn.Conv2d(before, after, 1, stride=stride, bias=False)
            self.downsample = nn.Sequential(shortcut, make_norm(norm, after))

    def forward(self, x: Tensor) -> Tensor:
        """Return [B, after, H / stride, W / stride] from x [B, before, H, W]."""
        y = F.relu(self.bn1(self.conv1(x)))
        shortcut = x if self.downsample is None else self.downsample(x)
        return F.relu(self.bn2(self.conv2(y)) + shortcut)


class ResNet18(nn.Module):
    """A stem, four stages of two blocks, an average over pixels, a linear layer: 18 layers on the longest way."""

    def __init__(self, channels: int, num_classes: int, small: bool, width: int, norm: Norm):
        super().__init__()
        self.conv1 = (
            nn.Conv2d(channels, width, 3, padding=1, bias=False)
            if small
            else nn.Conv2d(channels, width, 7, stride=2, padding=3, bias=False)
        )
        self.bn1 = make_norm(norm, width)
        self.maxpool = nn.Identity() if small else nn.MaxPool2d(3, stride=2, padding=1)
        self.layer1 = _stage(width, width, 1, norm)
        self.layer2 = _stage(width, 2 * width, 2, norm)
        self.layer3 = _stage(2 * width, 4 * width, 2, norm)
        self.layer4 = _stage(4 * width, 8 * width, 2, norm)
        self.fc = nn.Linear(8 * width, num_classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, x: Tensor) -> Tensor:
        """Return logits [B, C] of images x [B, 3, 32, 32]."""
        x = self.maxpool(F.relu(self.bn1(self.conv1(x))))  # [B, 64, 32, 32]
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))  # [B, 512, 4, 4]
        return self.fc(x.mean((2, 3)))  # type: ignore[no-any-return]


def resnet18(
    in_shape: Sequence[int], num_classes: int, stem: Stem = "auto", width: int = 64, norm: Norm = "batch"
) -> nn.Module:
    """Return ResNet-18: 11,173,962 parameters on CIFAR-10, 11,689,512 on ImageNet.

    Args:
        stem: "small" is a 3 x 3 convolution, as is usual for CIFAR; "imagenet" is the paper's 7 x 7 convolution of
            every second pixel and a 3 x 3 pool of every second one after it; "auto" is "small" for images of up to
            64 pixels, and "imagenet" for larger ones.
        width: channels of the first stage; the others have 2, 4 and 8 times as many.
        norm: "batch", or "group" for GroupNorm with two groups, which keeps no statistics of the data.

    Raises:
        Mistake: `in_shape` is not that of an image, or another argument is out of range.
    """
    channels, height, wide = image_shape("resnet18", in_shape, smallest=4)
    require("stem", stem, stem in ("auto", "small", "imagenet"), '"auto", "small" or "imagenet"')
    require("norm", norm, norm in ("batch", "group"), '"batch" or "group"')
    require("width", width, width >= 2 and width % 2 == 0, "an even number above 0")
    small = max(height, wide) <= SMALL if stem == "auto" else stem == "small"
    return ResNet18(channels, num_classes, small, width, norm)


def _stage(before: int, after: int, stride: int, norm: Norm) -> nn.Sequential:
    return nn.Sequential(BasicBlock(before, after, stride, norm), BasicBlock(after, after, 1, norm))
