"""MNIST and data sets in its form, from tiny files in the official format."""

from __future__ import annotations

import gzip
import os
from pathlib import Path

import numpy as np
import pytest
import torch

from coterie.core.errors import Mistake
from coterie.data import deal, load, own_test
from coterie.data.sources.rotated_mnist import rotate_images


def write_idx(path: Path, values: np.ndarray) -> None:
    header = bytes([0, 0, 8, values.ndim]) + b"".join(n.to_bytes(4, "big") for n in values.shape)
    path.write_bytes(gzip.compress(header + values.astype(np.uint8).tobytes()))


def write_four(folder: Path, train: int = 24, test: int = 12) -> None:
    """Image i is filled with the grey level i, labels go 0 1 ... 9 0 1 ..."""
    folder.mkdir(parents=True)
    for part, n in (("train", train), ("t10k", test)):
        write_idx(folder / f"{part}-images-idx3-ubyte.gz", np.arange(n)[:, None, None] * np.ones((1, 28, 28)))
        write_idx(folder / f"{part}-labels-idx1-ubyte.gz", np.arange(n) % 10)


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("COTERIE_DATA", str(tmp_path))
    return tmp_path


@pytest.mark.parametrize("name", ["mnist", "fashion_mnist"])
def test_the_official_files_become_images_from_0_to_1(home, name):
    """Image 20 is grey level 20: 20 / 255 everywhere; its label is 0."""
    write_four(home / name)
    source = load(name)
    x, y = source.train.tensors()
    assert x.shape == (24, 1, 28, 28)
    assert x.dtype == torch.float32
    assert torch.equal(x[20], torch.full((1, 28, 28), 20 / 255))
    assert y.dtype == torch.int64
    assert y.tolist() == [i % 10 for i in range(24)]
    assert source.test is not None
    assert len(source.test) == 12
    assert source.num_classes == len(source.label_names) == 10


def damage(kind: str, folder: Path) -> str:
    """Damage one file, and return its name."""
    images, labels = folder / "train-images-idx3-ubyte.gz", folder / "t10k-labels-idx1-ubyte.gz"
    if kind == "truncated gzip":
        images.write_bytes(images.read_bytes()[:-20])
    elif kind == "no gzip":
        images.write_bytes(b"<html>not found</html>")
    elif kind == "truncated values":
        images.write_bytes(gzip.compress(gzip.decompress(images.read_bytes())[:-5]))
    elif kind == "empty":
        images.write_bytes(gzip.compress(b""))
    elif kind == "labels for images":
        images.write_bytes((folder / "train-labels-idx1-ubyte.gz").read_bytes())
    elif kind == "other set's labels":
        labels.write_bytes((folder / "train-labels-idx1-ubyte.gz").read_bytes())
        return labels.name
    elif kind == "label 10":
        write_idx(labels, np.arange(12))
        return labels.name
    return images.name


@pytest.mark.parametrize(
    "kind",
    ["truncated gzip", "no gzip", "truncated values", "empty", "labels for images", "other set's labels", "label 10"],
)
def test_a_damaged_file_is_a_mistake_that_names_it(home, kind):
    write_four(home / "mnist")
    name = damage(kind, home / "mnist")
    with pytest.raises(Mistake, match=name) as raised:
        load("mnist")
    assert "\n" not in str(raised.value)


def test_rotation_by_a_quarter_turn_by_hand():
    """Counter-clockwise by 90 degrees the right column becomes the top row: [[1, 2], [3, 4]] -> [[2, 4], [1, 3]]."""
    x = torch.tensor([[[[1.0, 2.0], [3.0, 4.0]]]])
    assert torch.allclose(rotate_images(x, 90), torch.tensor([[[[2.0, 4.0], [1.0, 3.0]]]]), atol=1e-5)
    assert torch.allclose(rotate_images(x, -90), torch.tensor([[[[3.0, 1.0], [4.0, 2.0]]]]), atol=1e-5)
    assert torch.equal(rotate_images(x, 0), x)


def test_rotation_is_bilinear():
    """Turned by 45 degrees, the centre of 3 x 3 stays, and the top middle is fetched from one unit to the upper right.

    That is s = sqrt(1/2) right of the centre and s above it; its four neighbours are the centre, the right, the top and
    the top right pixel with weights (1 - s)^2, s (1 - s), (1 - s) s and s^2.
    """
    x = torch.arange(1.0, 10.0).reshape(1, 1, 3, 3)
    turned = rotate_images(x, 45)
    s = 0.5**0.5
    expected = (1 - s) ** 2 * 5 + s * (1 - s) * 6 + (1 - s) * s * 2 + s**2 * 3
    assert turned[0, 0, 1, 1].item() == pytest.approx(5, abs=1e-5)
    assert turned[0, 0, 0, 1].item() == pytest.approx(expected, abs=1e-5)


def test_each_angle_is_a_client_with_images_of_its_own(home):
    """24 and 12 images over three angles: 8 and 4 each. The grey level at the centre tells which image it was."""
    write_four(home / "mnist")
    source = load("rotated_mnist", angles=[0, 22.5, 90])
    clients = deal(source)
    assert {c: len(e) for c, e in clients.items()} == {"0": 8, "22.5": 8, "90": 8}
    levels = (source.train.tensors()[0][:, 0, 14, 14] * 255).round().to(torch.int64)
    assert sorted(levels.tolist()) == list(range(24))
    assert torch.equal(levels % 10, source.train.tensors()[1])
    assert {c: len(e) for c, e in own_test(source, clients).items()} == {"0": 4, "22.5": 4, "90": 4}


def test_rotated_training_images_depend_on_the_rng_seed_but_the_test_set_does_not(home):
    write_four(home / "mnist")
    one, same, other = (load("rotated_mnist", angles=[0, 30], rng_seed=seed) for seed in (1, 1, 2))
    assert torch.equal(one.train.x, same.train.x)
    assert not torch.equal(one.train.x, other.train.x)
    assert torch.equal(one.test.x, other.test.x)
    few = load("rotated_mnist", angles=[0, 30], rng_seed=1, examples_per_client=3)
    assert few.groups == ["0"] * 3 + ["30"] * 3


@pytest.mark.parametrize("angles", [[], [0, 0], [15, 15.0], ["left"], 30, [float("nan")], "0", [True]])
def test_angles_that_cannot_be_used_are_refused(home, angles):
    write_four(home / "mnist")
    with pytest.raises(Mistake, match=r"^angles"):
        load("rotated_mnist", angles=angles)


REAL = Path(os.environ.get("COTERIE_DATA", "/nowhere")) / "mnist"


@pytest.mark.skipif(not (REAL / "train-images-idx3-ubyte.gz").exists(), reason="MNIST is not there")
def test_real_mnist_has_its_published_numbers():
    """Published: mean grey level 0.1307, and 5,923 zeros among the training images."""
    source = load("mnist")
    assert (len(source.train), len(source.test)) == (60000, 10000)
    assert source.train.x.mean().item() == pytest.approx(0.1307, abs=1e-4)
    assert torch.bincount(source.train.y)[0] == 5923
