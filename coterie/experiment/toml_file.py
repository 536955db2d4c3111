"""Read a TOML file, and apply the overrides of the command line, as plain nested dicts."""

from __future__ import annotations

import copy
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from coterie.core.errors import Mistake

Raw = dict[str, Any]
"""The content of a file, before anything is checked."""


def read_toml(path: Path) -> Raw:
    """Return the content of a file.

    Raises:
        Mistake: it cannot be read, or is not valid TOML; then the message names the line.
    """
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise Mistake(f"{path}: there is no such file; name an experiment's TOML file") from error
    except OSError as error:
        raise Mistake(f"{path}: cannot be read ({error.strerror})") from error
    except UnicodeDecodeError as error:
        raise Mistake(f"{path}: is not text in UTF-8, as a TOML file must be ({error.reason})") from error
    except tomllib.TOMLDecodeError as error:
        raise Mistake(f"{path}: is not valid TOML: {error}") from error


def apply_overrides(raw: Raw, overrides: Sequence[str]) -> tuple[Raw, set[str]]:
    """Return the content with overrides such as `table.key=value`, and the full names of the overridden keys.

    Raises:
        Mistake: an override is not of that form, or treats a key as a table.
    """
    result, changed = copy.deepcopy(raw), set()
    for override in overrides:
        name, value = _parse_override(override)
        *path, key = name.split(".")
        table = result.setdefault(path[0], {}) if path else result
        if not isinstance(table, dict):
            raise Mistake(f"{override}: {path[0]} is not a table in the file, so it has no key {key}")
        table[key] = value
        changed.add(name)
    return result, changed


def _parse_override(override: str) -> tuple[str, Any]:
    name, equals, value = (part.strip() for part in override.partition("="))
    parts = name.split(".")
    if not equals or not value or len(parts) > 2 or not all(part.isidentifier() for part in parts):
        raise Mistake(f'"{override}": an override is written table.key=value, or key=value at the top level')
    return name, _parse_value(override, value)


def _parse_value(override: str, text: str) -> Any:
    """Return the value as TOML reads it; a bare word is text."""
    try:
        parsed = tomllib.loads(f"value = {text}")
    except tomllib.TOMLDecodeError as error:
        if text[0] in "[{\"'":
            raise Mistake(f'"{override}": the value is not valid TOML: {error}') from error
        return text
    return parsed["value"] if len(parsed) == 1 else text
