"""Read a TOML file, and apply the overrides of the command line, as plain nested dicts."""

from __future__ import annotations

import copy
import math
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from coterie.core.errors import Mistake, reason
from coterie.core.toml_text import toml_text

Raw = dict[str, Any]
"""The content of a file, before anything is checked."""

STAGES = "stage"
"""The key of the stages of a chain; see `coterie.experiment.stages`."""
MAX_BYTES = 2**23
"""The size of a file that is read; a table with a model for each of 100,000 clients fits."""
MAX_DEPTH = 50
"""How deep values may be nested; Python's own functions fail at some hundreds."""
LARGEST = 2**63 - 1
"""The largest whole number of TOML."""
LARGEST_FLOAT = 3.4e38
"""About the largest finite number of float32."""
LARGEST_SEED = 2**256
"""The largest rng seed: a seed may be a digest."""


def read_toml(path: Path) -> Raw:
    """Return the content of a file.

    Raises:
        Mistake: it cannot be read, is not valid TOML, or holds values that nothing can use; then the message names the
            line or the key.
    """
    try:
        text = _read_bytes(path).decode("utf-8-sig")  # without the mark that some editors put first
    except FileNotFoundError as error:
        raise Mistake(f"{path}: there is no such file; name an experiment's TOML file") from error
    except OSError as error:
        raise Mistake(f"{path}: cannot be read ({error.strerror})") from error
    except UnicodeDecodeError as error:
        raise Mistake(f"{path}: is not text in UTF-8, as a TOML file must be ({error.reason})") from error
    try:
        raw = _parse(text)
        _check_values(raw)
    except _Unreadable as error:
        raise Mistake(f"{path}: {error}") from error
    return raw


def has_stages(path: Path) -> bool:
    """Return whether a file is a chain of stages.

    Raises:
        Mistake: it cannot be read.
    """
    return STAGES in read_toml(path)


def _read_bytes(path: Path) -> bytes:
    """Return the content of a regular file that is not too large.

    Raises:
        OSError: it cannot be read.
        Mistake: it is something else, or too large.
    """
    if path.exists() and not path.is_dir() and not path.is_file():
        raise Mistake(f"{path}: is a pipe, a socket or a device, and cannot be read; name a TOML file")
    with path.open("rb") as file:
        data = file.read(MAX_BYTES + 1)  # files that a kernel makes up say nothing of their size
    if len(data) > MAX_BYTES:
        raise Mistake(f"{path}: is larger than {MAX_BYTES // 2**20} MiB, so it is not the TOML file of an experiment")
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise Mistake(f"{path}: is text in UTF-16; save it as UTF-8, as a TOML file must be")
    return data


class _Unreadable(Exception):
    """Text is not TOML, or holds values that nothing can use."""


class _NotToml(_Unreadable):
    """Text is not TOML."""


def _parse(text: str) -> Raw:
    """Return the content of a text.

    Raises:
        _NotToml: it is not TOML.
        _Unreadable: Python cannot hold what it says.
    """
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise _NotToml(f"is not valid TOML: {error}") from error
    except RecursionError as error:
        raise _Unreadable(f"is not valid TOML: its values are nested more than {MAX_DEPTH} deep") from error
    except ValueError as error:  # Python's limit on the digits of a whole number
        raise _Unreadable(f"is not valid TOML: a whole number is too large ({reason(error)})") from error


def _check_values(value: Any, place: str = "", depth: int = 0) -> None:
    """Refuse values that TOML does not have, or that no key takes, wherever they stand.

    Raises:
        _Unreadable: there is one.
    """
    if depth > MAX_DEPTH:
        raise _Unreadable(f"{place[:40]}...: its values are nested more than {MAX_DEPTH} deep")
    if isinstance(value, dict):
        for name, inner in value.items():
            _check_values(name, place, depth + 1)
            _check_values(inner, f"{place}.{name}" if place else name, depth + 1)
    elif isinstance(value, list):
        for inner in value:
            _check_values(inner, place, depth + 1)
    elif isinstance(value, str) and "\0" in value:
        raise _Unreadable(f"{place or 'a key'}: holds the character NUL; leave it out")
    elif isinstance(value, str) and not _is_unicode(value):
        raise _Unreadable(f"{place or 'a key'}: is not text in UTF-8")
    elif isinstance(value, int) and abs(value) > (LARGEST_SEED if place == "rng_seed" else LARGEST):
        raise _Unreadable(f"{place}: the whole number is too large; TOML takes whole numbers up to {LARGEST:,}")
    elif isinstance(value, float) and LARGEST_FLOAT < abs(value) < math.inf:
        raise _Unreadable(f"{place}: the number is too large; models count in float32, up to {LARGEST_FLOAT:g}")


def _is_unicode(text: str) -> bool:
    """Return whether text can be written; the bytes of an argument that are not UTF-8 cannot."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


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
            raise Mistake(f"{toml_text(override)}: {path[0]} is not a table in the file, so it has no key {key}")
        table[key] = value
        changed.add(name)
    return result, changed


def _parse_override(override: str) -> tuple[str, Any]:
    name, equals, value = (part.strip() for part in override.partition("="))
    parts = name.split(".")
    if not equals or not value or len(parts) > 2 or not all(part.isidentifier() for part in parts):
        raise Mistake(f"{toml_text(override)}: an override is written table.key=value, or key=value at the top level")
    return name, read_value(override, name, value)


def read_value(override: str, name: str, text: str) -> Any:
    """Return the value of an override as TOML reads it; a bare word is text.

    Raises:
        Mistake: it is neither, or nothing could use it.
    """
    try:
        return _parse_value(name, text)
    except _Unreadable as error:
        raise Mistake(f"{toml_text(override)}: {error}") from error


def _parse_value(name: str, text: str) -> Any:
    """Return the value as TOML reads it; a bare word is text.

    Raises:
        _Unreadable: it is neither, or nothing could use it.
    """
    try:
        parsed = _parse(f"value = {text}")
    except _NotToml:
        if text[0] in "[{\"'":
            raise
        parsed = {}
    value = parsed["value"] if len(parsed) == 1 else text
    _check_values(value, name)
    return value
