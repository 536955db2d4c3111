"""Describe kinds of arguments in words, and check values against them. See `coterie.core.kinds`."""

from __future__ import annotations

import functools
import inspect
import math
import numbers
import operator
import types
import typing
from collections.abc import Callable, Collection, Iterable, Mapping
from pathlib import Path
from typing import Any, ParamSpec, SupportsFloat, SupportsIndex, TypeVar

from annotated_types import Ge, Gt, Le, Lt, MinLen

from coterie.core.errors import Mistake
from coterie.core.toml_text import toml_text

_WORDS: dict[Any, str] = {
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    str: "text in quotes",
    Path: "text in quotes",
    list: "a list",
    dict: "a table",
    Callable: "a function",
}


def is_of_kind(value: Any, kind: Any) -> bool:
    """Whether a value is of a kind: a number, a whole number, true or false, one of some texts, a list of such, or
    None.

    Numbers of other libraries are accepted. True, "1", nan and inf do not count as numbers.

    >>> from coterie.core.kinds import Positive
    >>> is_of_kind(0.1, Positive), is_of_kind(0, Positive), is_of_kind(float("nan"), Positive)
    (True, False, False)
    """
    origin, inside = typing.get_origin(kind), typing.get_args(kind)
    if origin is typing.Annotated:
        return is_of_kind(value, inside[0]) and all(_is_within(value, bound) for bound in inside[1:])
    if origin in (typing.Union, types.UnionType):
        return any(is_of_kind(value, each) for each in inside)
    if origin is typing.Literal:
        return isinstance(value, str) and value in inside
    if kind in (None, type(None)):
        return value is None
    if origin is Callable:
        return callable(value)
    if origin is list:
        return isinstance(value, list | tuple) and all(is_of_kind(each, inside[0]) for each in value)
    if kind is bool:
        return isinstance(value, bool)
    if kind is int:
        return is_whole(value)
    assert kind is float, f"no check is written for {kind}"
    is_number = isinstance(value, numbers.Real | SupportsIndex | SupportsFloat) and not isinstance(value, bool | str)
    return is_number and math.isfinite(value)


def is_whole(value: Any) -> bool:
    """Whether a value is a whole number, of any library; True, 1.0 and a tensor of a float are not."""
    try:
        operator.index(value)
    except TypeError:
        return False
    return not isinstance(value, bool)


def plain_number(value: Any) -> Any:
    """Return a number of another library, such as NumPy, as one of Python; anything else unchanged.

    >>> import numpy as np
    >>> plain_number(np.int64(5)), plain_number("full")
    (5, 'full')
    """
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if is_whole(value):
        return operator.index(value)
    return float(value) if isinstance(value, numbers.Real | SupportsFloat) else value


def is_of_type(value: Any, kind: Any) -> bool:
    """Whether a value has the type of a kind, whatever its range; a kind that is a class of ours is not looked at.

    >>> from coterie.core.kinds import Positive
    >>> is_of_type(-1, Positive), is_of_type("1", Positive), is_of_type(True, Positive)
    (True, False, False)
    """
    origin, inside = typing.get_origin(kind), typing.get_args(kind)
    if origin is typing.Annotated:
        return is_of_type(value, inside[0])
    if origin in (typing.Union, types.UnionType):
        literals = [each for each in inside if typing.get_origin(each) is typing.Literal]
        others = (each for each in inside if each not in literals)
        return any(is_of_kind(value, each) for each in literals) or any(is_of_type(value, each) for each in others)
    if origin is typing.Literal:
        return isinstance(value, str)
    if kind is float:
        numeric = isinstance(value, numbers.Real | SupportsIndex | SupportsFloat)
        return numeric and not isinstance(value, bool | str)
    return is_of_kind(value, kind) if kind in (None, type(None), bool, int) else True


P = ParamSpec("P")
R = TypeVar("R")


