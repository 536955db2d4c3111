"""What the live page of a run shows."""

from __future__ import annotations

import time
from html import escape
from pathlib import Path

from coterie.core.errors import Mistake
from coterie.report import page_parts
from coterie.report.live_state import LiveState, list_stages, run_state
from coterie.report.pretraining_page import pretraining_page
from coterie.report.run_page import run_page
from coterie.report.run_reader import is_pretraining, mistakes_about_shapes, read_pretraining, read_run
from coterie.track.run_folder import CONFIG_FILE, STAGES_FOLDER

RETRY_SECONDS = 0.3
"""A file may be read while it is written; then it is read once more after this pause."""


class LiveRun:
    """A run, a pre-training or a chain in a folder, as `coterie.report.live_server.LiveSource`."""

    pause_seconds = 1.0

    def __init__(self, folder: Path) -> None:
        self.folder, self.name = folder, folder.resolve().name

    def state(self) -> LiveState:
        """Return how it stands."""
        return run_state(self.folder)

    def page(self) -> str:
        """Return its report as of now; before there is one, the stages that have begun."""
        if not (self.folder / CONFIG_FILE).is_file():
            return self._first_page()
        try:
            return self._report()
        except Mistake:
            time.sleep(RETRY_SECONDS)
        try:
            return self._report()
        except Mistake as mistake:
            sentence = f"<p class=failed>{escape(str(mistake))}</p>"
            return page_parts.document(self.name, [f"<h1>{escape(self.name)}</h1>", sentence])

    def _report(self) -> str:
        with mistakes_about_shapes(self.folder):
            if is_pretraining(self.folder):
                return pretraining_page(read_pretraining(self.folder))
            return run_page(read_run(self.folder))

    def _first_page(self) -> str:
        stages = [
            f'<li><a href="{STAGES_FOLDER}/{escape(path.name)}/">{escape(path.name)}</a></li>'
            for path in list_stages(self.folder)
        ]
        links = f"<ul>{''.join(stages)}</ul>" if stages else ""
        return page_parts.document(
            self.name, [f"<h1>{escape(self.name)}</h1>", page_parts.section("Stages so far", links)]
        )


def live_runs(folder: Path) -> dict[str, LiveRun]:
    """Return a run and the earlier stages of its chain, by their places on the server."""
    stages = {f"{STAGES_FOLDER}/{path.name}": LiveRun(path) for path in list_stages(folder)}
    return {"": LiveRun(folder), **stages}
