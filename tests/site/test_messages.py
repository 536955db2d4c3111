"""docs/troubleshooting.md has every message of the code, and none that is no more."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path
from typing import Any

import pytest

import coterie
from coterie.core.errors import Mistake
from coterie.experiment.settings import parse_settings
from coterie.experiment.toml_file import read_toml
from tests.site.hook import DOCS, messages, site_hook

PAGE = (DOCS / "troubleshooting.md").read_text("utf-8")
GOOD = {
    "rounds": 1,
    "data": {"source": "digits", "num_clients": 2},
    "model": {"name": "mlp"},
    "algorithm": {"name": "fedavg", "lr": 0.1},
}


@cache
def all_messages() -> list[Any]:
    return list(messages.read_messages(DOCS.parent / "coterie"))


def is_on_the_page(sentence: str) -> bool:
    """Whether a message that a user got is one of the page's, with the gaps filled; a file's name may come first."""
    bare = re.sub(r"^(\w+\.)?(\w+ = )", r"\2", sentence)
    after_name = sentence.partition(": ")[2]
    patterns = (re.escape(message.text).replace(messages.GAP, ".*") for message in all_messages() if message.text)
    return any(re.fullmatch(pattern, text) for pattern in patterns for text in (sentence, bare, after_name))


def test_every_message_is_below_a_symptom() -> None:
    left_over = site_hook.group_messages(PAGE, all_messages())[""]
    assert not left_over, f"add {sorted({m.place for m in left_over})} to a marker of docs/troubleshooting.md"


def test_every_marker_names_files_that_say_something() -> None:
    by_place = {part for m in all_messages() for part in (m.place, *map(str, Path(m.place).parents))}
    assert [place for place in site_hook.groups(PAGE) if place not in by_place] == []


def test_every_symptom_says_what_to_do_in_words() -> None:
    for section in PAGE.split("\n## ")[1:]:
        words = site_hook.MARKER.sub("", section).partition("\n")[2].split()
        assert len(words) > 20, section.partition("\n")[0]


def test_few_places_only_pass_on_what_others_say() -> None:
    silent = {(m.place, m.line) for m in all_messages() if not m.text}
    assert len(silent) < 0.06 * len({(m.place, m.line) for m in all_messages()})


@pytest.mark.parametrize(
    "change",
    [
        {"rounds": 0},
        {"data": {"source": "digits", "num_clients": 2, "partition": "dirichlet", "alpha": -1.0}},
        {"data": {"source": "moons", "num_clients": 2}},
        {"algorithm": {"name": "fedavg", "lr": "fast"}},
        {"algorithm": {"name": "fedprox", "lr": 0.1, "proximal_weight": -1.0}},
        {"algorithm": {"name": "fedavg", "lr": 0.1, "momentun": 0.9}},
        {"aggregation": {"name": "krum", "num_byzantine": -1}},
        {"cohort": {"size": 0}},
        {"privacy": {"unit": "person"}},
    ],
)
def test_what_a_wrong_file_is_told_is_on_the_page(change: dict[str, object], tmp_path: Path) -> None:
    with pytest.raises(Mistake) as raised:
        parse_settings(GOOD | change, [tmp_path])
    assert is_on_the_page(str(raised.value)), str(raised.value)


def test_what_python_and_files_are_told_is_on_the_page(tmp_path: Path) -> None:
    (tmp_path / "broken.toml").write_text("rounds = = 1")
    for call in (lambda: coterie.read(tmp_path), lambda: read_toml(tmp_path / "broken.toml")):
        with pytest.raises(Mistake) as raised:
            call()
        assert is_on_the_page(str(raised.value)), str(raised.value)


def test_a_sentence_in_parts_is_read_whole(tmp_path: Path) -> None:
    (tmp_path / "one.py").write_text(
        'def f(n):\n    end = "lower `n`" if n else "raise it"\n    text = f"{n} is wrong; "\n    text += end\n'
        "    raise Mistake(text, key='n', value=n)\n"
        'def g(x):\n    require("x", x, x > 0, "above 0")\n'
        'def h(why):\n    raise Mistake(why)\nh("no data are left")\n'
        'def k(error):\n    raise Mistake(error.sentence, key="k")\n'
    )
    found = [message.text for message in messages.read_messages(tmp_path)]
    assert {"n = …: … is wrong; lower n", "n = …: … is wrong; raise it"} <= set(found)
    assert {"x = …: it must be above 0", "no data are left", ""} <= set(found)
