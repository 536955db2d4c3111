"""The options of local training: written once, checked, and documented from where they are written."""

import re
from pathlib import Path

import numpy as np
import pytest

import coterie
from coterie import Mistake
from coterie.algorithms.local import LocalSGD
from coterie.algorithms.local_options import LocalOptions
from coterie.core.options import options_of
from coterie.core.toml_text import toml_text

PAGE = Path(__file__).parents[2] / "docs/experiment.md"


def row(name: str) -> str:
    """The row of an option in the page's table."""
    option = options_of(LocalOptions)[name]
    default = "required" if option.required else "none" if option.default is None else toml_text(option.default)
    return f"| `{name}` | {default} | {option.doc} |"


def test_the_page_has_the_table_that_follows_from_the_options() -> None:
    section = PAGE.read_text().partition("## Algorithm")[2].partition("## ")[0]
    rows = re.findall(r"^\| `.*\|$", section, flags=re.M)
    assert rows == [row(name) for name in options_of(LocalOptions)], "\n".join(row(n) for n in options_of(LocalOptions))


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({}, "lr: it is missing; it must be a number above 0"),
        ({"lr": -0.1}, "lr = -0.1: it must be a number above 0"),
        ({"lr": float("nan")}, "lr = nan: it must be a number above 0"),
        ({"lr": "0.1"}, 'lr = "0.1": it must be a number above 0'),
        ({"lr": 0.1, "local_epochs": 0}, "local_epochs = 0: it must be a whole number, 1 or more"),
        ({"lr": 0.1, "local_steps": 1.5}, "local_steps = 1.5: it must be a whole number, 1 or more"),
        ({"lr": 0.1, "batch_size": "half"}, 'batch_size = "half": it must be a whole number, 1 or more, or "full"'),
        ({"lr": 0.1, "momentum": 1.0}, "momentum = 1.0: it must be a number from 0 to below 1"),
        ({"lr": 0.1, "mometum": 0.9}, "mometum = 0.9: there is no such argument; did you mean momentum?"),
    ],
)
def test_what_cannot_be_used_is_a_mistake(options: dict[str, object], sentence: str) -> None:
    with pytest.raises(Mistake) as caught:
        coterie.fedavg(**options)  # type: ignore[arg-type]
    assert str(caught.value) == sentence


def test_whole_numbers_of_other_libraries_will_do() -> None:
    local = LocalSGD(lr=np.float32(0.5), local_epochs=np.int64(2))  # type: ignore[arg-type]
    assert (local.stream().epochs, local.lr(1)) == (2, 0.5)


def test_what_is_left_out_has_its_default() -> None:
    options = LocalSGD(lr=0.1).options
    assert options["batch_size"] == 32
    assert options["local_steps"] is None
    assert options.keys() == options_of(LocalOptions).keys()
