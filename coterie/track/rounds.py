"""rounds.jsonl: one object per line and round, appended when the round is complete. Or a file of the same kind that
counts something else, such as the intervals of a pre-training.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

from coterie.core.errors import Mistake
from coterie.track.writing import as_json, writing

Record = dict[str, Any]
"""A round as it stands in the file."""


def read(path: Path, counted: str = "round") -> list[Record]:
    """The rounds in the file, as far as they are whole: a last line that was cut off does not count."""
    return [record for record, _ in _lines(path, counted)]


def _lines(path: Path, counted: str) -> list[tuple[Record, int]]:
    """The rounds 1, 2, ... in the file, each with the position at which its line ends."""
    found: list[tuple[Record, int]] = []
    end = 0
    for line in path.read_bytes().splitlines(keepends=True) if path.exists() else []:
        end += len(line)
        record = _parsed(line)
        if record is None or record.get(counted) != len(found) + 1:
            break
        found.append((record, end))
    return found


def _parsed(line: bytes) -> Record | None:
    try:
        record = json.loads(line) if line.endswith(b"\n") else None
    except ValueError:
        return None
    return record if isinstance(record, dict) else None


class RoundsFile:
    """The file of a run that goes on. Every line is flushed when it is written, so that others can follow."""

    def __init__(self, path: Path, counted: str = "round") -> None:
        self.path, self.counted = path, counted
        self._file: BinaryIO | None = None

    def cut(self, round: int) -> list[Record]:
        """Keep the lines up to `round`, byte for byte, and return them.

        Raises:
            Mistake: the file holds fewer rounds, or cannot be written.
        """
        lines = _lines(self.path, self.counted)[:round]
        if len(lines) < round:
            raise Mistake(
                f"{self.path}: holds only {len(lines)} whole {self.counted}s of the {round} that the checkpoint "
                "counts; put the file back, or start again in a new folder"
            )
        if self.path.exists():
            with writing(self.path):
                os.truncate(self.path, lines[-1][1] if lines else 0)
        return [record for record, _ in lines]

    def append(self, record: Mapping[str, Any]) -> Record:
        """Write one round; returns it as it now stands in the file.

        Raises:
            Mistake: the file cannot be written.
        """
        line = as_json(record)
        with writing(self.path):
            if self._file is None:
                self._file = self.path.open("ab")
            self._file.write(line.encode() + b"\n")
            self._file.flush()
        written: Record = json.loads(line)
        return written

    def sync(self) -> None:
        """Have the disk hold everything written so far."""
        if self._file is not None:
            with writing(self.path):
                os.fsync(self._file.fileno())

    def close(self) -> None:
        """Let go of the file."""
        if self._file is not None:
            with writing(self.path):
                self._file.close()
            self._file = None
