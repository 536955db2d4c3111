"""Pairs: both views show the same systems; colours as OpenCV's; the cache; batches as a function of the step."""

import colorsys
import itertools
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from coterie.core import rng
from coterie.objectives.views import luma
from coterie.pretrain.fractal_pairs import Canvas, choose_systems, compose, flip, paint, place
from coterie.pretrain.pair_batches import PairBatches, Sizes
from coterie.pretrain.rendering_cache import Renderer, RenderingCache

KEY = rng.key("pairs")
SMALL = Sizes(
    batch_size=8,
    num_systems=50,
    image_size=16,
    channels=3,
    max_objects=2,
    points=200,
    render_size=16,
    cached_systems=20,
    cached_renderings=3,
)


def test_both_views_of_a_pair_show_the_same_systems() -> None:
    """They are two different systems with renderings in the cache; the views differ."""
    batches = PairBatches(SMALL, rng_seed=0)
    for step in range(4):
        pairs = batches.pairs(step)
        assert pairs.first.shape == pairs.second.shape == (8, 3, 16, 16)
        assert (pairs.systems >= 0).all()
        assert all(a != b for a, b in pairs.systems.tolist())
        assert not torch.equal(pairs.first, pairs.second)
        cached = batches.cache.system.tolist()
        assert all(system in cached for system in pairs.systems.flatten().tolist())


