"""A numpy archive of the user's own."""

from __future__ import annotations

import io
import pickle
import zipfile
from random import Random

import numpy as np
import pytest
import torch

from coterie.core.errors import Mistake
from coterie.data import deal, load, own_test


@pytest.fixture
def save(tmp_path):
    def write(**arrays):
        path = tmp_path / "mine.npz"
        np.savez(path, **arrays)
        return path

    return write


Y = np.arange(20) % 4


def shape_and_type(source):
    return tuple(source.train.x.shape[1:]), source.train.x.dtype


@pytest.mark.parametrize(
    ("x", "shape", "dtype"),
    [
        (np.zeros((20, 5)), (5,), torch.float32),
        (np.zeros(20), (1,), torch.float32),
        (np.zeros((20, 5), dtype=np.int32), (5,), torch.int64),
        (np.zeros((20, 8, 6), dtype=np.uint8), (1, 8, 6), torch.float32),
        (np.zeros((20, 8, 6), dtype=np.float16), (1, 8, 6), torch.float32),
        (np.zeros((20, 3, 8, 6), dtype=np.uint8), (3, 8, 6), torch.float32),
        (np.zeros((20, 8, 6, 3), dtype=np.uint8), (3, 8, 6), torch.float32),
        (np.zeros((20, 5), dtype=bool), (5,), torch.float32),
    ],
)
def test_arrays_become_inputs(save, x, shape, dtype):
    assert shape_and_type(load("npz", path=save(x=x, y=Y))) == (shape, dtype)


def test_pixels_are_scaled_and_channels_moved(save):
    """Pixel (2, 1) of channel 2 of image 0 is 51, which is 51 / 255 = 0.2."""
    x = np.zeros((20, 8, 6, 3), dtype=np.uint8)
    x[0, 2, 1, 2] = 51
    images = load("npz", path=save(x=x, y=Y)).train.x
    assert images[0, 2, 2, 1].item() == pytest.approx(0.2)
    assert images.count_nonzero() == 1


def test_marked_rows_are_for_testing(save):
    is_test = np.arange(20) >= 15
    source = load("npz", path=save(x=np.arange(20.0), y=Y, test=is_test))
    assert source.test.tensors()[0].flatten().tolist() == [15, 16, 17, 18, 19]
    assert len(source.train) == 15
    assert source.num_classes == 4


def test_without_marks_a_fixed_part_of_each_class_is_for_testing(save):
    """Five of each of four classes at 0.2: one test row of each class."""
    source = load("npz", path=save(x=np.arange(20.0), y=Y))
    assert sorted(source.test.tensors()[1].tolist()) == [0, 1, 2, 3]
    assert len(load("npz", path=save(x=np.arange(20.0), y=Y), test_fraction=0.4).test) == 8


