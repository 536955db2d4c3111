"""What a command prints: text for people, JSON for programs, or nothing."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import Any, TextIO

from coterie.track.file_writing import to_json


class JsonLines:
    """Prints objects as JSON, one a line, each at once.

    Args:
        stream: where they are printed.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def print(self, value: Mapping[str, Any]) -> None:
        """Print one object, as a run folder has it."""
        self._stream.write(f"{to_json(value)}\n")
        self._stream.flush()


@contextmanager
def choose_output(quiet: bool, json: bool) -> Iterator[JsonLines | None]:
    """Let what is printed in a block go to standard error, or nowhere; yield what prints JSON, if that is wanted.

    Args:
        quiet: print nothing but notes and mistakes, which go to standard error.
        json: leave standard output to JSON.
    """
    lines = JsonLines(sys.stdout) if json else None
    if quiet:
        with Path(os.devnull).open("w", encoding="utf-8") as nowhere, redirect_stdout(nowhere):
            yield lines
    elif json:
        with redirect_stdout(sys.stderr):
            yield lines
    else:
        yield None
