"""Check the values of a table against the keys that it takes, and say in one sentence what is wrong."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from pydantic import ConfigDict, TypeAdapter, ValidationError

from coterie.core.errors import Mistake
from coterie.core.kind_checks import describe_kind
from coterie.core.registry import nearest
from coterie.experiment.keys import REQUIRED, Keys

_STRICT = ConfigDict(strict=True, arbitrary_types_allowed=True)


def check_table(
    table: str, raw: Mapping[str, Any], keys: Keys, elsewhere: Mapping[str, str] | None = None
) -> dict[str, Any]:
    """Return the values of a table in the order of `keys`, with defaults filled in; None where a key has none.

    Types are strict: true is not a number, "1" is not a number either; a whole number will do for a number.

    Args:
        table: its name, "" for the top level.
        raw: what the file gives.
        keys: what it may give.
        elsewhere: the full names of keys of other tables, by name, for a key in the wrong table.

    Raises:
        Mistake: a key is unknown or missing, or a value is of the wrong type or out of range.
    """
    if not keys.open:
        for name, value in raw.items():
            if name not in keys:
                raise unknown_key(table, name, value, keys, (elsewhere or {}).get(name))
    values = {}
    for name, key in keys.items():
        if name in raw:
            values[name] = check_value(table, name, raw[name], key.kind)
        elif key.default is REQUIRED:
            raise missing_key(table, name, describe_kind(key.kind))
        else:
            values[name] = list(key.default) if isinstance(key.default, tuple) else key.default
    return values | {name: value for name, value in raw.items() if name not in keys}


def check_value(table: str, name: str, value: Any, kind: Any) -> Any:
    """Return a value as `kind`, an annotation.

    Raises:
        Mistake: it is something else.
    """
    try:
        return TypeAdapter(kind, config=_STRICT).validate_python(value)
    except ValidationError as error:
        raise Mistake(key=name, value=value, allowed=describe_kind(kind), table=table) from error


def unknown_key(table: str, name: str, value: Any, known: Collection[str], elsewhere: str | None = None) -> Mistake:
    """Return the mistake for a key that is not `known`, with the key that was probably meant."""
    where = f"[{table}]" if table else "the top level"
    near = nearest(name, known)
    if near:
        hint = f"did you mean {full_name(table, near)}?"
    elif elsewhere:
        hint = f"did you mean {elsewhere}?"
    else:
        hint = f"{where} takes {', '.join(known) or 'no keys'}"
    return Mistake(f"there is no such key; {hint}", key=name, value=value, table=table)


def missing_key(table: str, name: str, allowed: str) -> Mistake:
    """Return the mistake for a required key that is not given."""
    return Mistake(f"`{name}` is missing; it must be {allowed}", table=table)


def full_name(table: str, name: str) -> str:
    """Return the name of a key with its table's."""
    return f"{table}.{name}" if table else name
