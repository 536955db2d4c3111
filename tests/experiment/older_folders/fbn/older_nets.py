"""Networks that the runs in this folder were made with."""

from torch import nn


def normed(in_shape, num_classes):
    """Two convolutions with BatchNorm."""
    return nn.Sequential(
        nn.Conv2d(in_shape[0], 4, 3, padding=1),
        nn.BatchNorm2d(4),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(4, 6, 3, padding=1),
        nn.BatchNorm2d(6),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(2),
        nn.Flatten(),
        nn.Linear(24, num_classes),
    )


def dense(in_shape, num_classes):
    """A perceptron of eight hidden units."""
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 8), nn.ReLU(), nn.Linear(8, num_classes))
