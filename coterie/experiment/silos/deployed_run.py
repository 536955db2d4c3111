"""A run between silos into a run folder, as the coordinator carries it out: all that `coterie deploy run` does.

The folder is like any other run's. deployment.json in it holds the run's name, by which silos know it, and silos.json
what they agreed on, so that a coordinator that was killed at any instant goes on with the same run.
"""

from __future__ import annotations

import json
import re
import secrets
import time
from collections.abc import Callable, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from coterie.core.errors import Mistake, few, reason
from coterie.core.files import write_atomic
from coterie.experiment.build_experiment import Experiment
from coterie.experiment.check_data import check_data
from coterie.experiment.folder_jobs import Outcome, start_or_resume
from coterie.experiment.mend_folder import has_begun, mend_folder, require_checkpoint
from coterie.experiment.resolve_engine import this_machine
from coterie.experiment.resume_run import adopt_settings, is_finished
from coterie.experiment.run_recorder import RunRecorder, RunWatch, SilentRun
from coterie.experiment.settings import Settings
from coterie.experiment.shared_run import carry_out
from coterie.experiment.silos.begin import Waits
from coterie.experiment.silos.join_silos import (
    AGREED_FILE,
    ROUND_TIMEOUT_SECONDS,
    JoinOptions,
    join_silos,
    read_agreed,
)
from coterie.experiment.silos.silo_settings import name_models
from coterie.processes.team import ALONE
from coterie.silos.carrier import Carrier
from coterie.track import RunFolder
from coterie.track.file_writing import disk_mistakes
from coterie.track.rounds_file import Record

DEPLOYMENT_FILE = "deployment.json"
LOOK_SECONDS, APPROVAL_SECONDS = 0.5, 10.0
"""How often it is looked who is connected, and how often silos are asked whether a person has approved the run."""

BEGIN_SECONDS = 300.0
"""How long silos have for an answer before the first round, if rounds are shorter: they read their data for it."""

BACK_SECONDS = 30.0
"""How long a run that goes on waits for its silos before its next round, which can do without some."""


@dataclass(frozen=True)
class Waiting:
    """How the coordinator waits for silos.

    Attributes:
        connect_seconds: for all silos to connect before a run first begins.
        pause: waits for some seconds; it may raise where there is nothing to wait for.
    """

    connect_seconds: float = float("inf")
    pause: Callable[[float], None] = time.sleep


def run_deployed(
    settings: Settings,
    out: Path,
    carrier: Carrier,
    silos: Sequence[str],
    resume: bool = False,
    watch: RunWatch | None = None,
    waiting: Waiting | None = None,
) -> Outcome:
    """Run an experiment between silos into the folder `out`, or continue what was stopped there.

    Args:
        settings: of the experiment file.
        out: the run folder.
        carrier: the coordinator's end; the caller closes it.
        silos: those that take part; a run that goes on has those that it began with.
        resume: see `coterie.experiment.run.run`. No key may change but those of [deploy].
        watch: is told how the run goes on.
        waiting: how to wait for silos.

    Raises:
        Mistake: the settings or the folder cannot be used, or a silo refuses the run.
    """
    folder, join = RunFolder(out), _Join(out, carrier, silos, watch or SilentRun(), waiting or Waiting())

    def prepare() -> _DeployedJob:
        for name in (
            AGREED_FILE,
            DEPLOYMENT_FILE,
        ):  # of an attempt that never began, perhaps with other silos or settings
            with disk_mistakes(out):
                (out / name).unlink(missing_ok=True)
        return _DeployedJob(RunRecorder(join(_alone(settings)), folder, join.watch))

    def prepare_rest() -> _DeployedJob | None:
        mend_folder(folder, join.watch.say)
        named = name_models(_alone(settings), read_agreed(out / AGREED_FILE)[0])
        adopted = adopt_settings(named, folder, may_change="deploy")
        if is_finished(folder, adopted):
            return None
        require_checkpoint(folder)
        experiment = join(adopted, folder.start)
        if has_begun(folder):
            check_data(experiment, folder, join.watch.say)
        return _DeployedJob(RunRecorder(experiment, folder, join.watch))

    return start_or_resume(folder, resume, prepare, prepare_rest)


@dataclass
class _DeployedJob:
    """A run between silos that is ready to go on."""

    recorder: RunRecorder

    @property
    def records(self) -> list[Record]:
        return self.recorder.records

    def carry_out(self) -> dict[str, Any]:
        with closing(self.recorder.trackers):
            return carry_out(ALONE, self.recorder)

    def withdraw(self) -> None:
        self.recorder.folder.withdraw()


@dataclass
class _Join:
    """Gets all silos to begin or go on."""

    out: Path
    carrier: Carrier
    silos: Sequence[str]
    watch: RunWatch
    waiting: Waiting
    sentences: set[str] = field(default_factory=set)

    def __call__(self, settings: Settings, start_folder: Path | None = None) -> Experiment:
        """Return the coordinator's experiment once all silos are ready.

        Raises:
            Mistake: see `coterie.experiment.silos.join_silos.join_silos`.
        """
        run, known = read_run_name(self.out), (self.out / AGREED_FILE).is_file()
        self._wait(BACK_SECONDS if known else self.waiting.connect_seconds)
        if run is None:
            stem = re.sub("[^A-Za-z0-9]+", "-", self.out.resolve().name).strip("-")[:40]
            run = f"{stem or 'run'}-{secrets.token_hex(4)}"
            with disk_mistakes(self.out):
                write_atomic(self.out / DEPLOYMENT_FILE, json.dumps({"run": run}).encode() + b"\n")
        deadline = max(settings.deploy.round_timeout or ROUND_TIMEOUT_SECONDS, BEGIN_SECONDS)
        options = JoinOptions(run, deadline, self.watch.say)
        while True:
            try:
                return join_silos(settings, self.carrier, self.silos, this_machine(), self.out, options, start_folder)
            except Waits as waits:
                self._say_once(str(waits))
                self.waiting.pause(APPROVAL_SECONDS)

    def _wait(self, seconds: float) -> None:
        """Wait until all silos are connected, for so long at most."""
        ends = time.monotonic() + seconds
        while missing := [silo for silo in self.silos if silo not in self.carrier.sites()]:
            self._say_once(f"waiting for {few(missing, 10)}: `coterie deploy serve` must run there")
            if time.monotonic() > ends:
                break
            self.waiting.pause(LOOK_SECONDS)
        self.carrier.renew()

    def _say_once(self, sentence: str) -> None:
        if sentence not in self.sentences:
            self.sentences.add(sentence)
            self.watch.say(sentence)


def read_run_name(out: Path) -> str | None:
    """Return the name by which silos know the run in a folder; None if it has none yet.

    Raises:
        Mistake: the file is damaged.
    """
    path = out / DEPLOYMENT_FILE
    if not path.is_file():
        return None
    with suppress(KeyError, TypeError):
        try:
            name = json.loads(path.read_bytes())["run"]
        except (OSError, ValueError) as error:
            raise Mistake(f"{path}: cannot be read ({reason(error)}); put back a copy, or start another run") from error
        if isinstance(name, str):
            return name
    raise Mistake(f"{path}: holds no name of a run; put back a copy, or start another run")


def _alone(settings: Settings) -> Settings:
    """Return the settings with one process, since the work is done at silos."""
    engine = settings.engine
    return replace(settings, engine=replace(engine, workers=1)) if engine.workers == "auto" else settings
