"""What the command line says of a sweep's values."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coterie import Mistake
from coterie.sweep.axes import DIGITS, Axis, parse_axis, split_values


@pytest.mark.parametrize(
    ("argument", "key", "values"),
    [
        ("rng_seed=0,1,2", "rng_seed", (0, 1, 2)),
        ("model.hidden=[32,32],[64]", "model.hidden", ([32, 32], [64])),
        ('data.columns=["a","b"],["c]"]', "data.columns", (["a", "b"], ["c]"])),
        ("algorithm.name = fedavg , fedprox", "algorithm.name", ("fedavg", "fedprox")),
        ('model.weights="a,b","c"', "model.weights", ("a,b", "c")),
        ("evaluate.target={metric = 'f1', value = 0.5}", "evaluate.target", ({"metric": "f1", "value": 0.5},)),
        ("engine.compile=true,false,auto", "engine.compile", (True, False, "auto")),
        ("lr=0.001,0.01..1:log:3", "lr", (0.001, 0.01, 0.1, 1)),
        ("batch_size=1..64:log:7", "batch_size", (1, 2, 4, 8, 16, 32, 64)),
        ("momentum=0..0.9:lin:4", "momentum", (0, 0.3, 0.6, 0.9)),
    ],
)
def test_values_are_separated_by_commas_outside_brackets_and_quotes(argument: str, key: str, values: object) -> None:
    axis = parse_axis(argument)
    assert (axis.key, axis.values) == (key, values)
    assert parse_axis(str(axis)) == axis  # as sweep.toml keeps it


@pytest.mark.parametrize(
    ("argument", "sentence"),
    [
        ("lr", "is written KEY=VALUE,VALUE"),
        ("lr=", "is written KEY=VALUE,VALUE"),
        ("lr=0.1,,0.2", "is written KEY=VALUE,VALUE"),
        ("a.b.c=1,2", "is written KEY=VALUE,VALUE"),
        ("lr=0.1,0.10", "gives 0.1 twice; leave one out"),
        ("lr=1,1.0", "gives 1 twice; leave one out"),
        ("lr=0.1..1", "a range is written FIRST..LAST:log:N"),
        ("lr=0.1..1:cubic:5", "a range is written FIRST..LAST:log:N"),
        ("lr=1..0.1:log:5", "with FIRST below LAST"),
        ("lr=0.1..1:log:1", "N from 2 to 1000"),
        ("lr=0..1:log:5", "a logarithmic range lies above 0"),
        ("hidden=[32", "is not valid TOML"),
    ],
)
def test_what_cannot_be_read_is_refused(argument: str, sentence: str) -> None:
    with pytest.raises(Mistake, match=sentence):
        parse_axis(argument)


@given(st.floats(1e-6, 1.0), st.floats(1.5, 1e6), st.integers(2, 40))
def test_a_logarithmic_range_has_one_ratio(first: float, factor: float, number: int) -> None:
    """Each value is first * factor^(k / (N - 1)), to four digits: within 5e-4 of it."""
    first, last = float(f"{first:.3g}"), float(f"{first * factor:.3g}")
    if len({float(f"{first * (last / first) ** (k / (number - 1)):.{DIGITS}g}") for k in range(number)}) < number:
        return  # values so close that four digits do not tell them apart are refused
    values = parse_axis(f"lr={first!r}..{last!r}:log:{number}").values
    assert len(values) == number
    for k, value in enumerate(values):
        assert math.isclose(value, first * (last / first) ** (k / (number - 1)), rel_tol=5.1e-4)


@given(st.lists(st.sampled_from(["1", "[1, 2]", '"a,b"', "{x = [1, 2]}", "'it''s'"]), min_size=1))
def test_joined_values_are_split_again(pieces: list[str]) -> None:
    assert split_values(",".join(pieces)) == pieces


def test_an_added_value_takes_its_place() -> None:
    axis = parse_axis("algorithm.lr=0.1,0.01,1")
    assert axis.add(10.0) == Axis("algorithm.lr", ("0.01", "0.1", "1", "10"), (0.01, 0.1, 1, 10.0))


def test_learning_rates_are_told_from_other_numbers() -> None:
    rates = ["algorithm.lr=0.1,1", "algorithm.server_lr=0.1,1"]
    others = ["algorithm.lr=0.1", "rng_seed=0,1", "algorithm.lr_decay=0.9,1", "model.lr=a,b"]
    assert all(parse_axis(each).is_learning_rate for each in rates)
    assert not any(parse_axis(each).is_learning_rate for each in others)
