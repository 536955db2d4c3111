"""A folder of pictures of the user's own."""

from __future__ import annotations

import importlib
import os
import struct
import zlib

import numpy as np
import pytest
import torch

from coterie.core.errors import Mistake
from coterie.data import deal, load, own_test

Image = pytest.importorskip("PIL.Image")


def write(path, level, size=(6, 4), mode="RGB"):
    """Write a picture of one level, 6 wide and 4 high."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, size, level if mode == "L" else (level, 0, 0)).save(path)


@pytest.fixture
def by_class(tmp_path):
    for i in range(10):
        write(tmp_path / ["cat", "dog"][i % 2] / f"{i}.png", 51)
    return tmp_path


def test_a_folder_for_each_class(by_class):
    (by_class / "cat" / "notes.txt").write_text("not a picture")
    (by_class / ".hidden").mkdir()
    write(by_class / ".hidden" / "cat" / "x.png", 0, size=(1, 1))
    source = load("images", path=by_class)
    assert source.label_names == ["cat", "dog"]
    assert (len(source.train), len(source.test)) == (8, 2)
    x, y = source.train.tensors()
    assert x.shape == (8, 3, 4, 6)
    assert torch.allclose(x[:, 0], torch.tensor(0.2))
    assert x[:, 1:].count_nonzero() == 0
    assert y.tolist() == [0] * 4 + [1] * 4
    assert not source.natural


def test_a_folder_for_each_client_and_class(tmp_path):
    """The second client has dogs alone; classes are numbered over all clients."""
    for i in range(5):
        write(tmp_path / "a" / "cat" / f"{i}.png", i, mode="L")
        write(tmp_path / "b" / "dog" / f"{i}.png", 100 + i, mode="L")
    source = load("images", path=tmp_path)
    clients = deal(source)
    assert {c: len(e) for c, e in clients.items()} == {"a": 4, "b": 4}
    assert {c: len(e) for c, e in own_test(source, clients).items()} == {"a": 1, "b": 1}
    x, y = clients["b"].tensors()
    assert x.shape[1] == 1
    assert set(y.tolist()) == {1}
    assert (x * 255).min() > 99


def test_folders_called_train_and_test_are_the_split(tmp_path):
    for part, n in (("train", 3), ("test", 2)):
        for i in range(n):
            write(tmp_path / part / "cat" / f"{i}.png", i)
    source = load("images", path=tmp_path)
    assert (len(source.train), len(source.test)) == (3, 2)
    assert not source.natural
    write(tmp_path / "val" / "cat" / "0.png", 0)
    with pytest.raises(Mistake, match=r"train and test are the split, so val beside them cannot be a client; move"):
        load("images", path=tmp_path)


def test_pictures_without_labels(tmp_path):
    """In the folder itself, or in a folder for each client."""
    for i in range(3):
        write(tmp_path / "loose" / f"{i}.png", i)
        write(tmp_path / "clients" / "ab"[i % 2] / f"{i}.png", i)
    write(tmp_path / "deep" / "client" / "class" / "0.png", 0)
    source = load("images", path=tmp_path / "loose", labels=False)
    assert (len(source.train), source.train.y, source.test) == (3, None, None)
    assert {c: len(e) for c, e in deal(load("images", path=tmp_path / "clients", labels=False)).items()} == {
        "a": 2,
        "b": 1,
    }
    with pytest.raises(Mistake, match=r"lies at depth 3; a picture belongs in the folder itself or in client/"):
        load("images", path=tmp_path / "deep", labels=False)


def test_one_picture_in_colour_makes_all_pictures_colour(by_class):
    write(by_class / "dog" / "grey.png", 51, mode="L")
    assert load("images", path=by_class).train.x.shape[1] == 3


def test_grey_pictures_may_have_transparency(tmp_path):
    for i in range(5):
        write(tmp_path / "cat" / f"{i}.png", 51, mode="L")
    Image.new("LA", (6, 4), (51, 128)).save(tmp_path / "cat" / "through.png")
    x = load("images", path=tmp_path).train.x
    assert x.shape[1] == 1
    assert x.unique().tolist() == [pytest.approx(0.2)]


def test_a_picture_is_turned_by_its_orientation(by_class):
    """Its file holds it turned (orientation 6: the first row is the right side), as phones write them."""
    upright = np.arange(4 * 6 * 3, dtype=np.uint8).reshape(4, 6, 3)
    turned = Image.fromarray(np.ascontiguousarray(np.rot90(upright)))
    exif = turned.getexif()
    exif[0x0112] = 6
    turned.save(by_class / "cat" / "0.png", exif=exif)
    x = load("images", path=by_class).train.x
    assert torch.equal((x[0] * 255).round().to(torch.uint8).permute(1, 2, 0), torch.from_numpy(upright))


def test_pictures_of_two_sizes(by_class):
    write(by_class / "dog" / "z.png", 0, size=(5, 5))
    with pytest.raises(
        Mistake, match=r"z.png: has 5 x 5 where .*0.png has 6 x 4; bring all pictures to one size, or to sq"
    ):
        load("images", path=by_class)


def test_pictures_of_any_sizes_become_squares(by_class):
    """The largest centred square is scaled: of a white bar on red, 4 of 8 wide, the square keeps the bar alone."""
    bar = Image.new("RGB", (8, 4), (255, 0, 0))
    bar.paste((255, 255, 255), (2, 0, 6, 4))
    bar.save(by_class / "dog" / "z.png")
    write(by_class / "dog" / "y.gif", 0, size=(1, 9), mode="L")
    source = load("images", path=by_class, side=3, test_fraction=0.1)
    x = torch.cat([source.train.tensors()[0], source.test.tensors()[0]])
    assert (source.side, x.shape) == (3, (12, 3, 3, 3))
    assert (x.flatten(1).min(1).values > 0.95).sum() == 1
    with pytest.raises(Mistake, match="side"):
        load("images", path=by_class, side=0)


@pytest.mark.parametrize("content", [b"", b"not a picture", b"\x89PNG\r\n\x1a\n"])
def test_a_picture_that_cannot_be_read(by_class, content):
    (by_class / "dog" / "z.png").write_bytes(content)
    with pytest.raises(Mistake, match=r"z.png: cannot be read as a picture") as raised:
        load("images", path=by_class)
    assert "\n" not in str(raised.value)
    assert "''" not in str(raised.value)  # where pillow names the file once more


def test_a_truncated_picture(by_class):
    noise = np.random.default_rng(0).integers(0, 255, (4, 6, 3), dtype=np.uint8)
    Image.fromarray(noise).save(by_class / "dog" / "z.png")
    whole = (by_class / "dog" / "z.png").read_bytes()
    (by_class / "dog" / "z.png").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(Mistake, match=r"z.png: cannot be read as a picture"):
        load("images", path=by_class)


def test_sixteen_bits_a_channel(by_class):
    Image.fromarray(np.zeros((4, 6), dtype=np.uint16)).save(by_class / "dog" / "z.png")
    with pytest.raises(Mistake, match=r"z.png: has pixels of the kind 'I;16'; convert it to 8 bits"):
        load("images", path=by_class)


def test_folders_of_another_form_are_refused(tmp_path):
    with pytest.raises(Mistake, match=r"there is no such folder"):
        load("images", path=tmp_path / "none")
    with pytest.raises(Mistake, match=r"holds no pictures"):
        load("images", path=tmp_path)
    write(tmp_path / "a.png", 0)
    with pytest.raises(Mistake, match=r"a.png lies at depth 1; a picture belongs in class/ or in client/class/"):
        load("images", path=tmp_path)
    (tmp_path / "a.png").unlink()
    write(tmp_path / "cat" / "a.png", 0)
    write(tmp_path / "client" / "dog" / "a.png", 0)
    with pytest.raises(Mistake, match=r"lies at depth 3 while cat/a.png lies at another"):
        load("images", path=tmp_path)


@pytest.mark.parametrize("file", [None, ".gitkeep", "scan.dcm"])
def test_a_folder_without_pictures_is_named(tmp_path, file):
    """For example a hospital's whose pictures were not copied, or have an unknown suffix."""
    for i in range(5):
        write(tmp_path / "a" / "cat" / f"{i}.png", i)
    (tmp_path / "b" / "cat").mkdir(parents=True)
    if file is not None:
        (tmp_path / "b" / "cat" / file).write_text("no picture")
    with pytest.raises(Mistake, match=r"the folder b holds no pictures; fill or remove it"):
        load("images", path=tmp_path)


