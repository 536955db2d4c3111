"""What the coordinator last knew of its silos, in the project's folder, for `coterie deploy status`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from coterie.core.files import write_atomic
from coterie.experiment.build_experiment import Experiment
from coterie.experiment.privacy import describe_privacy
from coterie.experiment.run_recorder import RunWatch
from coterie.silos.carrier import Carrier
from coterie.track.folder_lock import is_locked
from coterie.track.rounds_file import Record

STATUS_FILE = "status.json"


@dataclass
class RunStatus:
    """What the coordinator last knew.

    Attributes:
        when: in UTC.
        folder: of the run.
        round, rounds: that is complete, and how many there are.
        reached: how many updates counted in it; None before the first.
        dropped: client -> why its update did not.
        connected: silos.
        note: the last sentence about something out of the ordinary.
        privacy: what the whole run will have spent, in a sentence; empty where it promises nothing.
    """

    when: str
    folder: str
    round: int = 0
    rounds: int = 0
    reached: int | None = None
    dropped: dict[str, str] = field(default_factory=dict)
    connected: list[str] = field(default_factory=list)
    note: str = ""
    privacy: str = ""


class StatusWatch:
    """A watch that also keeps the status in a project's folder.

    Args:
        watch: is told as well.
        project: the folder.
        carrier: knows who is connected.
        out: the run folder.
    """

    def __init__(self, watch: RunWatch, project: Path, carrier: Carrier, out: Path) -> None:
        self.watch, self.path, self.carrier = watch, project / STATUS_FILE, carrier
        self.status = RunStatus(_now(), str(out))

    def begin(self, experiment: Experiment, folder: Path, records: list[Record]) -> None:
        """See `RunWatch.begin`. What was said before, such as who was waited for, is over."""
        self.status.note = ""
        self.status.round, self.status.rounds = len(records), experiment.settings.rounds
        self.status.privacy = _state_privacy(experiment)
        self._write()
        self.watch.begin(experiment, folder, records)

    def round(self, record: Record) -> None:
        """See `RunWatch.round`."""
        self.status.round, self.status.reached = record["round"], record["reached"]
        self.status.dropped = {entry["client"]: entry["why"] for entry in record["dropped"]}
        self._write()
        self.watch.round(record)

    def say(self, sentence: str) -> None:
        """See `RunWatch.say`."""
        self.status.note = sentence
        self._write()
        self.watch.say(sentence)

    def _write(self) -> None:
        self.status.when, self.status.connected = _now(), sorted(self.carrier.sites())
        write_atomic(self.path, json.dumps(asdict(self.status)).encode() + b"\n")


def read_status(project: Path) -> RunStatus | None:
    """Return the status in a project's folder; None where there is none, or a damaged one."""
    try:
        content: Mapping[str, Any] = json.loads((project / STATUS_FILE).read_bytes())
        return RunStatus(**content)
    except (OSError, ValueError, TypeError):
        return None


def is_running(project: Path) -> bool:
    """Return whether a run of a project goes on now, on this machine: `run_project` holds the folder's lock."""
    return is_locked(project)


def _state_privacy(experiment: Experiment) -> str:
    """Return what all rounds of a run spend, in a sentence; an empty text where it promises nothing."""
    rounds = experiment.settings.rounds
    summary = describe_privacy(experiment.plan, rounds)
    if not summary:
        return ""
    unit, where = summary["privacy"]["unit"], summary["privacy"]["where"]
    cost = f"epsilon {summary['epsilon']:.3g} at delta {summary['delta']:.3g}"
    return f"all {rounds} rounds spend {cost} for each {unit}; the noise is added by the {where}"


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
