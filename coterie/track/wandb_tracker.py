"""Send a run to Weights & Biases: to the run folder's wandb/, for `wandb sync`, unless WANDB_MODE says otherwise."""

from __future__ import annotations

import os
import secrets
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from coterie.core.packages import import_package
from coterie.track.rounds_file import Record
from coterie.track.trackers import numbers_of

PROJECT = "coterie"
OFFLINE = "offline"


class WandbTracker:
    """Logs the numbers of each round at its step, the settings, the summary, and the weights if asked.

    WANDB_MODE is "offline" unless it is set; WANDB_PROJECT names the project, "coterie" otherwise. A process of the
    library writes the files, some time after `log` returns. So where a run is killed, this tracker may lose the last
    rounds before; they are not sent again, since it cannot tell which it has, and none shall be there twice.
    """

    def __init__(self, folder: Path, name: str, config: dict[str, Any]) -> None:
        self._mode = os.environ.get("WANDB_MODE", OFFLINE)
        if self._mode == OFFLINE:
            os.environ.setdefault("WANDB_ERROR_REPORTING", "false")  # it is read when the package is imported
        self._wandb = import_package("wandb", 'track.to = "wandb"', "track")
        self._folder, self._name, self._config = folder, name, config
        self._run: Any = None

    def open(self, id: str | None, round: int) -> str:
        """Begin a run, or go on with one; offline each process writes a folder of its own, of one and the same run."""
        id = id or secrets.token_hex(8)
        quiet = self._wandb.Settings(
            silent=True, console="off", disable_git=True, save_code=False, disable_code=True, x_disable_stats=True
        )
        self._run = self._wandb.init(
            project=os.environ.get("WANDB_PROJECT", PROJECT),
            name=self._name,
            id=id,
            resume=None if self._mode == OFFLINE else "allow",
            dir=str(self._folder),
            mode=self._mode,
            config=self._config,
            settings=quiet,
        )
        return id

    def log(self, records: Sequence[Record]) -> None:
        """Log the numbers of each round, at the step of its number."""
        for record in records:
            self._run.log(numbers_of(record), step=record["round"], commit=True)

    def end(self, summary: Mapping[str, Any], files: Sequence[Path]) -> None:
        """Log the summary and the weights."""
        self._run.summary.update({name: value for name, value in summary.items() if value is not None})
        if files:
            artifact = self._wandb.Artifact(f"model-{self._run.id}", type="model")
            for file in files:
                artifact.add_file(str(file), name=file.relative_to(self._folder).as_posix())
            self._run.log_artifact(artifact)
        self._run.finish(exit_code=1 if summary.get("failure") else 0)
        self._run = None

    def close(self) -> None:
        """End the run in this process, as one that was stopped."""
        if self._run is not None:
            self._run.finish(exit_code=1)
