"""A value of a table held against what is allowed, and the one sentence that says what is wrong with it."""

from __future__ import annotations

import difflib
import types
import typing
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any

from annotated_types import Ge, Gt, Le, MinLen
from pydantic import ConfigDict, TypeAdapter, ValidationError

from coterie.core.errors import Mistake
from coterie.experiment.keys import REQUIRED, Keys

_STRICT = ConfigDict(strict=True, arbitrary_types_allowed=True)


def checked(
    table: str, raw: Mapping[str, Any], keys: Keys, elsewhere: Mapping[str, str] | None = None
) -> dict[str, Any]:
    """The values of a table in the order of `keys`, with the defaults of those left out; None where there is none.

    Types are taken strictly: true is no number, "1" neither; a whole number will do for a number.

    Args:
        table: its name, "" for the top level.
        raw: what the file gives.
        keys: what it may give.
        elsewhere: keys that the user may have put into the wrong table, with their full names.

    Raises:
        Mistake: a key is unknown or missing, or a value is of the wrong type or out of range.
    """
    if not keys.open:
        for name, value in raw.items():
            if name not in keys:
                raise unknown(table, name, value, keys, (elsewhere or {}).get(name))
    values = {}
    for name, key in keys.items():
        if name in raw:
            values[name] = value_of(full(table, name), raw[name], key.kind)
        elif key.default is REQUIRED:
            raise Mistake(f"{full(table, name)} is missing; it must be {allowed(key.kind)}")
        else:
            values[name] = list(key.default) if isinstance(key.default, tuple) else key.default
    return values | {name: value for name, value in raw.items() if name not in keys}


def value_of(name: str, value: Any, kind: Any) -> Any:
    """A value as `kind`, an annotation.

    Raises:
        Mistake: it is something else.
    """
    try:
        return TypeAdapter(kind, config=_STRICT).validate_python(value)
    except ValidationError as error:
        raise Mistake(f"{name} = {shown(value)}: it must be {allowed(kind)}") from error


def unknown(table: str, name: str, value: Any, known: Collection[str], elsewhere: str | None = None) -> Mistake:
    """The sentence for a key that is not among the `known`, with the nearest one if there is one near."""
    where = f"[{table}]" if table else "the top level"
    near = nearest(name, known)
    if near:
        hint = f"did you mean {full(table, near)}?"
    elif elsewhere:
        hint = f"did you mean {elsewhere}?"
    else:
        hint = f"{where} takes {', '.join(known) or 'no keys'}"
    return Mistake(f"{full(table, name)} = {shown(value)}: there is no such key; {hint}")


def nearest(name: str, known: Iterable[str]) -> str | None:
    """What was probably meant, or None.

    >>> nearest("mometum", ["momentum", "lr"])
    'momentum'
    """
    found = difflib.get_close_matches(name, list(known), n=1)
    return found[0] if found else None


def full(table: str, name: str) -> str:
    """The name of a key with its table's."""
    return f"{table}.{name}" if table else name


def shown(value: Any) -> str:
    """A value as TOML would write it, cut where it is long.

    >>> shown([{"size": 1}, "all", True])
    '[{size = 1}, "all", true]'
    """
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, Mapping):
        text = "{" + ", ".join(f"{k} = {shown(v)}" for k, v in value.items()) + "}"
    elif isinstance(value, list):
        text = f"[{', '.join(map(shown, value))}]"
    else:
        text = f'"{value}"' if isinstance(value, str) else str(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


_NAMES: dict[Any, str] = {
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    str: "text in quotes",
    Path: "text in quotes",
    list: "a list",
    dict: "a table",
}


def allowed(kind: Any) -> str:
    """An annotation in words.

    >>> allowed(int | None), allowed(typing.Annotated[float, Gt(0), Le(1)])
    ('a whole number', 'a number above 0, at most 1')
    >>> allowed(typing.Any)  # of a value that something else checks: is missing; it must be
    'given'
    >>> allowed(typing.Literal["a", "b"] | list[int])
    '"a" or "b", or a list, of whole numbers'
    >>> allowed(dict[str, list[float]])
    'a table, each value a list, of numbers'
    """
    origin, inside = typing.get_origin(kind), typing.get_args(kind)
    if kind is Any:
        return "given"
    if origin is typing.Annotated:
        return allowed(inside[0]) + _bounds(inside[1:])
    if origin in (typing.Union, types.UnionType):
        return ", or ".join(dict.fromkeys(allowed(k) for k in inside if k is not type(None)))
    if origin is typing.Literal:
        return _either([shown(value) for value in inside])
    if isinstance(origin, type) and issubclass(origin, Mapping):
        return "a table" if inside[1:] in ((), (Any,)) else f"a table, each value {allowed(inside[1])}"
    if isinstance(origin, type) and issubclass(origin, Collection):
        each = allowed(inside[0]).removeprefix("a ") if inside else "values"
        return f"a list, of {each.replace('number', 'numbers', 1)}"
    return _NAMES.get(origin or kind, str(getattr(kind, "__name__", kind)))


def _either(words: list[str]) -> str:
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} or {words[-1]}"


def _bounds(metadata: Iterable[Any]) -> str:
    words = []
    for bound in metadata:
        if isinstance(bound, Gt):
            words.append(f"above {bound.gt}")
        elif isinstance(bound, Ge):
            words.append(f"{bound.ge} or more")
        elif isinstance(bound, Le):
            words.append(f"at most {bound.le}")
        elif isinstance(bound, MinLen):
            words.append(f"{bound.min_length} or more of them")
    if not words:
        return ""
    return (" " if words[0].startswith("above") else ", ") + ", ".join(words)