def test_a_client_whose_folder_is_a_link(tmp_path):
    for i in range(5):
        write(tmp_path / "here" / "a" / "cat" / f"{i}.png", i)
        write(tmp_path / "elsewhere" / "cat" / f"{i}.png", i)
    (tmp_path / "here" / "b").symlink_to(tmp_path / "elsewhere", target_is_directory=True)
    assert {c: len(e) for c, e in deal(load("images", path=tmp_path / "here")).items()} == {"a": 4, "b": 4}


def test_a_link_back_to_a_folder_above_is_not_followed(by_class):
    """Such cycles once were followed until paths grew too long."""
    (by_class / "cat" / "again").symlink_to(by_class / "cat")
    (by_class / "cat" / "all").symlink_to(by_class)
    (by_class / "dog" / "disk").symlink_to("/")
    (by_class / "dog" / "processes").symlink_to("/proc")
    source = load("images", path=by_class)
    assert len(source.train) + len(source.test) == 10


def test_a_folder_under_two_names_is_refused(by_class):
    (by_class / "copy").symlink_to(by_class / "cat")
    with pytest.raises(Mistake, match=r"(copy: is the same folder as .*cat|cat: is the same .*copy); remove the link"):
        load("images", path=by_class)


def make_pipe(path):
    os.mkfifo(path)


