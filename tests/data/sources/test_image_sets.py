"""CIFAR-10 and -100, PACS and MNIST-M, from small files in their published form."""

from __future__ import annotations

import os
import pickle
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch

from coterie.core.errors import Mistake
from coterie.data import deal, load, own_test


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("COTERIE_DATA", str(tmp_path))
    return tmp_path


def batch(n: int, first: int, key: bytes = b"labels") -> dict[bytes, object]:
    """Picture i is all grey level first + i in its red plane and 0 elsewhere; its label is i % 10."""
    data = np.zeros((n, 3072), dtype=np.uint8)
    data[:, :1024] = first + np.arange(n)[:, None]
    return {b"data": data, key: [i % 10 for i in range(n)]}


def write_cifar10(folder: Path) -> None:
    folder.mkdir(parents=True)
    for k in range(1, 6):
        (folder / f"data_batch_{k}").write_bytes(pickle.dumps(batch(4, 4 * (k - 1)), protocol=2))
    (folder / "test_batch").write_bytes(pickle.dumps(batch(3, 100), protocol=2))


def assert_is_small_cifar10(source):
    """The 20 training pictures in the order of the batches; red is the first channel."""
    x, y = source.train.tensors()
    assert x.shape == (20, 3, 32, 32)
    assert torch.equal(x[:, 0, 31, 31] * 255, torch.arange(20.0))
    assert x[:, 1:].count_nonzero() == 0
    assert y.tolist() == [0, 1, 2, 3] * 5
    assert len(source.test) == 3
    assert source.num_classes == len(source.label_names) == 10


def test_cifar10_reads_the_official_batches(home):
    write_cifar10(home / "cifar10" / "cifar-10-batches-py")
    assert_is_small_cifar10(load("cifar10"))


def test_cifar10_is_unpacked_from_the_official_archive(home, tmp_path):
    write_cifar10(tmp_path / "elsewhere" / "cifar-10-batches-py")
    (home / "cifar10").mkdir()
    with tarfile.open(home / "cifar10" / "cifar-10-python.tar.gz", "w:gz") as tar:
        tar.add(tmp_path / "elsewhere" / "cifar-10-batches-py", "cifar-10-batches-py")
    assert_is_small_cifar10(load("cifar10"))
    (home / "cifar10" / "cifar-10-python.tar.gz").unlink()
    assert_is_small_cifar10(load("cifar10"))


def test_an_archive_without_the_batches_is_a_mistake(home):
    (home / "cifar10").mkdir()
    with tarfile.open(home / "cifar10" / "cifar-10-python.tar.gz", "w:gz"):
        pass
    with pytest.raises(Mistake, match=r"cifar-10-python.tar.gz: cannot be unpacked"):
        load("cifar10")


def test_cifar100_takes_the_fine_labels(home):
    folder = home / "cifar100" / "cifar-100-python"
    folder.mkdir(parents=True)
    for name in ("train", "test"):
        content = batch(30, 0, b"fine_labels") | {b"coarse_labels": [0] * 30}
        (folder / name).write_bytes(pickle.dumps(content, protocol=2))
    (folder / "meta").write_bytes(pickle.dumps({b"fine_label_names": [f"thing {i}".encode() for i in range(100)]}))
    source = load("cifar100")
    assert source.num_classes == 100
    assert source.label_names[99] == "thing 99"
    assert source.train.y.tolist() == [i % 10 for i in range(30)]


class Evil:
    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self):
        return os.mkdir, (str(self.mark),)


@pytest.mark.parametrize("protocol", [2, 4])
def test_a_batch_that_would_run_code_is_refused_and_runs_nothing(home, protocol):
    write_cifar10(home / "cifar10" / "cifar-10-batches-py")
    mark = home / "it_ran"
    path = home / "cifar10" / "cifar-10-batches-py" / "data_batch_2"
    path.write_bytes(pickle.dumps(batch(4, 0) | {b"more": Evil(mark)}, protocol=protocol))
    with pytest.raises(Mistake, match=r"data_batch_2: asks for \w+.mkdir"):
        load("cifar10")
    assert not mark.exists()


