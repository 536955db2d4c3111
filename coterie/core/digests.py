"""SHA-256 digests of files, and JSON that carries its own digest, so that any damage is found."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def digest(data: bytes) -> str:
    """Return the SHA-256 digest of bytes, in hexadecimal."""
    return hashlib.sha256(data).hexdigest()


def file_digest(path: Path) -> str:
    """Return the SHA-256 digest of a file, in hexadecimal, without holding the file in memory.

    Raises:
        OSError: the file cannot be read.
    """
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def seal_json(body: Mapping[str, Any]) -> bytes:
    """Return an object as JSON text that holds the digest of the rest under "sha256".

    >>> unseal_json(seal_json({"round": 3}))
    {'round': 3}
    """
    return json.dumps({"sha256": digest(_canonical_json(body)), **body}, indent=1).encode()


def unseal_json(data: bytes) -> dict[str, Any]:
    """Return the object in JSON text that `seal_json` made, without its digest.

    Raises:
        ValueError: it is damaged.
    """
    try:
        found = json.loads(data)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error
    body: dict[str, Any] = found if isinstance(found, dict) else {}
    stated = body.pop("sha256", None)
    if stated != digest(_canonical_json(body)):
        raise ValueError("its checksum does not match")
    return body


def _canonical_json(body: Mapping[str, Any]) -> bytes:
    return json.dumps(body, sort_keys=True).encode()
