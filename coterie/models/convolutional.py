"""Build the convolutional networks of the FedAvg paper.

Legend: B batch, C classes, H x W pixels; shapes in comments are those of the paper's data.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

from annotated_types import Ge
from torch import Tensor, nn
from torch.nn import functional as F

from coterie.core.errors import require
from coterie.models.shape_checks import image_shape


class CNN(nn.Module):
    """Two 5 x 5 convolutions with padding, each followed by a 2 x 2 pool, then 512 hidden units."""

    def __init__(self, channels: int, height: int, width: int, num_classes: int):
        super().__init__()
        self.conv1 = nn.Conv2d(channels, 32, 5, padding=2)
        self.conv2 = nn.Conv2d(32, 64, 5, padding=2)
        self.hidden = nn.Linear(64 * (height // 4) * (width // 4), 512)
        self.output = nn.Linear(512, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits [B, C] of images x [B, 1, 28, 28]."""
        x = F.max_pool2d(F.relu(self.conv1(x)), 2)  # [B, 32, 14, 14]
        x = F.max_pool2d(F.relu(self.conv2(x)), 2)  # [B, 64, 7, 7]
        x = F.relu(self.hidden(x.flatten(1)))  # [B, 512]
        return self.output(x)  # type: ignore[no-any-return]


class CifarCNN(nn.Module):
    """Two 5 x 5 convolutions, overlapping pools, local response normalisation, and two hidden layers."""

    def __init__(self, channels: int, height: int, width: int, num_classes: int):
        super().__init__()
        self.height, self.width = height, width
        self.conv1 = nn.Conv2d(channels, 64, 5, padding=2)
        self.conv2 = nn.Conv2d(64, 64, 5, padding=2)
        self.hidden1 = nn.Linear(64 * (height // 4) * (width // 4), 384)
        self.hidden2 = nn.Linear(384, 192)
        self.output = nn.Linear(192, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits [B, C] of the middle 24 x 24 pixels of images x [B, 3, 32, 32]."""
        top, left = (x.shape[2] - self.height) // 2, (x.shape[3] - self.width) // 2
        x = x[:, :, top : top + self.height, left : left + self.width]
        x = _normalise_response(_pool(F.relu(self.conv1(x))))  # [B, 64, 12, 12]
        x = _pool(_normalise_response(F.relu(self.conv2(x))))  # [B, 64, 6, 6]
        x = F.relu(self.hidden2(F.relu(self.hidden1(x.flatten(1)))))  # [B, 192]
        return self.output(x)  # type: ignore[no-any-return]


def _pool(x: Tensor) -> Tensor:
    """Take the maximum of 3 x 3 pixels at every second pixel. As in "SAME" pooling, windows overlap the far edges."""
    return F.max_pool2d(x, 3, stride=2, ceil_mode=True)


def _normalise_response(x: Tensor) -> Tensor:
    """Return x / (1 + (0.001 / 9) (sum of squares of 9 neighbouring channels))^0.75."""
    return F.local_response_norm(x, 9, alpha=0.001, beta=0.75, k=1.0)


def cnn(in_shape: Sequence[int], num_classes: int) -> nn.Module:
    """Return the CNN of McMahan et al. 2017, section 3; 1,663,370 parameters on MNIST.

    The convolutions keep the image's size ("SAME" padding): the paper does not say so, but only then does its count of
    parameters come out.

    Raises:
        Mistake: `in_shape` is not [channels, height, width] with 4 pixels or more each way.
    """
    return CNN(*image_shape("cnn", in_shape, smallest=4), num_classes)


def cifar_cnn(in_shape: Sequence[int], num_classes: int, crop: Annotated[int, Ge(4)] = 24) -> nn.Module:
    """Return the CIFAR network of McMahan et al. 2017, section 3, which they took from TensorFlow's tutorial.

    It has 1,068,298 parameters, the "about 10^6" of the paper. It takes the middle of a picture. With the augmentation
    "crop", which moves pictures by up to 4 pixels either way, that becomes a random place, as in the tutorial, which
    cuts 24 x 24 pixels out of CIFAR's 32 x 32.

    Initial weights are PyTorch's defaults, not the tutorial's.

    Args:
        crop: the side of the middle, in pixels; smaller pictures are taken whole.

    Raises:
        Mistake: `in_shape` is not [channels, height, width] with 4 pixels or more each way, or `crop` is below 4.
    """
    channels, height, width = image_shape("cifar_cnn", in_shape, smallest=4)
    require("crop", crop, crop >= 4, "4 or more")
    return CifarCNN(channels, min(height, crop), min(width, crop), num_classes)
