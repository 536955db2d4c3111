"""The CIFAR network of the FedAvg paper, and ResNet-20."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from coterie.core import rng
from coterie.core.errors import Mistake
from coterie.data.crop_and_flip import crop
from coterie.models import build, cifar_cnn, resnet20
from coterie.models.convolutional import _normalise_response, _pool
from coterie.models.residual import Block
from tests.models.batched_gradients import check_batched_gradients


def count(model) -> int:
    return sum(p.numel() for p in model.parameters())


def test_cifar_cnn_has_about_a_million_parameters():
    """4,864 + 102,464 in convolutions, (6 * 6 * 64 + 1) 384 + (384 + 1) 192 + (192 + 1) 10 after them: 1,068,298."""
    assert count(cifar_cnn([3, 24, 24], 10)) == 1_068_298
    assert count(cifar_cnn([3, 32, 32], 10)) == 1_068_298
    assert count(cifar_cnn([3, 32, 32], 10, crop=32)) == 1_068_298 + (64 - 36) * 64 * 384


def test_moving_a_picture_and_taking_its_middle_is_a_random_crop():
    """A picture of 32 x 32 is moved by up to 4 pixels: the network gets one of the 81 pieces of 24 x 24."""
    x = torch.rand(6, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    model = cifar_cnn([3, 32, 32], 10)
    moved = crop(x, rng.key(0, "augment"))
    seen, pieces = moved[:, :, 4:28, 4:28], x.unfold(2, 24, 1).unfold(3, 24, 1)  # [6, 3, 9, 9, 24, 24]
    found = (pieces == seen[:, :, None, None]).flatten(4).all(-1).all(1)  # [6, 9, 9]
    assert found.sum((1, 2)).tolist() == [1] * 6
    assert len({tuple(place) for place in found.nonzero()[:, 1:].tolist()}) > 1
    assert torch.equal(model(moved), model(seen))


def test_pools_start_at_the_first_pixel_and_overhang_the_last():
    """Of a 4 x 4 image numbered row by row, windows of 3 x 3 at 0 and 2 hold at most 10, 11, 14 and 15."""
    assert _pool(torch.arange(16.0).reshape(1, 1, 4, 4)).flatten().tolist() == [10, 11, 14, 15]


def test_response_normalisation_sums_over_nine_channels():
    """Of ten channels of 30, the first sees five and the sixth sees nine: 30 / (1 + 0.1 * 5)^0.75 and
    30 / (1 + 0.1 * 9)^0.75, with (0.001 / 9) 900 = 0.1."""
    out = _normalise_response(torch.full((1, 10, 1, 1), 30.0)).flatten()
    assert out[0].item() == pytest.approx(30 / 1.5**0.75, rel=1e-5)
    assert out[5].item() == pytest.approx(30 / 1.9**0.75, rel=1e-5)


def test_resnet20_has_the_papers_count():
    """Convolutions 432 + 6 * 2,304 + (4,608 + 5 * 9,216) + (18,432 + 5 * 36,864) = 267,696; normalisation 2 (7 * 16 +
    6 * 32 + 6 * 64) = 1,376; output 650: 269,722, the paper's 0.27 M."""
    assert count(resnet20([3, 32, 32], 10)) == 269_722
    assert count(resnet20([3, 32, 32], 10, norm="group")) == 269_722


def test_resnet20_has_twenty_weighted_layers():
    assert sum(isinstance(m, (nn.Conv2d, nn.Linear)) for m in resnet20([3, 32, 32], 10).modules()) == 20


def test_the_shortcut_halves_the_image_and_pads_the_channels():
    """With the convolutions at zero a block gives relu(its shortcut): every second pixel, and zero channels around."""
    block = Block(2, 4, "batch").eval()
    nn.init.zeros_(block.conv2.weight)
    x = torch.rand(1, 2, 4, 4)
    expected = torch.zeros(1, 4, 2, 2)
    expected[:, 1:3] = x[:, :, ::2, ::2]
    assert torch.equal(block(x), expected)


def test_group_norm_keeps_no_statistics():
    assert list(resnet20([3, 32, 32], 10, norm="group").buffers()) == []
    assert len(list(resnet20([3, 32, 32], 10).buffers())) == 3 * 19


@pytest.mark.parametrize(("name", "options"), [("cifar_cnn", {}), ("resnet20", {"norm": "group", "width": 4})])
def test_gradients_can_be_batched_over_clients(name, options):
    model = build(name, [3, 8, 8], 4, 0, **options)
    x = torch.rand(2, 3, 3, 8, 8, generator=torch.Generator().manual_seed(0))  # [client, B, C, H, W]
    check_batched_gradients(model, x, atol=1e-5)


def test_options_out_of_range_are_refused():
    with pytest.raises(Mistake, match=r'^norm = "layer": it must be "batch" or "group"$'):
        resnet20([3, 32, 32], 10, norm="layer")
    with pytest.raises(Mistake, match=r"^width = 3: it must be an even number above 0$"):
        resnet20([3, 32, 32], 10, width=3)
    with pytest.raises(Mistake, match=r"^crop = 2: it must be 4 or more$"):
        cifar_cnn([3, 32, 32], 10, crop=2)
    with pytest.raises(Mistake, match=r'name = "resnet20": it takes images'):
        resnet20([13], 10)