def codec(name: str) -> bytes:
    """A pickle that asks `_codecs.encode` for a codec other than that of bytes in old pickles."""
    return b"\x80\x02c_codecs\nencode\n(X\x01\x00\x00\x00aX" + bytes([len(name), 0, 0, 0]) + name.encode() + b"tR."


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "is not a batch of pictures"),
        (pickle.dumps(batch(4, 0))[:200], "is not a batch of pictures"),
        (codec("zip"), "asks for the codec"),
        (pickle.dumps([1, 2]), 'holds no "data"'),
        (pickle.dumps({b"data": batch(4, 0)[b"data"]}), 'holds no "labels"'),
        (pickle.dumps(batch(4, 0) | {b"labels": [0, 1, 2]}), "for 3 labels"),
        (pickle.dumps(batch(4, 0) | {b"labels": [0, 1, 2, 10]}), "not 0 to 9"),
        (pickle.dumps(batch(4, 0) | {b"labels": ["cat"] * 4}), "not whole numbers"),
        (pickle.dumps(batch(4, 0) | {b"data": np.zeros((4, 3072))}), "holds float64"),
    ],
)
def test_a_damaged_batch_is_a_mistake_that_names_it(home, content, says):
    write_cifar10(home / "cifar10" / "cifar-10-batches-py")
    (home / "cifar10" / "cifar-10-batches-py" / "data_batch_3").write_bytes(content)
    with pytest.raises(Mistake, match=says) as raised:
        load("cifar10")
    assert "data_batch_3" in str(raised.value)
    assert "\n" not in str(raised.value)


def write_pacs(home: Path, **changes) -> None:
    """Ten pictures of each of two classes in each of four domains; picture i has red level i."""
    x = np.zeros((80, 32, 32, 3), dtype=np.uint8)
    x[..., 0] = np.arange(80)[:, None, None]
    arrays = {"x": x, "y": np.arange(80) % 2, "domain": np.arange(80) // 20} | changes
    (home / "pacs").mkdir()
    np.savez(home / "pacs" / "pacs32.npz", **arrays)


def test_pacs_has_a_client_for_each_domain(home):
    """20 pictures each, 4 of them, 2 of either class, for testing."""
    write_pacs(home)
    source = load("pacs")
    clients = deal(source)
    assert {c: len(e) for c, e in clients.items()} == {"art_painting": 16, "cartoon": 16, "photo": 16, "sketch": 16}
    for k, (c, own) in enumerate(own_test(source, clients).items()):
        x, y = own.tensors()
        assert sorted(y.tolist()) == [0, 0, 1, 1]
        assert all(20 * k <= level < 20 * k + 20 for level in (x[:, 0, 0, 0] * 255).round().tolist()), c
        assert x[:, 1:].count_nonzero() == 0


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"x": np.zeros((80, 3, 32, 32), dtype=np.uint8)}, "must be uint8"),
        ({"y": np.full(80, 7)}, "y must hold a number from 0 to 6"),
        ({"domain": np.full(80, 4)}, "domain must hold a number from 0 to 3"),
        ({"domain": np.zeros(79, dtype=int)}, "domain must hold"),
    ],
)
def test_pacs_in_another_form_is_a_mistake(home, changes, says):
    write_pacs(home, **changes)
    with pytest.raises(Mistake, match=says):
        load("pacs")


def test_mnist_m_has_the_split_of_its_file(home):
    (home / "mnist_m").mkdir()
    x = np.full((6, 32, 32, 3), 255, dtype=np.uint8)
    np.savez(home / "mnist_m" / "mnist_m.npz", train_x=x, train_y=np.arange(6), test_x=x[:2], test_y=np.arange(2))
    source = load("mnist_m")
    assert source.train.x.shape == (6, 3, 32, 32)
    assert source.train.x.min() == 1
    assert len(source.test) == 2


@pytest.mark.parametrize("name", ["pacs", "mnist_m"])
def test_a_file_that_cannot_be_fetched_is_described(home, name):
    with pytest.raises(Mistake, match=f"{name}.*npz: is missing; put there .*uint8"):
        load(name)