def refuse_wrong_types(function: Callable[P, R]) -> Callable[P, R]:
    """Return a function that refuses arguments before it runs: missing, unknown, and of other types than annotated.

    All its arguments are given by name.

    Raises:
        Mistake: an argument is missing or unknown, or has another type; the sentence names it, and what it must be.
    """
    kinds: dict[str, Any] = {}
    parameters = inspect.signature(function).parameters.values()
    required = [p.name for p in parameters if p.kind is p.KEYWORD_ONLY and p.default is p.empty]
    takes_any = any(p.kind is p.VAR_KEYWORD for p in parameters)
    names = [p.name for p in parameters]

    @functools.wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        """Run the function, unless an argument is missing or has another type."""
        name_of_function = function.__name__
        if args:
            raise Mistake(f"{name_of_function} takes its arguments by name, such as lr=0.1")
        if not kinds:  # later than the definition, when all names of its module are known
            kinds.update(typing.get_type_hints(function, include_extras=True))
        for name in required:
            if name in kinds and name not in kwargs:
                raise Mistake(f"it is missing; it must be {describe_kind(kinds[name])}", key=name)
        for name, value in kwargs.items():
            if name not in names and not takes_any:
                raise Mistake(
                    f"{name_of_function} does not take it; it takes {', '.join(names)}", key=name, value=value
                )
            if name in kinds and not is_of_type(value, kinds[name]):
                raise Mistake(key=name, value=value, allowed=describe_kind(kinds[name]))
        return function(*args, **kwargs)

    return call


def _is_within(value: Any, bound: Any) -> bool:
    """Return whether a value respects a bound; what is not a bound always holds."""
    if isinstance(bound, Gt):
        return bool(value > bound.gt)
    if isinstance(bound, Ge):
        return bool(value >= bound.ge)
    if isinstance(bound, Lt):
        return bool(value < bound.lt)
    return not isinstance(bound, Le) or bool(value <= bound.le)


def describe_kind(kind: Any) -> str:
    """Return a kind of argument, an annotation with its range, in words.

    >>> describe_kind(int | None), describe_kind(typing.Annotated[float, Gt(0), Le(1)])
    ('a whole number', 'a number above 0 and at most 1')
    >>> describe_kind(typing.Any)  # of a value that something else checks: `x` is missing; it must be
    'given'
    >>> describe_kind(typing.Literal["a", "b"] | list[int])
    '"a" or "b", or a list, of whole numbers'
    >>> describe_kind(dict[str, list[float]])
    'a table, each value a list, of numbers'
    """
    origin, inside = typing.get_origin(kind), typing.get_args(kind)
    if kind is Any:
        return "given"
    if origin is typing.Annotated:
        return describe_kind(inside[0]) + _describe_range(inside[1:])
    if origin in (typing.Union, types.UnionType):
        return ", or ".join(dict.fromkeys(describe_kind(k) for k in inside if k is not type(None)))
    if origin is typing.Literal:
        return _join_with_or([toml_text(value) for value in inside])
    if isinstance(origin, type) and issubclass(origin, Mapping):
        return "a table" if inside[1:] in ((), (Any,)) else f"a table, each value {describe_kind(inside[1])}"
    if isinstance(origin, type) and issubclass(origin, Collection):
        each = describe_kind(inside[0]).removeprefix("a ") if inside else "values"
        return f"a list, of {each.replace('number', 'numbers', 1)}"
    return _WORDS.get(origin or kind, str(getattr(kind, "__name__", kind)))


def _join_with_or(words: list[str]) -> str:
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} or {words[-1]}"


def _describe_range(metadata: Iterable[Any]) -> str:
    """Return a range in words, as they follow "a number"; empty where there is none.

    >>> _describe_range([Ge(0), Lt(1)]), _describe_range([Gt(0), Le(1)]), _describe_range([Ge(1)])
    (' from 0 to below 1', ' above 0 and at most 1', ', 1 or more')
    """
    bounds = {type(bound): bound for bound in metadata}
    if MinLen in bounds:
        return f", {bounds[MinLen].min_length} or more of them"
    highest = f"below {bounds[Lt].lt}" if Lt in bounds else f"at most {bounds[Le].le}" if Le in bounds else ""
    if Ge in bounds and highest:
        return f" from {bounds[Ge].ge} to {highest.removeprefix('at most ')}"
    if Ge in bounds:
        return f", {bounds[Ge].ge} or more"
    lowest = f"above {bounds[Gt].gt}" if Gt in bounds else ""
    return " " * bool(lowest or highest) + " and ".join(filter(None, (lowest, highest)))
