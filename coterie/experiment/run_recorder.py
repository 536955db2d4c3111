"""What only the first process of a run does: it keeps the run folder, shows the run, and decides when it stops."""

from __future__ import annotations

import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from coterie.core.errors import Mistake
from coterie.experiment.build_experiment import Experiment
from coterie.experiment.check_data import describe_data
from coterie.experiment.config_toml import current_versions, format_config
from coterie.experiment.example_privacy import list_epsilons
from coterie.experiment.folder_jobs import write_end
from coterie.experiment.mend_folder import has_usable_inputs
from coterie.experiment.pace import Pace, PaceWatch
from coterie.experiment.privacy import describe_privacy
from coterie.experiment.resolve_engine import this_machine
from coterie.experiment.settings import Settings
from coterie.experiment.starting_weights import measure_starts, start_files
from coterie.experiment.stop_early import further_goals, stopping_of
from coterie.experiment.toml_file import read_toml
from coterie.loop.plan import Resume, Round
from coterie.loop.refusals import failure
from coterie.report.run_reader import flatten
from coterie.track import RunFolder, summarise
from coterie.track.rounds_file import Record
from coterie.track.stopping import Stopping
from coterie.track.trackers import Trackers
from coterie.track.weights_file import pack_weights


class RunWatch(Protocol):
    """An object that is told how a run goes on."""

    def begin(self, experiment: Experiment, folder: Path, records: list[Record]) -> None:
        """Everything is ready; these rounds were run before."""

    def round(self, record: Record) -> None:
        """A round is complete and on record."""

    def say(self, sentence: str) -> None:
        """Something that the user should know; the run goes on."""


class SilentRun:
    """A watch that does nothing."""

    def begin(self, experiment: Experiment, folder: Path, records: list[Record]) -> None:
        """Do nothing."""

    def round(self, record: Record) -> None:
        """Do nothing."""

    def say(self, sentence: str) -> None:
        """Do nothing."""


class RunOrder(NamedTuple):
    """What every process runs: settings with nothing left open, and the run folder."""

    settings: Settings
    folder: Path


class RoundOrder(NamedTuple):
    """What every process does after a round."""

    save: bool
    stop: bool


