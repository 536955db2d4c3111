"""Docstrings as the site shows them."""

from __future__ import annotations

import doctest

import pytest

from tests.site.hook import import_from_docs

pytest.importorskip("griffe")
docstrings = import_from_docs("docstrings")


def test_the_example_of_mend() -> None:
    assert doctest.testmod(docstrings) == (0, 2)


def test_lines_that_go_on_stay_with_their_arguments() -> None:
    text = "Args:\n    x, y: of a point,\n        in metres.\n    z: height, in metres: up.\n"
    one = "of a point,\n        in metres.\n"
    assert docstrings.mend(text) == f"Args:\n    x: {one}    y: {one}    z: height, in metres: up.\n"


def test_other_text_is_left_alone() -> None:
    text = "Take both, one after the other: a pair.\n\n    a, b: code of the head\n"
    assert docstrings.mend(text) == text
