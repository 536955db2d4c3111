"""Text as tokens; windows are tested with the source shakespeare."""

from __future__ import annotations

import pytest

from coterie.core.errors import Mistake
from coterie.data.text_tokens import END_TOKEN, next_character_examples, tokens_of_texts


def test_a_text_becomes_its_bytes_and_the_end():
    """ "hé" has three bytes in UTF-8, and is the longest."""
    tokens = tokens_of_texts("mine: text", ["hé", "a", ""])
    assert tokens.tolist() == [[104, 195, 169], [97, END_TOKEN, END_TOKEN], [END_TOKEN, END_TOKEN, END_TOKEN]]
    assert tokens_of_texts("mine: text", ["x" * 1000]).shape == (1, 512)


def test_a_cell_without_text_is_a_mistake():
    with pytest.raises(Mistake, match=r"mine: text: row 2 holds int where there must be text"):
        tokens_of_texts("mine: text", ["a", 3])


def test_each_window_has_its_client():
    """81 characters and the end make two windows, one character and the end one."""
    examples, whose = next_character_examples({"b": ["x" * 81], "a": ["y"]})
    assert examples.x.shape == (3, 80)
    assert whose == ["b", "b", "a"]