@dataclass
class RunRecorder:
    """The first process's own half of a run.

    Attributes:
        records: of the rounds on record, those of earlier processes included.
        trackers: what [track] names.
        pace: of the rounds of this process.

    Raises:
        Mistake: the package of a tracker is not installed.
    """

    experiment: Experiment
    folder: RunFolder
    watch: RunWatch
    records: list[Record] = field(default_factory=list)
    trackers: Trackers = field(init=False)
    pace: Pace = field(default_factory=Pace)
    _elapsed_before: float = 0.0
    _sent: int = 0

    def __post_init__(self) -> None:
        settings = self.experiment.settings
        self.trackers = Trackers(settings.track, self.folder.path, flatten(settings.tables()), self.watch.say)

    @property
    def target(self) -> float | None:
        """The test accuracy at which the run stops."""
        return self.experiment.settings.evaluate.target_accuracy

    def order(self) -> RunOrder:
        """Return what the other processes need to take part."""
        return RunOrder(self.experiment.settings, self.folder.path.resolve())

    def begin(self, found: Resume | None) -> None:
        """Bring the folder to a checkpoint, or to the start, and show that the run begins.

        Raises:
            Mistake: more rounds are done than the settings ask for, or a file cannot be written.
        """
        rounds, done = self.experiment.settings.rounds, found.round if found else 0
        if rounds < done:
            raise Mistake(f"{done} rounds are done already; give {done} or more", key="rounds", value=rounds)
        recorded = self.folder.rounds.count()
        self.records = self.folder.rounds.cut(done)
        self._elapsed_before = found.elapsed if found else 0.0
        self.folder.reopen()
        self._write_config()
        self._keep_secret(found, max(recorded - done, 0))
        own = self.experiment.plan.algorithm.traits.own_models
        self.folder.write_clients(self.experiment.clients_to_describe(), self.experiment.model_of if own else None)
        if found is None or not has_usable_inputs(self.folder):
            self.folder.write_inputs(self.experiment.inputs.to_record())
        if self.experiment.inputs.text is not None:
            self.folder.write_tokenizer(self.experiment.inputs.text.tokenizer.content)
        if found is None:
            self.folder.write_data(describe_data(self.experiment))
        self._write_start()
        self.folder.seal(over=False)
        self.watch.begin(self.experiment, self.folder.path, list(self.records))
        for sentence in self.experiment.remarks:
            self.watch.say(sentence)

    def _keep_secret(self, found: Resume | None, lost: int) -> None:
        """Let a run that goes on draw the noise and the cohorts that it drew before, or count what it does again.

        Where the clients are here, the rounds that are run again are the same to the last bit, noise included, so they
        tell nothing new. Silos may answer otherwise than before, so the noise must be new, and both count.

        Args:
            found: the checkpoint, or None. Without it and the secret, all is drawn again, and what is on record counts.
            lost: how many recorded rounds are run again.
        """
        plan = self.experiment.plan
        if plan.either_guarantee is None or plan.either_guarantee.noise == "rng_seed":
            return
        kept = self.folder.noise.read()
        if plan.workplace is not None:
            self.folder.noise.write(plan.secret, (kept.repeated if kept else 0) + lost)
        elif kept is not None:
            self.experiment = replace(self.experiment, plan=replace(plan, secret=kept.secret))
        elif found is None:
            self.folder.noise.write(plan.secret, lost)
        else:
            raise Mistake(
                f"{self.folder.noise.path}: is gone, and with it the secret of the run's noise; put back a copy, or "
                "start another run with --out"
            )

    def _write_start(self) -> None:
        """Write the weights that the models start from, and how good they are; nothing for initial weights."""
        if not self.experiment.starts:
            return
        plan, models = self.experiment.plan, list(self.experiment.models.values())
        self.experiment = replace(self.experiment, starts=measure_starts(self.experiment.starts, plan))
        packages = [pack_weights(model, dict(model.state_dict())) for model in models]
        files = dict(zip(start_files(self.folder.start, len(models)), packages, strict=True))
        self.folder.write_start(files, [each.record() for each in self.experiment.starts])

    def _write_config(self) -> None:
        """Write config.toml. A run keeps the versions that it began with."""
        now = current_versions(this_machine())
        began = read_toml(self.folder.config).get("versions", now) if self.folder.config.is_file() else now
        changed = [f"{name} {began.get(name)} is now {now[name]}" for name in now if began.get(name) != now[name]]
        if changed:
            self.watch.say(f"since this run began, {', '.join(changed)}: its numbers may differ in the last digits")
        self.folder.write_config(format_config(self.experiment.settings, began))

    @property
    def stopping(self) -> Stopping:
        """What ends the run before its last round."""
        return stopping_of(self.experiment.settings.evaluate, self.experiment.plan)

    def has_ended_early(self) -> bool:
        """Return whether the last round on record reached the target, or the patience is at its end."""
        return self.stopping.why(self.records) is not None

    def append(self, round: Round) -> None:
        """Put a round on record."""
        self.records.append(self.folder.rounds.append(round.record()))
        self.pace = self.pace.add(round, self._elapsed_before)

    def decide(self, stop_wanted: bool, save_due: bool) -> RoundOrder:
        """Return what every process does after the round that is on record last."""
        stop = stop_wanted or self.has_ended_early()
        return RoundOrder(save=save_due or stop or self._was_last_round(), stop=stop)

    def is_complete(self) -> bool:
        """Return whether no round is left to run."""
        return self._was_last_round() or self.has_ended_early()

    def _was_last_round(self) -> bool:
        return len(self.records) >= self.experiment.settings.rounds

    def show_round(self, saved: int, checkpoint_seconds: float) -> None:
        """Show the round that is on record last; send trackers the rounds that a checkpoint has.

        Args:
            saved: the last round that a checkpoint has.
            checkpoint_seconds: how long this process waited for its checkpoints.
        """
        began = time.perf_counter()
        self.pace = replace(self.pace, checkpoints=checkpoint_seconds)
        if isinstance(self.watch, PaceWatch):
            self.watch.show_pace(self.pace)
        self.watch.round(self.records[-1])
        if saved > self._sent:
            self.trackers.log(self.records[:saved])
            self._sent = saved
        self.pace = replace(self.pace, other=self.pace.other + time.perf_counter() - began)

    def write_end(self, broken: str | None = None) -> dict[str, Any]:
        """Write summary.json and report.html, and return the summary.

        Its entry "failure" says in a sentence why the run failed, where no update ever counted or a model is `broken`.
        """
        once, clients = self.experiment.bytes_once, len(self.experiment.clients)
        goals = further_goals(self.experiment.plan)
        summary = summarise(self.records, self.target, once, clients, self.stopping, goals)
        plan = self.experiment.plan
        kept = self.folder.noise.read() if plan.either_guarantee is not None else None
        rounds, repeated = len(self.records), kept.repeated if kept else 0
        summary |= describe_privacy(plan, rounds, repeated)
        if plan.example_privacy is not None:
            self.folder.write_epsilons(list_epsilons(plan, plan.example_privacy, rounds, repeated))
        failed = broken or failure(self.records, self.experiment.plan)
        summary |= {} if failed is None else {"failure": failed}
        self.trackers.end(self.records, summary)  # before the run is over, so that a run killed here sends it again
        write_end(self.folder, summary)
        return summary