def test_views_are_composed_of_the_systems_renderings(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each system is rendered in one flat grey and painted grey, so every colour of a view belongs to a system of the
    pair.
    """
    monkeypatch.setattr(
        "coterie.pretrain.fractal_pairs.paint", lambda grey, key: (255 * grey)[:, None].expand(-1, 3, -1, -1)
    )
    monkeypatch.setattr("coterie.pretrain.fractal_pairs.blur", lambda x, key, **_: x)
    flat = lambda self, index, pair: ((index + 1) / 64)[:, None, None].expand(-1, 16, 16)  # noqa: E731
    monkeypatch.setattr(Renderer, "render", flat)
    batches, seen = PairBatches(SMALL, rng_seed=3), 0
    for step in range(5):
        pairs = batches.pairs(step)
        for view in (pairs.first, pairs.second):
            for image, systems in zip(view, pairs.systems.tolist(), strict=True):
                shown = {round(value) for value in (image * 255).unique().tolist()} - {0}
                assert shown <= {round(255 * (system + 1) / 64) for system in systems}
                seen += len(shown) == 2
    assert seen > 60  # of 80 views, those in which one system does not cover the other


def test_numbers_of_systems_are_even_and_partners_differ() -> None:
    """2 to 5 systems, a quarter each: of 4000, four deviations are 4 sqrt(3 / 16 4000) = 110."""
    own = torch.arange(4000) % 9
    drawn = choose_systems(Canvas(16, 5), own, 9, KEY)
    counts = torch.bincount(drawn.shown.sum(1), minlength=6).tolist()
    assert counts[:2] == [0, 0]
    assert all(abs(count - 1000) < 110 for count in counts[2:])
    assert torch.equal(drawn.slots[:, 0], own)
    assert all(len(set(row)) == 5 for row in drawn.slots.tolist())


def as_opencv(hue: int, saturation: int, value: int) -> tuple[int, ...]:
    """COLOR_HSV2RGB for bytes: hue in units of two degrees."""
    red, green, blue = colorsys.hsv_to_rgb(hue / 180 % 1, saturation / 255, value / 255)
    return tuple(round(255 * c) for c in (red, green, blue))


def test_colours_are_those_of_opencv() -> None:
    """A ramp of grey: the hue increases by one for each 1 / 255 of grey, and 180 is a whole turn."""
    grey = (torch.arange(256.0) / 255).reshape(1, 16, 16).expand(5, -1, -1)
    painted = paint(grey, KEY)
    u = rng.uniform(KEY, [3, 5])
    for k in range(5):
        saturation, value = int(255 * (0.3 + 0.7 * u[1, k])), int(255 * (0.5 + 0.5 * u[2, k]))
        pixels = painted[k].flatten(1).T.tolist()
        assert pixels[0] == [0, 0, 0]
        for level in range(1, 256):
            hue = int(torch.floor(255 * grey[0].flatten()[level] + 255 * u[0, k])) % 256
            expected = as_opencv(hue, saturation, value)
            assert (
                max(abs(a - b) for a, b in zip(pixels[level], expected, strict=True)) <= 1
            )  # a tie may round either way
        assert len({tuple(p) for p in pixels[1:]}) > 30


def test_flips_reach_all_eight() -> None:
    grey = torch.tensor([[1.0, 2.0], [3.0, 4.0]]).expand(500, -1, -1)
    turned = grey[0].T
    expected = [x.flip(dims) for x in (grey[0], turned) for dims in ([], [0], [1], [0, 1])]
    found = {tuple(x.flatten().tolist()) for x in flip(grey, KEY)}
    assert found == {tuple(x.flatten().tolist()) for x in expected}


def test_objects_have_the_right_size_and_place() -> None:
    """White squares on a canvas of 40: sides int(f 40), f from 0.45 to 0.75, are 18 to 29; a quarter may be cut off."""
    canvas = place(torch.full((800, 1, 10, 10), 255.0), 40, KEY)[:, 0]
    assert set(canvas.unique().tolist()) == {0.0, 255.0}
    sides = {(int(x.any(1).sum()), int(x.any(0).sum())) for x in canvas}
    assert max(itertools.chain(*sides)) == 29
    assert min(itertools.chain(*sides)) >= 18 - 18 // 4
    whole = [side for side, other in sides if side == other]
    assert set(range(18, 30)) <= set(whole)
    touching = canvas[:, 0].any(1).float().mean()
    assert 0.1 < float(touching) < 0.6


def test_later_objects_cover_earlier_ones_where_they_are_not_black() -> None:
    renderings = torch.zeros(50, 2, 8, 8)
    renderings[:, 0] = 1.0
    one, two = (compose(Canvas(16, 2), renderings, torch.ones(50, 2, dtype=torch.bool), KEY) for _ in range(2))
    assert torch.equal(one, two)
    first_alone = compose(Canvas(16, 2), renderings, torch.tensor([[True, False]]).expand(50, -1), KEY)
    assert torch.equal(one, first_alone)  # the second is black, and so transparent
    renderings[:, 1] = 1.0
    assert not torch.equal(compose(Canvas(16, 2), renderings, torch.ones(50, 2, dtype=torch.bool), KEY), one)


def renderings(cache: RenderingCache) -> list[tuple[int, int]]:
    """Return (system, pair) of all renderings in the cache."""
    return [(int(cache.system[slot]), int(pair)) for row in cache.pair for slot, pair in enumerate(row) if pair >= 0]


def test_a_cache_renders_for_every_second_pair_and_for_new_systems() -> None:
    cache = RenderingCache(Renderer(0, 50, 8), systems=3, renderings=2)
    cache.prepare([5, 6], [0, 1])
    assert sorted(renderings(cache)) == [(5, 0), (6, 1)]
    cache.prepare([5, 6], [2, 3])  # 5 is there, and 2 is even
    assert sorted(renderings(cache)) == [(5, 0), (6, 1), (6, 3)]
    cache.prepare([6, 7], [5, 6])  # the oldest of three is replaced; 7 is new
    assert sorted(renderings(cache)) == [(5, 0), (6, 3), (6, 5), (7, 6)]
    cache.prepare([8, 7], [8, 10])  # the cache is full: 5 or 6 is removed, since 7 is needed
    assert cache.num_systems == 3
    assert {8, 7} < set(cache.system.tolist())
    assert torch.equal(
        cache.grey[0, cache.system.tolist().index(8)], Renderer(0, 50, 8).render(*map(tensor, (8, 8)))[0]
    )


def tensor(number: int) -> Tensor:
    return torch.tensor([number])


def test_batches_depend_on_the_rng_seed_and_the_step_alone() -> None:
    one, same, other = (PairBatches(SMALL, rng_seed=seed) for seed in (0, 0, 1))
    for step in range(3):
        views = one.views(step)
        assert views.shape == (8, 2, 3, 16, 16)
        assert torch.equal(views, same.views(step))
        assert not torch.equal(views, other.views(step))


def test_batches_continue_after_a_cache_is_restored() -> None:
    """The renderings are made again, bit for bit."""
    whole, stopped = PairBatches(SMALL, 0), PairBatches(SMALL, 0)
    for step in range(12):  # 96 pairs of 50 systems: many have left the cache of 20
        whole.views(step)
        stopped.views(step)
    resumed = PairBatches(SMALL, 0)
    resumed.cache.restore(stopped.cache.state())
    for step in range(12, 15):
        assert torch.equal(whole.views(step), resumed.views(step))


def test_every_system_comes_once_in_a_pass() -> None:
    batches = PairBatches(SMALL, 0)
    first = [batches._own_system(pair) for pair in range(50)]
    second = [batches._own_system(pair) for pair in range(50, 100)]
    assert sorted(first) == sorted(second) == list(range(50))
    assert first != second


def test_grey_pairs_have_one_channel() -> None:
    grey = PairBatches(replace(SMALL, channels=1), 0).views(0)
    assert grey.shape == (8, 2, 1, 16, 16)
    assert torch.allclose(grey, luma(PairBatches(SMALL, 0).views(0).flatten(0, 1)).reshape(8, 2, 1, 16, 16))
