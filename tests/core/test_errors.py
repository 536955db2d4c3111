"""A mistake is one sentence, and a `ValueError`."""

from pathlib import Path

import pytest

from coterie import Mistake
from coterie.core.errors import mistakes_in, require


def test_a_mistake_names_the_key_the_value_and_what_is_allowed() -> None:
    with pytest.raises(Mistake) as caught:
        require("lr", -0.1, False, "a number above 0")
    assert str(caught.value) == "lr = -0.1: it must be a number above 0"
    assert isinstance(caught.value, ValueError)


def test_what_is_right_passes() -> None:
    require("lr", 0.1, True, "a number above 0")


def test_a_path_is_shown_whole_however_long() -> None:
    path = Path("a" * 100) / "wards.csv"
    assert str(Mistake("there is no such file", key="path", value=path)) == f'path = "{path}": there is no such file'


def test_arguments_get_the_table_in_a_sentence_about_a_file_too() -> None:
    """The innermost block names the table."""
    with pytest.raises(Mistake) as caught, mistakes_in("data"), mistakes_in("seed_set"):
        raise Mistake("a.csv: holds no wards; leave out `client_column`")
    assert str(caught.value) == "a.csv: holds no wards; leave out seed_set.client_column"
