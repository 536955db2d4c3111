"""Sources whose clients are domains: any images turned, and MNIST with MNIST-M."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pytest
import torch

from coterie.core.errors import Mistake
from coterie.data import deal, load, own_test
from coterie.data.sources.digits_mix import pad_and_colour
from coterie.data.sources.pacs import DOMAINS, THINGS
from coterie.data.sources.rotated_mnist import rotate_images


@pytest.fixture
def home(tmp_path, monkeypatch):
    """MNIST and Fashion-MNIST with 24 and 12 images, image i of grey level i; MNIST-M with 9 and 4, level 200 + i."""
    monkeypatch.setenv("COTERIE_DATA", str(tmp_path))
    for name in ("mnist", "fashion_mnist"):
        write_idx(tmp_path / name)
    (tmp_path / "mnist_m").mkdir()
    x = np.zeros((13, 32, 32, 3), dtype=np.uint8) + (200 + np.arange(13, dtype=np.uint8))[:, None, None, None]
    y = np.arange(13) % 10
    np.savez(tmp_path / "mnist_m" / "mnist_m.npz", train_x=x[:9], train_y=y[:9], test_x=x[9:], test_y=y[9:])
    return tmp_path


def write_idx(folder: Path) -> None:
    folder.mkdir()
    for part, n in (("train", 24), ("t10k", 12)):
        for what, values in (
            ("images-idx3", np.arange(n)[:, None, None] * np.ones((1, 28, 28))),
            ("labels-idx1", np.arange(n) % 10),
        ):
            header = bytes([0, 0, 8, values.ndim]) + b"".join(d.to_bytes(4, "big") for d in values.shape)
            (folder / f"{part}-{what}-ubyte.gz").write_bytes(gzip.compress(header + values.astype(np.uint8).tobytes()))


def levels(x: torch.Tensor) -> torch.Tensor:
    """Return the grey level at the middle of each image, which identifies the image."""
    return (x[:, 0, 16, 16] * 255).round().long()


def test_both_domains_are_clients_of_the_same_shape_and_size(home):
    source = load("digits_mix")
    clients = deal(source)
    assert {c: len(e) for c, e in clients.items()} == {"mnist": 9, "mnist_m": 9}
    assert {c: len(e) for c, e in own_test(source, clients).items()} == {"mnist": 4, "mnist_m": 4}
    (grey, y), (coloured, _) = (clients[c].tensors() for c in ("mnist", "mnist_m"))
    assert grey.shape == coloured.shape == (9, 3, 32, 32)
    assert torch.equal(levels(grey) % 10, y)
    assert levels(coloured).tolist() == list(range(200, 209))


def test_a_part_of_each_domain_depends_on_the_rng_seed_but_the_test_set_does_not(home):
    one, same, other = (load("digits_mix", examples_per_client=5, rng_seed=seed) for seed in (1, 1, 2))
    assert one.groups == ["mnist"] * 5 + ["mnist_m"] * 5
    assert torch.equal(one.train.x, same.train.x)
    assert not torch.equal(one.train.x, other.train.x)
    assert torch.equal(one.test.x, other.test.x)


def test_a_border_of_two_pixels_in_three_channels():
    x = pad_and_colour(torch.ones(1, 1, 28, 28))
    assert x.sum() == 3 * 28 * 28
    assert x[0, :, 2:30, 2:30].min() == 1


def test_any_images_can_be_turned(home):
    source = load("rotated", of="fashion_mnist", angles=[0, 90])
    clients = deal(source)
    assert {c: len(e) for c, e in clients.items()} == {"0": 12, "90": 12}
    assert sorted(levels(source.train.x).tolist()) == list(range(24))
    assert torch.equal(levels(source.train.x) % 10, source.train.y)
    assert source.label_names[0] == "T-shirt/top"
    assert len(own_test(source, clients)["90"]) == 6


def test_images_are_turned_by_the_angle_of_the_client(home):
    whole, turned = load("mnist"), load("rotated", of="mnist", angles=[30])
    assert torch.equal(turned.train.x, rotate_images(whole.train.x, 30))


def test_sources_that_cannot_be_turned_are_refused(home, tmp_path, monkeypatch):
    code = "import torch; from coterie import Examples; from coterie.data import Source\n"
    code += "def rows(): return Source('rows', Examples(torch.zeros(4, 3)), None, None)\n"
    (tmp_path / "source_of_rows.py").write_text(code)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(Mistake, match=r'^of = "source_of_rows:rows": .* of shape \[3\], which are not images'):
        load("rotated", of="source_of_rows:rows", angles=[0])
    with pytest.raises(Mistake, match=r"^angles: there are 25 angles, but only 24 images"):
        load("rotated", of="mnist", angles=list(range(25)))
    with pytest.raises(Mistake, match=r'^of = "mnits": did you mean "mnist"'):
        load("rotated", of="mnits", angles=[0])


def test_pacs_is_an_archive_or_the_authors_folders(tmp_path, monkeypatch):
    """Ten pictures of each domain and class, 64 x 64 of one level each, which reducing does not change."""
    image = pytest.importorskip("PIL.Image")
    monkeypatch.setenv("COTERIE_DATA", str(tmp_path))
    with pytest.raises(Mistake, match=r"pacs32.npz: is missing; put there .*, or next to it the authors' folders"):
        load("pacs")
    levels, y, domain = [], [], []
    for d, name in enumerate(DOMAINS):
        for c, label in enumerate(THINGS):
            (tmp_path / "pacs" / "pacs_data" / name / label).mkdir(parents=True)
            for k in range(10):
                levels.append(60 * d + 8 * c + k % 2)
                file = tmp_path / "pacs" / "pacs_data" / name / label / f"pic_{k:03}.png"
                image.new("RGB", (64, 64), (levels[-1],) * 3).save(file)
                y.append(c)
                domain.append(d)
    of_folders = load("pacs")
    x = np.zeros((280, 32, 32, 3), dtype=np.uint8) + np.array(levels, dtype=np.uint8)[:, None, None, None]
    np.savez(tmp_path / "pacs" / "pacs32.npz", x=x, y=y, domain=domain)
    of_archive = load("pacs")
    for part in ("train", "test"):
        for ours, theirs in zip(getattr(of_folders, part).tensors(), getattr(of_archive, part).tensors(), strict=True):
            assert torch.equal(ours, theirs)
    assert of_folders.groups == of_archive.groups
    assert {c: len(e) for c, e in deal(of_folders).items()} == dict.fromkeys(DOMAINS, 56)
    (tmp_path / "pacs" / "pacs32.npz").unlink()
    (tmp_path / "pacs" / "pacs_data" / "photo" / "dog").rename(tmp_path / "pacs" / "pacs_data" / "photo" / "cat")
    with pytest.raises(Mistake, match=r"pic_000.png: does not lie in one of the folders dog, elephant"):
        load("pacs")
