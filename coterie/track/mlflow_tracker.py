"""Send a run to MLflow: to the run folder's mlflow/, or to the server that MLFLOW_TRACKING_URI names."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from coterie.core.packages import import_package
from coterie.track.rounds_file import Record
from coterie.track.trackers import numbers_of

MLFLOW_FOLDER = "mlflow"
EXPERIMENT = "coterie"
MAX_VALUE_CHARACTERS = 500
"""Of a parameter; servers of MLflow refuse longer ones, by version from 500 or 6,000 on."""
MAX_BATCH = 1000
"""The most metrics that MLflow takes at once; of parameters it takes 100."""


class MlflowTracker:
    """Logs metrics by round, the settings as parameters, the summary as metrics `final/NAME`, and the weights if asked.

    MLFLOW_EXPERIMENT_NAME names the experiment, "coterie" otherwise.
    """

    def __init__(self, folder: Path, name: str, config: dict[str, Any]) -> None:
        self._uri = os.environ.get("MLFLOW_TRACKING_URI") or (folder / MLFLOW_FOLDER).as_uri()
        # mlflow reads these when it is imported or first used: it shall tell nobody that it is used, and since 3.10 it
        # refuses to write into a folder without the second, for a database would do more
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
        os.environ.setdefault("MLFLOW_ALLOW_FILE_STORE", "true")
        # a server that nobody reaches shall hold up the run for seconds, not for many minutes
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "10")
        self._mlflow = import_package("mlflow", 'track.to = "mlflow"', "track")
        self._entities = import_package("mlflow.entities", 'track.to = "mlflow"', "track")
        self._name, self._config = name, config
        self._client: Any = None
        self._id = ""
        self._earlier: set[tuple[str, int]] = set()

    def open(self, id: str | None, round: int) -> str:
        """Create a run, or open the one that is there."""
        self._client = self._mlflow.MlflowClient(tracking_uri=self._uri)
        if id is None:
            experiment = os.environ.get("MLFLOW_EXPERIMENT_NAME", EXPERIMENT)
            found = self._client.get_experiment_by_name(experiment)
            place = found.experiment_id if found else self._client.create_experiment(experiment)
            self._id = self._client.create_run(place, run_name=self._name).info.run_id
        else:
            self._id = id
            self._client.update_run(id, status="RUNNING")
            names = self._client.get_run(id).data.metrics
            # a process that was killed may have sent rounds and not written that down
            self._earlier = {(name, each.step) for name in names for each in self._client.get_metric_history(id, name)}
        self._log_parameters()
        return self._id

    def _log_parameters(self) -> None:
        """Log the settings. MLflow keeps the first value of a parameter; the number of rounds may grow, as a tag."""
        known = self._client.get_run(self._id).data.params
        values = {_clean(key): str(value)[:MAX_VALUE_CHARACTERS] for key, value in self._config.items()}
        new = [self._entities.Param(key, value) for key, value in values.items() if key not in known]
        for start in range(0, len(new), 100):
            self._client.log_batch(self._id, params=new[start : start + 100])
        for key, value in values.items():
            if known.get(key, value) != value:
                self._client.set_tag(self._id, f"now.{key}", value)

    def log(self, records: Sequence[Record]) -> None:
        """Log each number of each round as a metric."""
        when = int(1000 * time.time())
        metrics = [
            self._entities.Metric(name, number, when, record["round"])
            for record in records
            for name, number in ((_clean(name), number) for name, number in numbers_of(record).items())
            if (name, record["round"]) not in self._earlier
        ]
        for start in range(0, len(metrics), MAX_BATCH):
            self._client.log_batch(self._id, metrics=metrics[start : start + MAX_BATCH])

    def end(self, summary: Mapping[str, Any], files: Sequence[Path]) -> None:
        """Log the summary and the weights."""
        when, last = int(1000 * time.time()), summary["rounds"]
        metrics = [
            self._entities.Metric(f"final/{_clean(name)}", number, when, last)
            for name, number in numbers_of(summary).items()
        ]
        metrics = [each for each in metrics if (each.key, each.step) not in self._earlier]
        self._client.log_batch(self._id, metrics=metrics)
        self._client.set_tag(self._id, "stopped", str(summary.get("failure") or summary["stopped"]))
        for file in files:
            self._client.log_artifact(self._id, str(file), "model")
        self._client.set_terminated(self._id, "FAILED" if summary.get("failure") else "FINISHED")
        self._id = ""

    def close(self) -> None:
        """Mark a run that was stopped as such."""
        if self._id:
            self._client.set_terminated(self._id, "KILLED")


def _clean(name: str) -> str:
    """Return a name with the characters that MLflow takes."""
    return re.sub(r"[^\w\-. :/]", "_", name)
