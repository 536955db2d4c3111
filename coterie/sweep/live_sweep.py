"""What the live page of a sweep shows: its runs so far, and how it stands."""

from __future__ import annotations

import csv
import math
import shlex
import time
import tomllib
from pathlib import Path

from coterie.core.errors import Mistake
from coterie.report.comparison import Comparison, compare
from coterie.report.live_run import RETRY_SECONDS, LiveRun
from coterie.report.live_server import LiveSource
from coterie.report.live_state import LiveState, stamp_files
from coterie.report.run_reader import Run, read_run
from coterie.report.sweep_folder import RUNS, SWEEP_FILE, TABLE_FILE
from coterie.report.sweep_page import sweep_page
from coterie.sweep.sweep_toml import read_grid
from coterie.track.checksums import REPORT_FILE, SUMMARY_FILE
from coterie.track.folder_lock import is_locked


class LiveSweep:
    """A sweep in a folder, as `coterie.report.live_server.LiveSource`. Runs that are over are read once."""

    pause_seconds = 3.0

    def __init__(self, folder: Path) -> None:
        self.folder, self.name = folder, folder.resolve().name
        self._over: dict[str, Run] = {}

    def sources(self) -> dict[str, LiveSource]:
        """Return the sweep and its runs, by their places on the server."""
        runs: dict[str, LiveSource] = {f"{RUNS}/{path.name}": LiveRun(path) for path in self._runs()}
        return {"": self, **runs}

    def _runs(self) -> list[Path]:
        return sorted(path.parent for path in (self.folder / RUNS).glob("*/config.toml"))

    def state(self) -> LiveState:
        """Return how the sweep stands."""
        runs = self._runs()
        done = sum((path / SUMMARY_FILE).is_file() for path in runs)
        going = sum(is_locked(path) for path in runs)
        files = [path / name for path in runs for name in ("rounds.jsonl", SUMMARY_FILE)]
        stamp = stamp_files([*files, *(self.folder / name for name in (SWEEP_FILE, TABLE_FILE, REPORT_FILE))])
        count = f"{done} of {self._total()} runs are over"
        if is_locked(self.folder) or going:
            return LiveState("running", f"This sweep goes on: {count}, {going} going on.", "", f"running {stamp}")
        if self._is_finished(runs):
            return LiveState("finished", f"This sweep is finished: {count}.", "", f"finished {stamp}")
        sentence = f"This sweep was stopped or killed: {count}, and no process holds its folder now. Continue it with"
        return LiveState("stopped", sentence, self._command(), f"stopped {stamp}")

    def _is_finished(self, runs: list[Path]) -> bool:
        """Return whether the table has a result, or a reason, for each run."""
        try:
            with (self.folder / TABLE_FILE).open(newline="", encoding="utf-8") as file:
                states = {row["run"]: row["state"] for row in csv.DictReader(file)}
        except (OSError, KeyError, ValueError):
            return False
        failed = {name for name, state in states.items() if state == "failed"}
        return "not finished" not in states.values() and all(
            (path / SUMMARY_FILE).is_file() or path.name in failed or path.name not in states for path in runs
        )

    def _total(self) -> int:
        try:
            return math.prod(len(axis.values) for axis in read_grid(self.folder))
        except Mistake:
            return len(self._runs())

    def _file(self) -> str:
        try:
            return str(tomllib.loads((self.folder / SWEEP_FILE).read_text(encoding="utf-8"))["file"])
        except (OSError, ValueError, KeyError):
            return "FILE"

    def _command(self) -> str:
        return shlex.join(["coterie", "sweep", self._file(), "--out", str(self.folder), "--resume"])

    def page(self) -> str:
        """Return the page of the sweep as of now; once it is finished, the one that it wrote."""
        path = self.folder / REPORT_FILE
        if self.state().kind == "finished" and path.is_file():
            return path.read_text(encoding="utf-8")
        try:
            return self._page_so_far()
        except Mistake:
            time.sleep(RETRY_SECONDS)
            return self._page_so_far()

    def _page_so_far(self) -> str:
        runs = [self._read(path) for path in self._runs()]
        failed = {run.name: str(run.end["failure"]) for run in runs if run.end.get("failure")}
        rates = [axis.key for axis in read_grid(self.folder) if axis.is_learning_rate]
        found: Comparison | None = compare(runs, None, None) if runs else None
        return sweep_page(Path(self._file()).name, self._total(), found, rates, [], failed)

    def _read(self, path: Path) -> Run:
        """Read a run; one that is over only once."""
        if path.name not in self._over or not (path / SUMMARY_FILE).is_file():
            run = read_run(path)
            if not run.over:
                return run
            self._over[path.name] = run
        return self._over[path.name]