@pytest.mark.parametrize(
    "column", [np.arange(20) // 10 + 7, np.array(["7", "8"]).repeat(10), np.array([b"7", b"8"]).repeat(10)]
)
def test_a_client_column_makes_natural_clients(save, column):
    source = load("npz", path=save(x=np.arange(20.0), y=Y, ward=column), client_column="ward")
    clients = deal(source)
    assert list(clients) == ["7", "8"]
    assert {c: len(e) for c, e in own_test(source, clients).items()} == {"7": 2, "8": 2}
    assert all((e.tensors()[0].flatten() // 10 + 7).tolist() == [int(c)] * len(e) for c, e in clients.items())


def test_a_client_with_one_example_keeps_it_for_training(save):
    column = np.array(["many"] * 19 + ["one"])
    clients = deal(load("npz", path=save(x=np.arange(20.0), y=Y, ward=column), client_column="ward"))
    assert clients["one"].tensors()[0].tolist() == [[19.0]]


def test_a_class_seen_only_in_the_test_rows_counts(save):
    y = np.array([0, 1] * 9 + [2, 2])
    source = load("npz", path=save(x=np.zeros(20), y=y, test=np.arange(20) >= 16))
    assert source.num_classes == 3


def test_labels_may_have_more_dimensions(save):
    y = np.tile([0, 5, -100], (20, 1))
    source = load("npz", path=save(x=np.zeros((20, 3), dtype=np.int64), y=y))
    assert source.num_classes == 6
    assert source.train.tensors()[1].shape == (16, 3)


NAN, INF = np.zeros((20, 2)), np.zeros((20, 2))
NAN[3, 1], INF[4, 0] = np.nan, np.inf


@pytest.mark.parametrize(
    ("arrays", "says"),
    [
        ({"x": np.zeros(20)}, 'no array "y"; it holds x'),
        ({"y": Y}, 'no array "x"'),
        ({"x": np.zeros(19), "y": Y}, r"differ in length \(19 of x, 20 of y\)"),
        ({"x": np.zeros(20), "y": Y, "test": np.zeros(3, dtype=bool)}, "3 of test"),
        ({"x": NAN, "y": Y}, "x: example 3 holds nan"),
        ({"x": INF, "y": Y}, "x: example 4 holds inf"),
        ({"x": np.full(20, 1e300), "y": Y}, "x: example 0 holds 1e"),
        ({"x": np.zeros((20, 0)), "y": Y}, "x: has shape"),
        ({"x": np.array(["a"] * 20), "y": Y}, "x: holds <U1 values"),
        ({"x": np.zeros(20), "y": Y.astype(float)}, "y: holds float64 values; labels must be whole numbers"),
        ({"x": np.zeros(20), "y": np.array(["cat"] * 20)}, "y: holds <U3 values"),
        ({"x": np.zeros(20), "y": Y[:, None]}, r"y: has shape \[20, 1\]; give one label for each example"),
        ({"x": np.zeros(20), "y": Y - 1}, "y: holds the label -1"),
        ({"x": np.zeros(20), "y": Y * 10**9}, "y: holds the label 3000000000 among only 20"),
        ({"x": np.zeros(20), "y": Y, "test": np.full(20, True)}, "test: marks 20 of 20"),
        ({"x": np.zeros(20), "y": Y, "test": Y}, "test: must hold true or false"),
        ({"x": np.array([{}] * 20), "y": Y}, "cannot be read as a numpy archive of plain arrays"),
        ({"x": np.float64(3), "y": np.int64(1)}, "x: has shape"),
    ],
)
def test_arrays_that_cannot_be_used_give_a_mistake_that_names_the_file(save, arrays, says):
    with pytest.raises(Mistake, match=says) as raised:
        load("npz", path=save(**arrays))
    assert "mine.npz" in str(raised.value)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("dtype", [">f8", ">f4", ">i2", ">u2", "u2", "u4", "longdouble"])
def test_numbers_of_another_byte_order_or_width_are_the_same_numbers(save, dtype):
    """A big-endian file of another machine, and unsigned numbers of a microscope."""
    x = np.arange(40).reshape(20, 2)
    source = load("npz", path=save(x=x.astype(dtype), y=Y.astype(">u2")))
    assert torch.equal(source.train.x, load("npz", path=save(x=x.astype(np.dtype(dtype).kind + "8"), y=Y)).train.x)
    assert source.train.y.tolist() == Y.tolist()


def test_numbers_beyond_int64_do_not_become_negative(save):
    large = np.arange(20, dtype=np.uint64) + 2**63
    for arrays, says in (({"x": large, "y": Y}, "x: holds 9223372036854775827"), ({"x": Y, "y": large}, "y: holds 92")):
        with pytest.raises(Mistake, match=f"{says}.*beyond 64 bits with a sign"):
            load("npz", path=save(**arrays))


@pytest.mark.parametrize("key", ["client_column", "test_column"])
def test_a_missing_column_is_named(save, key):
    with pytest.raises(Mistake, match=rf"^{key} = \"hospital\": .*mine.npz holds no such array; it holds x, y, ward"):
        load("npz", path=save(x=np.zeros(20), y=Y, ward=Y), **{key: "hospital"})


@pytest.mark.parametrize(
    ("column", "says"),
    [
        (Y[:, None], r"ward: has shape \[20, 1\]; give one client id for each example"),
        (np.where(Y == 1, np.nan, Y), 'ward: example 1 holds "nan"; every example needs a client id'),
        (Y + 1j, "ward: holds complex128 values; a client id is text or a number"),
        (np.array([b"a", b"\xff"])[Y % 2], "ward: holds bytes that are not text in UTF-8"),
        (np.where(Y == 2, "", "a"), 'ward: example 2 holds ""; every example needs a client id'),
    ],
)
def test_every_example_has_one_client_id(save, column, says):
    with pytest.raises(Mistake, match=says):
        load("npz", path=save(x=np.zeros(20), y=Y, ward=column), client_column="ward")


def test_other_files_than_archives_are_refused(tmp_path):
    (tmp_path / "text.npz").write_text("x,y\n1,2\n")
    (tmp_path / "empty.npz").write_bytes(b"")
    (tmp_path / "pickle.npz").write_bytes(pickle.dumps({"x": [1]}))
    np.save(tmp_path / "single.npy", np.zeros(3))
    good = tmp_path / "good.npz"
    np.savez(good, x=np.zeros(100), y=np.zeros(100, dtype=int))
    (tmp_path / "cut.npz").write_bytes(good.read_bytes()[:-30])
    for name in ("text.npz", "empty.npz", "pickle.npz", "single.npy", "cut.npz"):
        with pytest.raises(Mistake, match=name) as raised:
            load("npz", path=tmp_path / name)
        assert "allow_pickle" not in str(raised.value)  # nobody is to be led to that
    with pytest.raises(Mistake, match=r"there is no such file"):
        load("npz", path=tmp_path / "none.npz")
    with pytest.raises(Mistake, match=r"cannot be read"):
        load("npz", path=tmp_path)


def as_member(array):
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


def write_archive(path, *members, compression=zipfile.ZIP_STORED):
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, content in members:
            archive.writestr(name, content)
    return path


X_MEMBER, Y_MEMBER = ("x.npy", as_member(np.arange(40.0).reshape(20, 2))), ("y.npy", as_member(Y))


@pytest.mark.parametrize("compression", [zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_compressed_archives_are_read(tmp_path, compression):
    path = write_archive(tmp_path / "mine.npz", X_MEMBER, Y_MEMBER, compression=compression)
    assert load("npz", path=path).train.x.sum() == sum(range(40))


def lie_about_shape(shape):
    honest, lie = "(20, 2), }", f"({shape}), }}"
    return X_MEMBER[0], X_MEMBER[1].replace(honest.ljust(40).encode(), lie.ljust(40).encode())


@pytest.mark.parametrize(
    ("members", "says"),
    [
        ([lie_about_shape("99, 2"), Y_MEMBER], "expected 1584 bytes got 320"),
        ([lie_about_shape("5, 2"), Y_MEMBER], r"x: holds more than the \[5, 2\] that it says"),
        ([lie_about_shape("9" * 12), Y_MEMBER], "cannot be read as a numpy archive"),
        ([lie_about_shape("9" * 25), Y_MEMBER], "cannot be read as a numpy archive"),
        ([("x.npy", b"no array at all"), Y_MEMBER], "cannot be read as a numpy archive"),
        ([("x", X_MEMBER[1]), X_MEMBER, Y_MEMBER], 'holds two arrays called "x"; keep one'),
    ],
)
def test_a_header_that_lies_is_refused(tmp_path, members, says):
    with pytest.raises(Mistake, match=says):
        load("npz", path=write_archive(tmp_path / "mine.npz", *members))


def test_an_archive_with_changed_bytes_is_read_or_refused(tmp_path):
    """Bits set in a member's flags make it encrypted; other numbers name compressions that nobody knows."""
    rng, path = Random(0), tmp_path / "mine.npz"
    whole = [
        write_archive(path, X_MEMBER, Y_MEMBER, compression=compression).read_bytes()
        for compression in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_LZMA)
    ]
    sentences = []
    for k in range(200):
        content = bytearray(whole[k % 3])
        headers = [content.find(b"PK\x01\x02") + 8, content.find(b"PK\x03\x04") + 6]
        places = [rng.choice(headers) + rng.randrange(4)] if k % 2 else rng.sample(range(len(content)), 2)
        for place in places:
            content[place] = rng.randrange(256)
        path.write_bytes(content)
        try:
            load("npz", path=path)
        except Mistake as mistake:
            sentences.append(str(mistake))
    assert len(sentences) > 100
    assert all("mine.npz" in sentence for sentence in sentences)
