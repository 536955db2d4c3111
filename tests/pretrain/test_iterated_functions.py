"""Iterated function systems: the constraint on their singular values, and that a number always means one system."""

import math

import torch

from coterie.core import rng
from coterie.pretrain.iterated_functions import MAX_MAPS, Systems, draw_systems, jitter_systems, singular_values

MANY = draw_systems(0, torch.arange(3000))
SIZES = torch.linalg.svdvals(MANY.maps[..., :2])  # [B, N, 2]


def test_a_number_means_one_system_whichever_others_are_drawn() -> None:
    some = draw_systems(0, torch.tensor([7, 2999, 0]))
    for place, index in enumerate((7, 2999, 0)):
        assert torch.equal(some.maps[place], MANY.maps[index])
    assert not torch.equal(draw_systems(1, torch.tensor([7])).maps[0], MANY.maps[7])


def test_two_three_and_four_maps_are_equally_likely() -> None:
    """A third of 3000 each; 4 standard deviations are 4 sqrt(3000 2 / 9) = 103."""
    counts = torch.bincount(MANY.number).tolist()
    assert counts[:2] == [0, 0]
    assert all(abs(count - 1000) < 103 for count in counts[2:])
    absent = torch.arange(MAX_MAPS) >= MANY.number[:, None]
    assert not MANY.maps[absent].any()


def test_singular_values_obey_the_constraint() -> None:
    """0 <= s2 <= s1 <= 1, and sum (s1 + 2 s2) from (5 + n) / 2 to (6 + n) / 2."""
    assert float(SIZES.max()) <= 1 + 1e-9
    alpha = (SIZES[..., 0] + 2 * SIZES[..., 1]).sum(1) - (5 + MANY.number) / 2
    assert -1e-9 <= float(alpha.min()) < 0.01
    assert 0.49 < float(alpha.max()) <= 0.5 + 1e-9
    assert abs(float(alpha.mean()) - 0.25) < 0.02  # even: 0.25 +- 0.144 / sqrt(3000)


def test_singular_values_by_hand() -> None:
    """Two maps, alpha = 4, every draw in the middle of its range.

    Map 1: at least alpha - 3 n + 3 = 1 must go here. s1 from 1/3 to 1: 2/3. s2 from (1 - 2/3) / 2 = 1/6 to the less of
    2/3 and (4 - 2/3) / 2, 2/3: 5/12. Left are 4 - 2/3 - 5/6 = 5/2.
    Map 2: s2 from (5/2 - 1) / 2 = 3/4 to 5/6: 19/24; s1 = 5/2 - 19/12 = 11/12.
    """
    found = singular_values(torch.tensor([2]), torch.tensor([4.0]), torch.full((1, 4, 2), 0.5))
    expected = torch.tensor([[2 / 3, 5 / 12], [11 / 12, 19 / 24], [0, 0], [0, 0]])
    assert torch.allclose(found[0], expected)


def test_rotations_signs_and_translations_are_even() -> None:
    """Determinants are positive as often as negative; b fills (-1, 1)^2; images of (1, 0) go everywhere."""
    there = torch.arange(MAX_MAPS) < MANY.number[:, None]
    maps = MANY.maps[there]
    n = len(maps)
    positive = (torch.linalg.det(maps[..., :2]) > 0).double().mean()
    assert abs(float(positive) - 0.5) < 4 * 0.5 / math.sqrt(n)
    b = maps[..., 2]
    assert float(b.abs().max()) < 1
    assert float(b.mean(0).abs().max()) < 4 / math.sqrt(3 * n)
    angle = torch.atan2(maps[:, 1, 0], maps[:, 0, 0])
    quarters = torch.bincount(((angle + math.pi) / (math.pi / 2)).long().clamp(max=3)).double() / n
    assert float((quarters - 0.25).abs().max()) < 4 * 0.433 / math.sqrt(n)


def test_jitter_scales_one_map_by_a_factor_that_keeps_it_a_contraction() -> None:
    moved = jitter_systems(MANY, rng.fold(rng.key("jitter"), torch.arange(3000)))
    exists = torch.arange(MAX_MAPS) < MANY.number[:, None]
    factor = torch.where(exists, moved.maps[..., 0, 0] / MANY.maps[..., 0, 0], 1.0)
    changed = (factor - 1).abs() > 1e-12
    assert int(changed.sum(1).max()) == 1
    assert 0.8 <= float(factor[changed].min()) < 0.81
    assert 1.09 < float(factor[changed].max()) <= 1.1
    assert torch.allclose(moved.maps, MANY.maps * factor[..., None, None], atol=1e-12)
    assert float(torch.linalg.matrix_norm(moved.maps[..., :2], ord=2).max()) <= 1 + 1e-9


def test_jitter_leaves_systems_unchanged_where_no_try_fits() -> None:
    """Maps beyond 1 / 0.8 cannot be made small enough."""
    wide = Systems(MANY.maps / MANY.maps.abs().max() * 10, MANY.number)
    there = torch.linalg.matrix_norm(wide.maps[..., :2], ord=2)
    stuck = ((there > 1 / 0.8) | (torch.arange(MAX_MAPS) >= MANY.number[:, None])).all(1)
    assert int(stuck.sum()) > 10
    moved = jitter_systems(wide, rng.fold(rng.key("jitter"), torch.arange(3000)))
    assert torch.equal(moved.maps[stuck], wide.maps[stuck])
