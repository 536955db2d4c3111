"""Pictures of fractals: the orbit is the chaos game's, and a picture is a function of its system and key."""

import pytest
import torch

from coterie.core import rng
from coterie.pretrain import fractals
from coterie.pretrain.fractals import fixed_point, orbit, render
from coterie.pretrain.iterated_functions import Systems, draw_systems, jitter_systems, uniform_rows

MANY = draw_systems(0, torch.arange(1000))
KEYS = rng.fold(rng.key("rendering"), torch.arange(1000))
GREY = render(jitter_systems(MANY, KEYS), KEYS, 1000, 32)


def one(index: int) -> Systems:
    return Systems(MANY.maps[index : index + 1], MANY.number[index : index + 1])


@pytest.mark.parametrize("points", [1000, 60, 7])
@pytest.mark.parametrize("index", [0, 1, 2])
def test_an_orbit_equals_that_of_a_plain_loop(index: int, points: int) -> None:
    """Point by point, each step's map chosen by the same number."""
    n, maps = int(MANY.number[index]), MANY.maps[index]
    bounds = torch.linalg.det(maps[:n, :, :2]).abs().cumsum(0)
    bounds = bounds / bounds[-1]
    x = torch.linalg.solve(torch.eye(2).double() - maps[0, :, :2], maps[0, :, 2])
    expected = []
    for u in uniform_rows(KEYS[index : index + 1], points)[0]:
        chosen = maps[int((u >= bounds[:-1]).sum())]
        x = chosen[:, :2] @ x + chosen[:, 2]
        expected.append(x)
    found = orbit(one(index), KEYS[index : index + 1], points)[:, :, 0].T
    # the orbit's own order is by place in its block: [L, K]
    length = fractals._largest_divisor(points)
    in_order = found.reshape(length, points // length, 2).transpose(0, 1).reshape(points, 2)
    assert torch.allclose(in_order, torch.stack(expected), atol=1e-9)


def test_an_orbit_starts_at_the_fixed_point_of_the_first_map() -> None:
    x = fixed_point(MANY.maps[:, 0]).T[..., None]
    assert torch.allclose(MANY.maps[:, 0, :, :2] @ x + MANY.maps[:, 0, :, 2:], x, atol=1e-6)


def test_maps_are_chosen_in_proportion_to_their_determinants() -> None:
    """Two maps, one with twice the other's determinant, that send everything to -9 and to 9: two thirds are at -9.

    Four standard deviations of a share of 4000 points are 4 sqrt(2 / 9 / 4000) = 0.03.
    """
    maps = torch.zeros(1, 4, 2, 3).double()
    maps[0, 0] = torch.tensor([[0.02, 0, -9], [0, -0.5, 0]])
    maps[0, 1] = torch.tensor([[0.01, 0, 9], [0, 0.5, 0]])
    x = orbit(Systems(maps, torch.tensor([2])), KEYS[:1], 4000)[0, :, 0]
    assert float((x < 0).double().mean()) == pytest.approx(2 / 3, abs=0.03)


def test_a_picture_by_hand() -> None:
    """Points at (0, 0), (1, 0) and (1, 1) of a 3 x 3 picture fall at its corners; a mask that keeps the middle and the
    right counts each there, and one column further if there is one.
    """
    x = torch.tensor([[[0.0], [1.0], [1.0]], [[0.0], [0.0], [1.0]]]).double()  # [2, T, 1]
    histogram = fractals._histogram(x, 3)
    assert histogram.tolist() == [[[1, 0, 1], [0, 0, 0], [0, 0, 1]]]
    kept = torch.tensor([[[0.0, 0, 0], [0, 1, 1], [0, 0, 0]]])
    assert fractals._add_neighbours(histogram, kept).tolist() == [[[1, 1, 1], [0, 0, 0], [0, 0, 1]]]


def test_a_mask_is_added_around_each_point() -> None:
    """Against a plain double loop, for random masks and points."""
    g = torch.Generator().manual_seed(0)
    histogram = torch.randint(0, 3, (6, 5, 5), generator=g).float()
    kept = (torch.rand(6, 3, 3, generator=g) < 0.5).float()
    expected = torch.zeros_like(histogram)
    for b, row, column in histogram.nonzero().tolist():
        for i, j in kept[b].nonzero().tolist():
            y, x = row + i - 1, column + j - 1
            if 0 <= y < 5 and 0 <= x < 5:
                expected[b, y, x] += histogram[b, row, column]
    assert torch.equal(fractals._add_neighbours(histogram, kept), expected)


def test_a_picture_does_not_depend_on_the_others() -> None:
    some = torch.tensor([3, 999, 250])
    alone = torch.cat([render(jitter_systems(one(int(k)), KEYS[k : k + 1]), KEYS[k : k + 1], 1000, 32) for k in some])
    assert torch.equal(alone, GREY[some])
    other = render(jitter_systems(one(3), KEYS[4:5]), KEYS[4:5], 1000, 32)
    assert not torch.equal(other[0], GREY[3])


def test_pictures_are_bounded_and_not_degenerate() -> None:
    """1000 systems: neither points nor blurs. `benchmarks/pretrain/fractals.py` measures 10,000."""
    assert torch.isfinite(GREY).all()
    assert torch.equal(GREY.amin((1, 2)), torch.zeros(1000))
    assert torch.equal(GREY.amax((1, 2)), torch.ones(1000))
    coverage = (GREY > 0).float().mean((1, 2))
    assert float(coverage.min()) > 0.01
    assert float(coverage.max()) < 0.9
    assert 0.35 < float(coverage.median()) < 0.55
    filled_rows = (GREY > 0).any(2).float().mean(1)
    filled_columns = (GREY > 0).any(1).float().mean(1)
    assert float(torch.minimum(filled_rows, filled_columns).median()) > 0.8


def test_orbits_stay_within_bounds() -> None:
    """A contraction on average: no orbit of 1000 goes far, though a map alone may hardly contract."""
    assert float(orbit(MANY, KEYS, 1000).abs().max()) < 1000


def test_an_orbit_that_never_leaves_its_first_point_is_a_picture_of_one_pixel() -> None:
    """The second map has no area, so it is hardly ever chosen: x -> x / 2 stays at its fixed point 0, in a corner."""
    shrink, flat = [[0.5, 0.0, 0.0], [0.0, 0.5, 0.0]], [[0.0, 0.0, 1.0], [0.0, 0.0, 1.0]]
    systems = Systems(torch.tensor([[shrink, flat]], dtype=torch.float64), torch.tensor([2]))
    picture = render(systems, rng.keys(1, "still"), 60, 8)
    assert picture.isfinite().all()
    assert picture.amax() == 1
    assert not picture[:, 2:].any()
