"""rounds.jsonl: one JSON object a line, appended when its round is complete.

intervals.jsonl, the same kind of file, has the intervals of a pre-training.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO

from coterie.core.errors import FolderGone, Mistake
from coterie.track.file_writing import disk_mistakes, to_json

Record = dict[str, Any]
"""One line of the file."""


@dataclass(frozen=True)
class Lines:
    """The lines of a file up to the first that is not a record.

    Attributes:
        records: numbered 1, 2, ...
        ends: the position in the file at which each record's line ends.
        damage: what is wrong with the next line; empty at the end of the file, and before a last line without an end,
            which a process that was killed may leave.
    """

    records: list[Record]
    ends: list[int]
    damage: str = ""


def read_records(path: Path, unit: str = "round") -> list[Record]:
    """Read the records numbered 1, 2, ... in the key `unit`. A last line that was not written whole is left out.

    Raises:
        Mistake: a line is damaged, so that records are lost.
    """
    lines = _read_lines(path, unit)
    if lines.damage:
        raise Mistake(
            f"{path}: line {len(lines.records) + 1} {lines.damage}; continue the run with --resume, which puts back "
            "what its checkpoint has, or put back a copy"
        )
    return lines.records


def _read_lines(path: Path, unit: str) -> Lines:
    """Read a file up to the first line that is not a record."""
    found = Lines([], [])
    end = 0
    for line in path.read_bytes().splitlines(keepends=True) if path.is_file() else []:
        end += len(line)
        record = _parse_line(line)
        if record is None and not line.endswith(b"\n"):
            break  # the last line, and a process was killed while it wrote it
        if record is None:
            return replace(found, damage="is damaged: it is not a JSON object")
        number = record.get(unit)
        if type(number) is not int or number != len(found.records) + 1:
            return replace(found, damage=f"is out of order: its {unit} is {to_json(number)}")
        found.records.append(record)
        found.ends.append(end)
    return found


def _parse_line(line: bytes) -> Record | None:
    try:
        record = json.loads(line) if line.endswith(b"\n") else None
    except (ValueError, RecursionError):
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

    def count(self) -> int:
        """Return how many whole records the file holds."""
        return len(_read_lines(self.path, self.unit).records)

    def cut(self, round: int) -> list[Record]:
        """Remove the lines after `round`, and return the records of the others; refuse a file with fewer rounds.

        The lines that stay are not changed by a byte.

        Raises:
            Mistake: the file holds fewer rounds, or cannot be written.
        """
        lines = _read_lines(self.path, self.unit)
        if len(lines.records) < round:
            problem = f"; the next line {lines.damage}" if lines.damage else ""
            raise Mistake(
                f"{self.path}: holds only {len(lines.records)} whole {self.unit}s, and the checkpoint counts {round}"
                f"{problem}; put the file back, or start again in a new folder"
            )
        if self.path.exists():
            with disk_mistakes(self.path):
                os.truncate(self.path, lines.ends[round - 1] if round else 0)
        return lines.records[:round]

    def append(self, record: Mapping[str, Any]) -> Record:
        """Append a record, and return it as it can be read from the file.

        Raises:
            Mistake: the file cannot be written.
            FolderGone: the file was removed or replaced.
        """
        line = to_json(record)
        with disk_mistakes(self.path):
            if self._file is None:
                self._file = self.path.open("ab")
        self.require_present()
        with disk_mistakes(self.path):
            self._file.write(line.encode() + b"\n")
            self._file.flush()
        written: Record = json.loads(line)
        return written

    def require_present(self) -> None:
        """Refuse to go on if the file that is open is no longer the one in the folder; writing to it would be lost.

        Raises:
            FolderGone: the file was removed or replaced.
        """
        if self._file is None:
            return
        try:
            is_same = os.path.samestat(self.path.stat(), os.fstat(self._file.fileno()))
        except FileNotFoundError:
            is_same = False
        if not is_same:
            raise FolderGone(self.path.parent)

    def sync(self) -> None:
        """Wait until the disk holds every line written so far."""
        self.require_present()
        if self._file is not None:
            with disk_mistakes(self.path):
                os.fsync(self._file.fileno())

    def close(self) -> None:
        """Close the file; `append` opens it again."""
        if self._file is not None:
            with disk_mistakes(self.path):
                self._file.close()
            self._file = None
