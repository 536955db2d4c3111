"""Augmentation: pure functions of a batch and a key."""

from __future__ import annotations

import pytest
import torch

from coterie.core import rng
from coterie.core.errors import Mistake
from coterie.data import AUGMENTATIONS, augmentation
from coterie.data.crop_and_flip import crop, flip

KEY = rng.key(0, "augment")
X = torch.arange(1.0, 1 + 8 * 2 * 5 * 6).reshape(8, 2, 5, 6)


def cuts(image, padding):
    """Every piece that cropping may cut out of an image [C, H, W]."""
    padded = torch.nn.functional.pad(image, [padding] * 4)
    _, h, w = image.shape
    return [padded[:, i : i + h, j : j + w] for i in range(2 * padding + 1) for j in range(2 * padding + 1)]


def test_crop_cuts_some_piece_out_of_the_padded_image():
    moved = crop(X, KEY, padding=2)
    for before, after in zip(X, moved, strict=True):
        assert any(torch.equal(after, piece) for piece in cuts(before, 2))
    assert torch.equal(crop(X, KEY, padding=0), X)


def test_crop_reaches_every_place():
    """One image 400 times at padding 1: each of nine places is missed with probability (8/9)^400 < 1e-20."""
    many = X[:1].expand(400, -1, -1, -1)
    found = {tuple(image.flatten().tolist()) for image in crop(many, KEY, padding=1)}
    assert found == {tuple(piece.flatten().tolist()) for piece in cuts(X[0], 1)}


def test_flip_mirrors_about_half_of_the_images():
    """Of 400 fair coins, 200 +- 10; more than 250 or fewer than 150 is five deviations away."""
    many = X[:1].expand(400, -1, -1, -1)
    mirrored = [torch.equal(image, X[0].flip(2)) for image in flip(many, KEY)]
    kept = [torch.equal(image, X[0]) for image in flip(many, KEY)]
    assert all(m != k for m, k in zip(mirrored, kept, strict=True))
    assert 150 < sum(mirrored) < 250


@pytest.mark.parametrize("name", AUGMENTATIONS)
def test_an_image_is_changed_by_the_key_and_its_place_alone(name):
    """A longer batch begins the same; the same key repeats; under vmap over keys each is as if alone."""
    augment = augmentation(name)
    alone = augment(X, KEY)
    assert torch.equal(augment(X[:3], KEY), alone[:3])
    assert torch.equal(augment(X, KEY), alone)
    keys = torch.stack([KEY, rng.key(1, "augment")])
    both = torch.func.vmap(augment)(torch.stack([X, X]), keys)
    assert torch.equal(both[0], alone)
    assert torch.equal(both[1], augment(X, keys[1]))
    assert (name == "none") == torch.equal(alone, augment(X, keys[1]))


def test_an_unknown_augmentation_is_a_mistake():
    with pytest.raises(Mistake, match=r'^augment = "mirror": it must be one of none, crop'):
        augmentation("mirror")
