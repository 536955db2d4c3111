"""Compression for the wire: lossless, bounded on the way back, with zlib and with Zstandard."""

import sys
import tracemalloc
import zlib

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from coterie.core import compression
from coterie.core.compression import NotCompressed, compress, decompress
from coterie.core.packing import pack, unpack


@pytest.fixture(params=["zlib", "zstandard"])
def package(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    if request.param == "zstandard":
        pytest.importorskip("zstandard")
    else:
        monkeypatch.setattr(compression, "find_spec", lambda name: None)
    return str(request.param)


@given(st.binary(max_size=300))
def test_bytes_come_back_and_are_never_much_longer(data: bytes) -> None:
    smaller = compress(data)
    assert decompress(smaller, len(data)) == data
    assert len(smaller) <= len(data) + 1


def test_a_tree_comes_back_and_zeros_become_small(package: str) -> None:
    update = pack({"w": torch.zeros(10_000)})
    smaller = compress(update)
    assert smaller[:1] == {"zlib": b"\x01", "zstandard": b"\x02"}[package]
    assert len(smaller) < len(update) / 20
    assert torch.equal(unpack(decompress(smaller, len(update)))["w"], torch.zeros(10_000))
    with pytest.raises(NotCompressed, match="holds more than"):
        decompress(smaller, len(update) - 1)


def test_a_bomb_is_refused_without_making_it(package: str) -> None:
    """50 MB of zeros in a fraction of one; a receiver that takes 1 MB never holds more than a few."""
    bomb = compress(bytes(50_000_000))
    assert len(bomb) < 500_000
    tracemalloc.start()
    with pytest.raises(NotCompressed, match="holds more than 1,000,000 bytes"):
        decompress(bomb, 1_000_000)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 4_000_000


def test_a_zstandard_frame_that_hides_its_size_is_refused() -> None:
    zstandard = pytest.importorskip("zstandard")
    hidden = zstandard.ZstdCompressor(write_content_size=False).compress(bytes(10_000))
    with pytest.raises(NotCompressed):
        decompress(b"\x02" + hidden, 20_000)


def test_damage_is_found(package: str) -> None:
    whole = compress(b"an update " * 100)
    for data in (b"", b"\x07abc", whole[:-3], whole + b"more", whole[:1] + b"garbage"):
        with pytest.raises(NotCompressed):
            decompress(data, 10_000)
    with pytest.raises(NotCompressed, match="holds more"):
        decompress(b"\x00" + bytes(11), 10)


def test_without_zstandard_the_message_names_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "zstandard", None)
    with pytest.raises(ValueError, match=r"pip install 'coterie\[deploy\]'"):
        decompress(b"\x02abc", 10)


def test_zlib_is_what_zlib_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compression, "find_spec", lambda name: None)
    assert zlib.decompress(compress(bytes(100))[1:]) == bytes(100)
