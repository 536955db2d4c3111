"""Send the rounds of a run to trackers: programs of others that draw curves and compare runs.

A tracker hears of a round when a checkpoint has it. So a run that was killed and continues never sends a round twice,
nor a round with other numbers. Each tracker is one file, and imports its package there. Whatever a tracker does, the
run goes on, and its folder is the same.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

from coterie.core.errors import Mistake, reason
from coterie.track.file_writing import to_json, write_file
from coterie.track.rounds_file import Record
from coterie.track.track_table import TRACKERS, Track

TRACK_FILE = "track.json"
"""In the run folder: for each tracker, what it calls this run, and the last round that it has."""


class Tracker(Protocol):
    """A tracker of one run. Making one imports its package, and writes nothing.

    Args of a class: the run folder; the name of the run; its settings, with the table's name before each key.

    Raises:
        Mistake: its package is not installed.
    """

    def open(self, id: str | None, round: int) -> str:
        """Begin a run in the tracker, or go on with the run `id`, which has the rounds up to `round`; return its id."""

    def log(self, records: Sequence[Record]) -> None:
        """Send the numbers of these rounds."""

    def end(self, summary: Mapping[str, Any], files: Sequence[Path]) -> None:
        """Send the summary, and the files with the weights, if there are any; nothing follows."""

    def close(self) -> None:
        """Send on what waits to be sent. The run was stopped, or `end` was called before."""


class Trackers:
    """The trackers of one run. Making this object reads and writes nothing.

    Args:
        table: which trackers.
        folder: the run folder.
        config: the settings, with the table's name before each key.
        say: gets a sentence about a tracker that failed; it gets nothing more of the run.

    Raises:
        Mistake: the package of a tracker is not installed.
    """

    def __init__(self, table: Track, folder: Path, config: Mapping[str, Any], say: Callable[[str], None]) -> None:
        self.table, self.folder, self._say = table, folder, say
        name = folder.resolve().name
        self._working: dict[str, Tracker] = {
            each: TRACKERS[each](folder.resolve(), name, dict(config)) for each in table.to or ()
        }
        self._known: dict[str, dict[str, Any]] = {}
        self._is_open = False

    def log(self, records: Sequence[Record]) -> None:
        """Send each tracker the rounds that it does not have yet.

        Args:
            records: of all rounds, up to the one that the last checkpoint has.
        """
        if not records or not self._working:
            return
        self._open(len(records))
        for name, tracker in list(self._working.items()):
            known = self._known[name]
            new = records[known["round"] :]
            if new:
                with self._keep_going(name):
                    tracker.log(new)
                    known["round"] = len(records)
        self._remember()

    def end(self, records: Sequence[Record], summary: Mapping[str, Any]) -> None:
        """Send what is left of the rounds, then the summary, and the weights if they are wanted."""
        self.log(records)
        weights = [*sorted(self.folder.glob("model.safetensors")), *sorted(self.folder.glob("clients/*.safetensors"))]
        for name, tracker in list(self._working.items()):
            with self._keep_going(name):
                tracker.end(summary, weights if self.table.model else [])

    def close(self) -> None:
        """Let every tracker that was opened send on what waits."""
        for name, tracker in list(self._working.items()) if self._is_open else ():
            with self._keep_going(name):
                tracker.close()
        self._working, self._is_open = {}, False

    def _open(self, rounds: int) -> None:
        """Open all trackers, unless they are open.

        Where a damaged checkpoint made the run go back, a tracker has later rounds, and this is a new run to it.
        """
        if self._is_open:
            return
        self._is_open, self._known = True, _read_known(self.folder / TRACK_FILE)
        for name, tracker in list(self._working.items()):
            found = self._known.get(name, {"id": None, "round": 0})
            found = {"id": None, "round": 0} if found["round"] > rounds else found
            self._known[name] = found
            with self._keep_going(name):
                found["id"] = tracker.open(found["id"], found["round"])
        self._remember()

    def _remember(self) -> None:
        """Write down what each tracker has."""
        try:
            write_file(self.folder / TRACK_FILE, (to_json(self._known, indent=1) + "\n").encode())
        except Mistake as mistake:
            self._say(f"{mistake}; trackers get nothing more of this run")
            self._working = {}

    @contextmanager
    def _keep_going(self, name: str) -> Iterator[None]:
        """Say that a tracker failed in a block, and use it no more."""
        try:
            yield
        except Exception as error:  # of any kind: it is a program of others, and the run does not depend on it
            self._working.pop(name, None)
            self._say(
                f"the tracker {name} failed and gets nothing more ({type(error).__name__}: {reason(error)}); "
                "the run goes on, and its folder has everything"
            )


def _read_known(path: Path) -> dict[str, dict[str, Any]]:
    """Return what each tracker has; nothing where the file is absent or damaged."""
    try:
        found = json.loads(path.read_bytes())
        return {name: {"id": str(each["id"]), "round": int(each["round"])} for name, each in found.items()}
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return {}


def numbers_of(record: Mapping[str, Any]) -> dict[str, float]:
    """Return the numbers of a record or a summary by name; of a list, such as the dropped clients, its length.

    What was not measured is left out, and so is the round's own number.

    >>> numbers_of({"round": 3, "test_accuracy": 0.5, "test_loss": None, "dropped": [{}, {}], "stopped": "rounds"})
    {'test_accuracy': 0.5, 'dropped': 2.0}
    """
    numbers = {
        name: len(value) if name == "dropped" and isinstance(value, list) else value
        for name, value in record.items()
        if name != "round"
    }
    return {
        name: float(value)
        for name, value in numbers.items()
        if isinstance(value, int | float) and not isinstance(value, bool)
    }
