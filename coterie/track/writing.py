"""Writing into a run folder: whole files, numbers that JSON can hold, and one sentence where the disk refuses."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

from coterie.core.errors import Mistake
from coterie.core.files import write_atomic

_LONGEST = 200
"""Bytes of a file's name, of the 255 that file systems take; what is left is for endings. A letter that is not Latin
takes six or nine of them, so that the full name of a hospital can be too long."""


@contextmanager
def writing(path: Path, remedy: str = "mend that and continue with --resume; nothing is lost") -> Iterator[None]:
    """A block that writes to `path`.

    Raises:
        Mistake: the disk is full, or the file or folder cannot be written.
    """
    try:
        yield
    except OSError as error:
        raise Mistake(f"{path}: cannot be written ({error.strerror or error}); {remedy}") from error


def put(path: Path, data: bytes) -> None:
    """Write a whole file; it is the old one or the new one at any instant.

    Raises:
        Mistake: it cannot be written.
    """
    with writing(path):
        write_atomic(path, data)


def as_json(value: Any, indent: int | None = None) -> str:
    """JSON, in one line unless indented; what is not finite becomes null, since JSON has no word for it.

    >>> as_json({"loss": float("nan"), "dropped": []})
    '{"loss": null, "dropped": []}'
    """
    return json.dumps(_finite(value), allow_nan=False, ensure_ascii=False, indent=indent)


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(k): _finite(v) for k, v in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [_finite(v) for v in value]
    return value


def file_name(client: str) -> str:
    """A client's id as a file name, from which `client_id` gets it back. One that is too long is cut, and ends in "="
    and a digest of the whole.

    >>> file_name("../St. Mary's"), client_id(file_name("../St. Mary's"))
    ('%2E.%2FSt.%20Mary%27s', "../St. Mary's")
    """
    quoted = quote(client, safe="")
    if len(quoted) > _LONGEST:
        quoted = f"{quoted[: _LONGEST - 17]}={hashlib.sha256(client.encode()).hexdigest()[:16]}"
    return quoted.replace(".", "%2E", 1) if quoted.startswith(".") or not quoted else quoted


def client_id(name: str) -> str:
    """The inverse of `file_name`, for a name that was not cut."""
    return unquote(name)
