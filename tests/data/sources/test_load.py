"""Finding a source by name, and the digits that come with scikit-learn."""

from __future__ import annotations

import pytest
import torch

from coterie.core.errors import Mistake
from coterie.data import SOURCES, load
from coterie.data.sources import options


def test_digits_always_have_the_same_split():
    """1,797 images, round(0.2 * 1797) = 359 of them for testing, each digit's share to the nearest."""
    source = load("digits")
    assert source.train.tensors()[0].shape == (1438, 1, 8, 8)
    assert len(source.test) == 359
    assert source.train.x.min() == 0
    assert source.train.x.max() == 1
    per_digit = torch.bincount(source.test.tensors()[1])
    assert per_digit.min() >= 34  # of 174 to 183
    assert per_digit.max() <= 37
    assert torch.equal(load("digits").test.rows, source.test.rows)
    assert len(load("digits", test_fraction=0.5).test) == 898


def test_a_source_of_the_users_own(tmp_path):
    code = "from coterie.data import Source, load\ndef few(n): return load('digits')\ndef none(): return 3\n"
    (tmp_path / "my_source_module.py").write_text(code)
    assert load("my_source_module:few", folders=[tmp_path], n=3).name == "digits"
    with pytest.raises(Mistake, match=r"^n: missing"):
        load("my_source_module:few", folders=[tmp_path])
    with pytest.raises(Mistake, match=r"returned int"):
        load("my_source_module:none", folders=[tmp_path])
    with pytest.raises(Mistake, match=r'my_source_module.py has no function "many"'):
        load("my_source_module:many", folders=[tmp_path])
    with pytest.raises(Mistake, match=r'^source = "no_such_module:f": no_such_module cannot be imported'):
        load("no_such_module:f")


def test_an_unknown_name_gives_all_names_and_the_nearest():
    with pytest.raises(Mistake, match=r'^source = "mnits": did you mean "mnist"') as raised:
        load("mnits")
    assert all(name in str(raised.value) for name in SOURCES)
    with pytest.raises(Mistake, match=r"must be one of"):
        load("zzz")


def test_an_option_that_a_source_does_not_take_is_a_mistake():
    with pytest.raises(Mistake, match=r"^angles = .*digits does not take it; it takes test_fraction"):
        load("digits", angles=[0])
    with pytest.raises(Mistake, match=r"^path: missing; the source npz needs it"):
        load("npz")
    assert "angles" in options("rotated_mnist")
