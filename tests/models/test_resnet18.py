"""ResNet-18."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from coterie.core.errors import Mistake
from coterie.models import build, resnet18
from coterie.models.imagenet_residual import BasicBlock


def count(model) -> int:
    return sum(p.numel() for p in model.parameters())


def test_it_has_the_count_of_the_field():
    """On ImageNet torchvision's 11,689,512. On CIFAR-10 the stem has 64 * 3 * (49 - 9) = 7,680 fewer and the classifier
    513 * 990 = 507,870 fewer: 11,173,962."""
    assert count(resnet18([3, 224, 224], 1000)) == 11_689_512
    assert count(resnet18([3, 32, 32], 10)) == 11_173_962
    assert count(resnet18([3, 32, 32], 10, norm="group")) == 11_173_962


def test_it_has_eighteen_layers_and_three_shortcuts_with_weights():
    assert sum(isinstance(m, (nn.Conv2d, nn.Linear)) for m in resnet18([3, 32, 32], 10).modules()) == 18 + 3


def test_names_are_those_of_torchvision():
    """Its weights load, but for the classifier and, with small images, the first convolution."""
    names = resnet18([3, 224, 224], 10, width=4).state_dict()
    assert list(names)[:7] == [
        "conv1.weight",
        "bn1.weight",
        "bn1.bias",
        "bn1.running_mean",
        "bn1.running_var",
        "bn1.num_batches_tracked",
        "layer1.0.conv1.weight",
    ]
    assert {"layer2.0.downsample.0.weight", "layer2.0.downsample.1.running_var", "layer4.1.bn2.bias"} <= names.keys()
    assert list(names)[-2:] == ["fc.weight", "fc.bias"]
    assert len(names) == 122


@pytest.mark.parametrize(("side", "stem", "before_stages"), [(32, "auto", 32), (64, "auto", 64), (65, "auto", 17)])
def test_small_images_keep_their_pixels_before_the_stages(side, stem, before_stages):
    seen = []
    model = resnet18([3, side, side], 10, stem=stem, width=2).eval()
    model.layer1.register_forward_hook(lambda module, inputs, outputs: seen.append(inputs[0].shape[-1]))
    assert model(torch.rand(1, 3, side, side)).shape == (1, 10)
    assert seen == [before_stages]


def test_either_stem_can_be_asked_for():
    assert resnet18([3, 32, 32], 10, stem="imagenet", width=2).conv1.kernel_size == (7, 7)
    assert resnet18([3, 224, 224], 10, stem="small", width=2).conv1.kernel_size == (3, 3)


def test_a_block_is_the_sum_of_its_two_ways():
    """Made of PyTorch's functions by hand, with a stride of two."""
    block = BasicBlock(2, 4, 2, "batch").eval()
    for module in block.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.running_mean)
            nn.init.uniform_(module.running_var, 0.5, 2)
    x = torch.randn(3, 2, 6, 6)
    long = nn.Sequential(block.conv1, block.bn1, nn.ReLU(), block.conv2, block.bn2)(x)
    assert block.downsample is not None
    torch.testing.assert_close(block(x), torch.relu(long + block.downsample(x)))


def test_group_norm_keeps_no_statistics():
    assert list(resnet18([3, 32, 32], 10, norm="group", width=2).buffers()) == []


def test_options_out_of_range_are_refused():
    with pytest.raises(Mistake, match=r'^stem = "large": it must be "auto", "small" or "imagenet"$'):
        resnet18([3, 32, 32], 10, stem="large")
    with pytest.raises(Mistake, match=r"^width = 3: it must be an even number above 0$"):
        resnet18([3, 32, 32], 10, width=3)
    with pytest.raises(Mistake, match=r'name = "resnet18": it takes images'):
        build("resnet18", [13], 10, 0)
