"""A mistake is one sentence, and a `ValueError`."""

import pytest

from coterie import Mistake
from coterie.core.errors import require


def test_a_mistake_names_the_key_the_value_and_what_is_allowed() -> None:
    with pytest.raises(Mistake) as caught:
        require("lr", -0.1, False, "a number above 0")
    assert str(caught.value) == "lr = -0.1: it must be a number above 0"
    assert isinstance(caught.value, ValueError)


def test_what_is_right_passes() -> None:
    require("lr", 0.1, True, "a number above 0")
