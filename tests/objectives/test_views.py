"""Views of examples: each change by hand, and all of them a function of the key and the image alone."""

import colorsys

import pytest
import torch

from coterie.core import rng
from coterie.core.errors import Mistake
from coterie.objectives import views
from coterie.objectives.resampling import blur_weights, interpolation_weights, resample, resize_weights

KEY = rng.key(0, "views")
X = torch.rand(8, 3, 9, 7, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
MANY = torch.rand(1, 3, 8, 8, generator=torch.Generator().manual_seed(1)).expand(2000, -1, -1, -1)
CHANGES = [views.crop, views.jitter_colours, views.remove_colours, views.blur, views.mirror, views.image_view]


def test_resizing_two_pixels_to_four_by_hand() -> None:
    """Centres of four quarters of two pixels lie at -1/4, 1/4, 3/4 and 5/4 between the pixels 0 and 1."""
    weights = resize_weights(torch.tensor([0.0]), torch.tensor([2.0]), 2, 4)[0]
    assert weights.tolist() == [[1.0, 0.0], [0.75, 0.25], [0.25, 0.75], [0.0, 1.0]]


def test_resizing_is_torch_s_bilinear_resize_of_a_crop() -> None:
    rows = resize_weights(torch.tensor([2.0] * 8).double(), torch.tensor([5.0] * 8).double(), 9, 9)
    columns = resize_weights(torch.tensor([1.0] * 8).double(), torch.tensor([4.0] * 8).double(), 7, 7)
    expected = torch.nn.functional.interpolate(X[:, :, 2:7, 1:5], (9, 7), mode="bilinear", align_corners=False)
    assert torch.allclose(resample(X, rows, columns), expected)


def test_weights_are_linear_interpolation() -> None:
    assert interpolation_weights(torch.tensor([1.25]), 4).tolist() == [[0.0, 0.75, 0.25, 0.0]]


def test_blurring_is_a_convolution_with_a_mirrored_edge() -> None:
    offset = torch.arange(-2.0, 3).double()
    taps = torch.exp(-0.5 * (offset / 1.3) ** 2)
    taps = taps / taps.sum()
    padded = torch.nn.functional.pad(X, [2, 2, 2, 2], mode="reflect")
    kernel = (taps[:, None] * taps).expand(3, 1, -1, -1)
    expected = torch.nn.functional.conv2d(padded, kernel, groups=3)
    deviation = torch.full([8], 1.3, dtype=torch.float64)
    assert torch.allclose(resample(X, blur_weights(deviation, 2, 9), blur_weights(deviation, 2, 7)), expected)
    assert torch.equal(blur_weights(torch.zeros(1), 2, 5)[0], torch.eye(5))


def test_hues_rotate_as_in_hsv() -> None:
    """Against colorsys: the hue changes, saturation and value do not."""
    by = torch.tensor([0.03, -0.1]).double()
    rotated = views.rotate_hue(X[:2], by.reshape(2, 1, 1, 1))
    for k in range(2):
        for red, green, blue, *new in torch.cat([X[k], rotated[k]]).flatten(1).T.tolist():
            hue, saturation, value = colorsys.rgb_to_hsv(red, green, blue)
            assert new == pytest.approx(colorsys.hsv_to_rgb((hue + float(by[k])) % 1, saturation, value))


def test_a_crop_is_a_piece_of_the_allowed_size_and_shape() -> None:
    """Where a picture shows its own row and column numbers, a crop shows which piece it is."""
    row, column = torch.meshgrid(torch.arange(32.0), torch.arange(32.0), indexing="ij")
    places = torch.stack([row, column, row]).expand(500, -1, -1, -1)
    pieces = views.crop(places, KEY)
    height, width = pieces[:, 0, -1, 0] - pieces[:, 0, 0, 0], pieces[:, 1, 0, -1] - pieces[:, 1, 0, 0]
    # n pixels resized to 32 span n - 1 between the outermost centres, the edges being held
    tall, wide = height + 1, width + 1
    area = tall * wide / 32**2
    assert float(area.min()) == pytest.approx(0.2, abs=0.04)
    assert float(area.max()) == pytest.approx(1.0, abs=0.05)
    assert float((wide / tall).min()) > 3 / 4 - 0.08
    assert float((wide / tall).max()) < 4 / 3 + 0.12
    assert float(pieces.min()) >= 0
    assert float(pieces.max()) <= 31


@pytest.mark.parametrize(
    ("change", "probability"), [(views.remove_colours, 0.2), (views.blur, 0.5), (views.mirror, 0.5)]
)
def test_changes_have_the_right_probability(change, probability) -> None:
    """2000 images: the share deviates by sqrt(p (1 - p) / 2000) < 0.0112; four times that is allowed."""
    same = [torch.allclose(a, b, atol=1e-6) for a, b in zip(change(MANY, KEY), MANY, strict=True)]
    assert 1 - sum(same) / 2000 == pytest.approx(probability, abs=0.045)


def test_a_change_of_colour_by_hand() -> None:
    """Brightness b takes 0.4 to 0.4 b; contrast, saturation and hue leave a picture of one grey unchanged."""
    grey = torch.full((200, 3, 4, 4), 0.4)
    changed = views.jitter_colours(grey, KEY)
    assert torch.allclose(changed, changed[:, :1, :1, :1].expand_as(changed))
    factor = changed[:, 0, 0, 0] / 0.4
    assert 0.6 <= float(factor.min()) < 0.7
    assert 1.3 < float(factor.max()) <= 1.4
    assert float((factor == 1).float().mean()) == pytest.approx(0.2, abs=0.12)


def test_views_stay_between_0_and_1_and_differ() -> None:
    first, second = views.two_views(X, KEY)
    assert first.shape == second.shape == X.shape
    assert first.dtype == X.dtype
    assert float(torch.cat([first, second]).min()) >= -1e-9
    assert float(torch.cat([first, second]).max()) <= 1 + 1e-9
    assert not any(torch.allclose(a, b) for a, b in zip(first, second, strict=True))


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__)
@pytest.mark.parametrize("channels", [1, 3])
def test_an_image_is_changed_by_the_key_and_its_place_alone(change, channels) -> None:
    x = X[:, :channels]
    alone = change(x, KEY)
    assert alone.shape == x.shape
    assert torch.allclose(change(x[:3], KEY), alone[:3], atol=1e-12)
    keys = torch.stack([KEY, rng.key(1, "views")])
    both = torch.func.vmap(change)(torch.stack([x, x]), keys)
    assert torch.allclose(both[0], alone, atol=1e-12)
    assert torch.allclose(both[1], change(x, keys[1]), atol=1e-12)
    no_colour = change is views.remove_colours and channels == 1
    assert torch.allclose(both[0], both[1]) == no_colour


def test_features_are_dropped_and_tokens_refused() -> None:
    x = torch.ones(500, 4)
    first, second = views.two_views(x, KEY)
    assert set(first.unique().tolist()) == {0.0, 1.0}
    assert 1 - float(first.mean()) == pytest.approx(0.3, abs=0.04)
    assert not torch.equal(first, second)
    with pytest.raises(Mistake, match="tokens"):
        views.two_views(torch.ones(3, 4, dtype=torch.int64), KEY)
