"""rounds.jsonl: one JSON object a line, appended when its round is complete.

intervals.jsonl, the same kind of file, has the intervals of a pre-training.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

from coterie.core.errors import Mistake
from coterie.track.file_writing import disk_mistakes, to_json

Record = dict[str, Any]
"""One line of the file."""


def read_records(path: Path, unit: str = "round") -> list[Record]:
    """Read the records numbered 1, 2, ... in the key `unit`, up to the first line that is damaged or out of order."""
    return [record for record, _ in _read_lines(path, unit)]


def _read_lines(path: Path, unit: str) -> list[tuple[Record, int]]:
    """Read the records 1, 2, ... of a file, each with the position at which its line ends."""
    lines: list[tuple[Record, int]] = []
    end = 0
    for line in path.read_bytes().splitlines(keepends=True) if path.exists() else []:
        end += len(line)
        record = _parse_line(line)
        if record is None or record.get(unit) != len(lines) + 1:
            break
        lines.append((record, end))
    return lines


def _parse_line(line: bytes) -> Record | None:
    try:
        record = json.loads(line) if line.endswith(b"\n") else None
    except ValueError:
        return None
    return record if isinstance(record, dict) else None


class RoundsFile:
    """The file of a run in progress. Every line is flushed when it is written, so that others can follow.

    Args:
        path: the file.
        unit: the key that numbers the records, "round" or "interval".
    """

    def __init__(self, path: Path, unit: str = "round") -> None:
        self.path, self.unit = path, unit
        self._file: BinaryIO | None = None

    def cut(self, round: int) -> list[Record]:
        """Remove the lines after `round`, and return the records of the others; refuse a file with fewer rounds.

        The lines that stay are not changed by a byte.

        Raises:
            Mistake: the file holds fewer rounds, or cannot be written.
        """
        lines = _read_lines(self.path, self.unit)[:round]
        if len(lines) < round:
            raise Mistake(
                f"{self.path}: holds only {len(lines)} whole {self.unit}s, and the checkpoint counts {round}; "
                "put the file back, or start again in a new folder"
            )
        if self.path.exists():
            with disk_mistakes(self.path):
                os.truncate(self.path, lines[-1][1] if lines else 0)
        return [record for record, _ in lines]

    def append(self, record: Mapping[str, Any]) -> Record:
        """Append a record, and return it as it can be read from the file.

        Raises:
            Mistake: the file cannot be written.
        """
        line = to_json(record)
        with disk_mistakes(self.path):
            if self._file is None:
                self._file = self.path.open("ab")
            self._file.write(line.encode() + b"\n")
            self._file.flush()
        written: Record = json.loads(line)
        return written

    def sync(self) -> None:
        """Wait until the disk holds every line written so far."""
        if self._file is not None:
            with disk_mistakes(self.path):
                os.fsync(self._file.fileno())

    def close(self) -> None:
        """Close the file; `append` opens it again."""
        if self._file is not None:
            with disk_mistakes(self.path):
                self._file.close()
            self._file = None
