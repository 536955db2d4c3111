"""Characters of plays, from small files."""

from __future__ import annotations

import gzip
import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from coterie.core.errors import Mistake
from coterie.data import deal, load, own_test
from coterie.data.text_tokens import cut_into_windows


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("COTERIE_DATA", str(tmp_path))
    (tmp_path / "shakespeare").mkdir()
    return tmp_path / "shakespeare"


def write_speeches(folder: Path, *speeches: tuple[str, str, str]) -> None:
    lines = [json.dumps({"play": play, "role": role, "text": text}) for play, role, text in speeches]
    (folder / "speeches.jsonl.gz").write_bytes(gzip.compress("\n".join(lines).encode()))


def test_a_window_by_hand():
    """Lines "ab" and "c" give the stream start, a, b, feed, c, end: six tokens, five pairs, 75 entries of filling."""
    x, y = cut_into_windows(["ab", "c"])
    assert x.shape == y.shape == (1, 80)
    assert x[0, :5].tolist() == [256, ord("a"), ord("b"), 10, ord("c")]
    assert y[0, :5].tolist() == [ord("a"), ord("b"), 10, ord("c"), 257]
    assert set(x[0, 5:]) == {257}
    assert set(y[0, 5:]) == {-100}


@given(st.lists(st.text(st.characters(codec="utf-8", exclude_characters="\n")), min_size=1, max_size=5))
def test_every_byte_is_predicted_once_from_the_one_before(lines):
    x, y = cut_into_windows(lines)
    counted = y.flatten() != -100
    told = y.flatten()[counted]
    assert bytes(told[:-1].astype(np.uint8)) == "\n".join(lines).encode()
    assert told[-1] == 257
    assert x.flatten()[counted][0] == 256
    assert np.array_equal(x.flatten()[counted][1:], told[:-1])


def test_roles_are_clients_and_the_last_fifth_of_their_lines_is_for_testing(folder):
    """Hamlet has six lines, four to train on and two to test; the ghost two, one each; one line makes no client."""
    write_speeches(
        folder,
        ("hamlet", "Hamlet", "one\ntwo\nthree\nfour"),
        ("hamlet", "Guard", "Who?"),
        ("hamlet", "Ghost", "Mark me."),
        ("macbeth", "Ghost", "alone"),
        ("hamlet", "Ghost", "List!"),
        ("hamlet", "Hamlet", "five\nsix"),
    )
    source = load("shakespeare")
    clients = deal(source)
    own = own_test(source, clients)
    assert list(clients) == list(own) == ["hamlet:Ghost", "hamlet:Hamlet"]

    def text(examples):
        y = examples.tensors()[1]
        return bytes(y[(y >= 0) & (y < 256)].tolist()).decode()

    assert text(clients["hamlet:Hamlet"]) == "one\ntwo\nthree\nfour"
    assert text(own["hamlet:Hamlet"]) == "five\nsix"
    assert (text(clients["hamlet:Ghost"]), text(own["hamlet:Ghost"])) == ("Mark me.", "List!")
    assert source.num_classes == 258
    assert source.train.x.dtype == source.train.y.dtype == torch.int64


def test_long_parts_take_several_windows(folder):
    """Four training lines of 99 characters: 4 * 99 + 3 + 2 tokens, 400 pairs, five windows, all of one client."""
    write_speeches(folder, ("p", "r", "\n".join(["x" * 99] * 5)))
    source = load("shakespeare")
    assert source.train.x.shape == (5, 80)
    assert source.groups == ["p:r"] * 5


def test_the_tiny_file_is_read_if_the_speeches_are_missing(folder):
    text = "First Citizen:\nSpeak.\nSpeak, I say.\n\nAll:\nSpeak, speak.\n\nFirst Citizen:\nYou are resolved?\n"
    (folder / "tinyshakespeare_input.txt").write_text(text)
    assert list(deal(load("shakespeare"))) == ["First Citizen"]


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"no gzip", "speeches.jsonl.gz: cannot be read"),
        (gzip.compress(b'{"play": "p"}'), "line 1 is not an object with play, role and text"),
        (gzip.compress(b'{"play": "p", '), "cannot be read"),
        (gzip.compress(b"{}" * 99)[:-9], "cannot be read"),
        (gzip.compress(b'{"play": "p", "role": "r", "text": "one line"}'), "no role has two lines"),
    ],
    ids=["no gzip", "no object", "no JSON", "cut short", "one line"],
)
def test_a_damaged_file_is_a_mistake(folder, content, says):
    (folder / "speeches.jsonl.gz").write_bytes(content)
    with pytest.raises(Mistake, match=says):
        load("shakespeare")


REAL = Path(os.environ.get("COTERIE_DATA", "/nowhere")) / "shakespeare" / "speeches.jsonl.gz"


@pytest.mark.skipif(not REAL.exists(), reason="the speeches are not there")
def test_real_plays_come_close_to_the_papers_numbers():
    """The paper: 1,146 roles, 3,564,579 training and 870,014 test characters, of another edition."""
    source = load("shakespeare")
    assert 1000 < len(set(source.groups)) < 1600
    counted = [(part.y != -100).sum().item() for part in (source.train, source.test)]
    assert counted == pytest.approx([3564579, 870014], rel=0.1)
