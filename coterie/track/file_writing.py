"""Write files of a run folder: whole files, valid JSON, and one sentence where the disk refuses."""

from __future__ import annotations

import hashlib
import json
import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

from coterie.core.errors import FolderGone, Mistake
from coterie.core.files import write_atomic

_MAX_NAME_BYTES = 200
"""File systems take 255, and endings need room. A quoted letter that is not Latin takes six or nine bytes, so the full
name of a hospital can be too long."""


@contextmanager
def disk_mistakes(path: Path, remedy: str = "solve that and continue with --resume; nothing is lost") -> Iterator[None]:
    """Turn errors of the disk in a block that writes to `path` into a `Mistake` about it.

    Args:
        path: the file or folder, for the message.
        remedy: what the user can do about it, for the message.

    Raises:
        Mistake: the disk is full, or the file or folder cannot be written.
        FolderGone: the folder that it lies in was removed.
    """
    try:
        yield
    except OSError as error:
        if isinstance(error, FileNotFoundError) and not path.parent.is_dir():
            raise FolderGone(path.parent) from error
        raise Mistake(f"{path}: cannot be written ({error.strerror or error}); {remedy}") from error


def write_file(path: Path, data: bytes) -> None:
    """Write a whole file at once: at any moment it is the old file or the new one.

    Raises:
        Mistake: it cannot be written.
    """
    with disk_mistakes(path):
        write_atomic(path, data)


def to_json(value: Any, indent: int | None = None) -> str:
    """Format a value as JSON, in one line unless indented. Infinite numbers and NaN become null.

    >>> to_json({"loss": float("nan"), "dropped": []})
    '{"loss": null, "dropped": []}'
    """
    return json.dumps(_non_finite_to_none(value), allow_nan=False, ensure_ascii=False, indent=indent)


def _non_finite_to_none(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(k): _non_finite_to_none(v) for k, v in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [_non_finite_to_none(v) for v in value]
    return value


def client_file_name(client: str, quote_capitals: bool = False) -> str:
    """Return the file name for a client's id; `client_id` returns the id again.

    A name that is too long is cut, and ends in "=" and a digest of the whole id.

    Args:
        client: the id.
        quote_capitals: whether the letters A to Z are quoted as well as what no file name may hold.

    >>> client_file_name("../St. Mary's"), client_id(client_file_name("../St. Mary's"))
    ('%2E.%2FSt.%20Mary%27s', "../St. Mary's")
    """
    quoted = "".join(_quote_capital(letter) if quote_capitals else quote(letter, safe="") for letter in client)
    if len(quoted) > _MAX_NAME_BYTES:
        quoted = f"{quoted[: _MAX_NAME_BYTES - 17]}={hashlib.sha256(client.encode()).hexdigest()[:16]}"
    return quoted.replace(".", "%2E", 1) if quoted.startswith(".") or not quoted else quoted


def _quote_capital(letter: str) -> str:
    return f"%{ord(letter):02X}" if "A" <= letter <= "Z" else quote(letter, safe="")


def client_file_names(clients: Iterable[str]) -> dict[str, str]:
    """Return the file name of each client's id; no two differ only in the case of their letters.

    A disk that is blind to case would take such names for one file. Where ids differ only in case, their capital
    letters are quoted too. All other ids have the name that `client_file_name` gives them.

    >>> client_file_names(["a", "A", "Bonn"])
    {'a': 'a', 'A': '%41', 'Bonn': 'Bonn'}
    """
    names = {client: client_file_name(client) for client in clients}
    number = Counter(name.lower() for name in names.values())
    return {
        client: name if number[name.lower()] == 1 else client_file_name(client, quote_capitals=True)
        for client, name in names.items()
    }


def client_id(name: str) -> str:
    """Return the client's id for a file name that `client_file_name` did not cut."""
    return unquote(name)