def write_bomb(path):
    """Write a PNG of a few bytes that says that it is 20,000 pixels wide and high."""
    chunks = [(b"IHDR", struct.pack(">IIBBBBB", 20_000, 20_000, 8, 0, 0, 0, 0)), (b"IDAT", zlib.compress(bytes(99)))]
    parts = [struct.pack(">I", len(c)) + kind + c + struct.pack(">I", zlib.crc32(kind + c)) for kind, c in chunks]
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(parts))


def write_animation(path):
    frames = [Image.new("RGB", (6, 4), (level, 0, 0)) for level in (0, 100, 200)]
    frames[0].save(path, save_all=True, append_images=frames[1:])


@pytest.mark.parametrize(
    ("name", "make", "says"),
    [
        ("pipe.png", make_pipe, "pipe.png: is not a regular file"),
        ("zero.png", lambda path: path.symlink_to("/dev/zero"), "zero.png: is not a regular file"),
        ("kernel.png", lambda path: path.symlink_to("/proc/kmsg"), "kernel.png: is not a regular file"),
        ("gone.png", lambda path: path.symlink_to("nowhere"), "gone.png: cannot be read as a picture"),
        ("itself.png", lambda path: path.symlink_to("itself.png"), "itself.png: cannot be read as a picture"),
        ("bomb.png", write_bomb, "bomb.png: cannot be read as a picture .*400000000 pixels"),
        ("moving.gif", write_animation, "moving.gif: holds several pictures, as pages or an animation; give each"),
        ("pages.tif", write_animation, "pages.tif: holds several pictures, as pages or an animation; give each"),
        ("script.png", lambda path: path.write_text("%!PS-Adobe-3.0 EPSF-3.0\n"), "script.png: cannot be read as a"),
    ],
)
def test_what_is_no_single_picture_is_refused(by_class, name, make, says):
    make(by_class / "cat" / name)
    with pytest.raises(Mistake, match=says):
        load("images", path=by_class)


@pytest.mark.parametrize("name", [b"\xff\xfe", b"dog/\xff.png"])
def test_a_name_that_is_not_text_is_refused(by_class, name):
    source = by_class / "cat" if b"/" not in name else by_class / "dog" / "1.png"
    os.rename(os.fsencode(source), os.fsencode(by_class) + b"/" + name)  # noqa: PTH104
    with pytest.raises(Mistake, match=r"\\xff.*: its name is not text in UTF-8; rename it") as raised:
        load("images", path=by_class)
    assert str(raised.value).isascii()


def test_hidden_files_and_those_of_a_file_browser_are_ignored(by_class):
    for name in (".hidden.png", "._1.png", "Thumbs.db", "desktop.ini"):
        (by_class / "cat" / name).write_bytes(b"no picture")
    assert load("images", path=by_class).label_names == ["cat", "dog"]


def test_without_pillow_says_how_to_install_it(by_class, monkeypatch):
    real = importlib.import_module

    def without_packages(name):
        if not name.startswith("coterie."):
            raise ImportError(name)
        return real(name)

    monkeypatch.setattr(importlib, "import_module", without_packages)
    with pytest.raises(Mistake, match=r"^source = \"images\": .*pip install 'coterie\[images\]'"):
        load("images", path=by_class)
