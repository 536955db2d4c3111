"""Read what a sweep varies: `KEY=a,b,c`, where a value may be a range such as `0.01..1:log:9`."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from coterie.core.errors import Mistake
from coterie.core.toml_text import toml_text
from coterie.experiment.toml_file import read_value
from coterie.report.seed_groups import RNG_SEED

_NUMBER = r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?"
_RANGE = re.compile(rf"({_NUMBER})\.\.({_NUMBER}):([a-z]*):(\d+)")
_OPENING, _CLOSING = "[{(", "]})"
DIGITS = 4
"""How many significant digits the values of a range are rounded to."""
MAX_VALUES = 1000
"""How many values a range may have."""


@dataclass(frozen=True)
class Axis:
    """A key, and the values that it takes in a sweep.

    Attributes:
        key: its full name.
        texts: the values as the command line has them.
        values: as TOML reads them.
    """

    key: str
    texts: tuple[str, ...]
    values: tuple[Any, ...]

    @property
    def is_varied(self) -> bool:
        """Whether runs are told apart by it: it has several values, or it is the rng seed."""
        return len(self.values) > 1 or self.key == RNG_SEED

    @property
    def is_learning_rate(self) -> bool:
        """Whether it is a learning rate that is tuned over several values."""
        last = self.key.rpartition(".")[2]
        numbers = all(isinstance(value, int | float) and not isinstance(value, bool) for value in self.values)
        return len(self.values) > 1 and numbers and (last == "lr" or last.endswith("_lr"))

    def add(self, value: float) -> Axis:
        """Return the axis with another value, in its place among the numbers."""
        both = sorted([*zip(self.values, self.texts, strict=True), (value, value_text(value))])
        return replace(self, texts=tuple(text for _, text in both), values=tuple(number for number, _ in both))

    def __str__(self) -> str:
        return f"{self.key}={','.join(self.texts)}"


def parse_axis(argument: str) -> Axis:
    """Return the key and the values of an argument; commas within brackets and quotes separate nothing.

    >>> parse_axis("model.hidden=[32,32],[64]").values, parse_axis("algorithm.lr=0.01..1:log:3").texts
    (([32, 32], [64]), ('0.01', '0.1', '1'))

    Raises:
        Mistake: it is not of the form KEY=VALUE,VALUE,..., or gives a value twice.
    """
    key, equals, text = (part.strip() for part in argument.partition("="))
    parts = key.split(".")
    pieces = [piece.strip() for piece in split_values(text)]
    if not equals or len(parts) > 2 or not all(part.isidentifier() for part in parts) or not all(pieces):
        raise Mistake(f"{toml_text(argument)}: what a sweep varies is written KEY=VALUE,VALUE,..., such as lr=0.1,0.2")
    texts = [each for piece in pieces for each in expand_range(argument, piece)]
    values = [read_value(argument, key, each) for each in texts]
    shown = [value_text(value) for value in values]
    twice = next((each for k, each in enumerate(shown) if each in shown[:k]), None)
    if twice is not None:
        raise Mistake(f"{toml_text(argument)}: gives {twice} twice; leave one out")
    return Axis(key, tuple(texts), tuple(values))


def split_values(text: str) -> list[str]:
    """Split text at the commas that stand outside brackets and quotes.

    >>> split_values('[1, 2],"a,b",{x = 1, y = 2}')
    ['[1, 2]', '"a,b"', '{x = 1, y = 2}']
    """
    pieces, depth, quote, start = [], 0, "", 0
    for place, letter in enumerate(text):
        if quote:
            escaped = quote == '"' and text[place - 1] == "\\"
            quote = "" if letter == quote and not escaped else quote
        elif letter in "\"'":
            quote = letter
        elif letter in _OPENING:
            depth += 1
        elif letter in _CLOSING:
            depth -= 1
        elif letter == "," and depth == 0:
            pieces.append(text[start:place])
            start = place + 1
    return [*pieces, text[start:]]


def expand_range(argument: str, piece: str) -> list[str]:
    """Return the values of a range FIRST..LAST:log:N or FIRST..LAST:lin:N as text; anything else as it was given.

    The values are rounded to `DIGITS` significant digits.

    >>> expand_range("", "0.01..0.1:log:4"), expand_range("", "1..5:lin:3")
    (['0.01', '0.02154', '0.04642', '0.1'], ['1', '3', '5'])

    Raises:
        Mistake: it has no or too many values, or a logarithmic range does not lie above 0.
    """
    found = _RANGE.fullmatch(piece)
    if found is None:
        if ".." in piece and piece[0] not in "\"'[{":
            raise Mistake(f"{toml_text(argument)}: a range is written FIRST..LAST:log:N or FIRST..LAST:lin:N")
        return [piece]
    first, last, number = float(found[1]), float(found[2]), int(found[4])
    if found[3] not in ("log", "lin") or not 2 <= number <= MAX_VALUES or first >= last:
        raise Mistake(
            f"{toml_text(argument)}: a range is written FIRST..LAST:log:N or FIRST..LAST:lin:N, with FIRST below LAST "
            f"and N from 2 to {MAX_VALUES}"
        )
    if found[3] == "log" and first <= 0:
        raise Mistake(f"{toml_text(argument)}: a logarithmic range lies above 0; raise its first value, or write :lin:")
    shares = [k / (number - 1) for k in range(number)]
    if found[3] == "log":
        values = [math.exp(math.log(first) + share * (math.log(last) - math.log(first))) for share in shares]
    else:
        values = [first + share * (last - first) for share in shares]
    return [value_text(round_digits(value)) for value in [first, *values[1:-1], last]]


def round_digits(value: float) -> float:
    """Return a number with `DIGITS` significant digits."""
    return float(f"{value:.{DIGITS}g}")


def value_text(value: Any) -> str:
    """Return a value without quotes and spaces, for names of runs; a number is written in one way.

    >>> value_text(1.0), value_text([32, 32]), value_text("cnn"), value_text(True), value_text(0.1)
    ('1', '[32,32]', 'cnn', 'true', '0.1')
    """
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        return str(int(value)) if value.is_integer() and abs(value) < 1e15 else repr(value)
    if isinstance(value, list):
        return f"[{','.join(map(value_text, value))}]"
    if isinstance(value, Mapping):
        return "{" + ",".join(f"{name}={value_text(part)}" for name, part in value.items()) + "}"
    return str(value)
