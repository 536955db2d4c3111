"""Values as TOML writes them, for messages."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import PurePath
from typing import Any

WIDEST_CHARACTERS = 80
LONGEST_PATH_CHARACTERS = 4096
WIDEST_BITS = 1024
"""A whole number with more bits is described: Python refuses to write one of thousands of digits."""


def toml_text(value: Any) -> str:
    """Return a value as TOML writes it, cut where it is long; a path, or text that holds one, is not cut.

    >>> toml_text([{"size": 1}, "all", True])
    '[{size = 1}, "all", true]'
    >>> print(toml_text("two\\nlines"))
    "two\\nlines"
    """
    if isinstance(value, PurePath):
        return f'"{value}"'
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int) and value.bit_length() > WIDEST_BITS:
        return f"a whole number of {value.bit_length():,} bits"
    if isinstance(value, Mapping):
        text = "{" + ", ".join(f"{k} = {toml_text(v)}" for k, v in value.items()) + "}"
    elif isinstance(value, list):
        text = f"[{', '.join(map(toml_text, value))}]"
    else:
        text = json.dumps(value, ensure_ascii=False) if isinstance(value, str) else " ".join(str(value).split())
    holds_path = isinstance(value, str) and "/" in value
    widest = LONGEST_PATH_CHARACTERS if holds_path else WIDEST_CHARACTERS
    return text if len(text) <= widest else f"{text[: WIDEST_CHARACTERS - 3]}..."
