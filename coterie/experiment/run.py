"""A run from its settings to its report: the whole of what `coterie run` does, but for talking to a terminal."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, Protocol

from coterie.core.errors import Mistake
from coterie.core.tree import Tree
from coterie.experiment import file, resolved, start
from coterie.experiment.build import Experiment, build
from coterie.experiment.engine import this_machine
from coterie.experiment.members import Call, Order, follow, in_launched, stopping, told, write_weights
from coterie.experiment.saving import Saving
from coterie.experiment.settings import Settings, load
from coterie.loop.federate import federate
from coterie.loop.plan import Resume, Round
from coterie.loop.store import Store
from coterie.processes.spawn import lead_processes
from coterie.processes.team import ALONE, Team
from coterie.processes.torchrun import launcher_size
from coterie.report import write_report
from coterie.track import RunFolder, summarise
from coterie.track.file_writing import disk_mistakes
from coterie.track.rounds_file import Record
from coterie.track.weights_file import pack_weights


class Watch(Protocol):
    """Whoever looks on while a run goes on."""

    def begin(self, experiment: Experiment, folder: Path, records: list[Record]) -> None:
        """Everything is ready, and these rounds were there before."""

    def round(self, record: Record) -> None:
        """A round is complete and on record."""

    def say(self, sentence: str) -> None:
        """Something that the user should know, but that stops nothing."""


class Silent:
    """A watch that says nothing."""

    def begin(self, experiment: Experiment, folder: Path, records: list[Record]) -> None:
        """Nothing."""

    def round(self, record: Record) -> None:
        """Nothing."""

    def say(self, sentence: str) -> None:
        """Nothing."""


@dataclass(frozen=True)
class Outcome:
    """How a run ended: its summary, and whether anything had to be done for it."""

    folder: Path
    summary: dict[str, Any]
    ran: bool


def run(settings: Settings, out: Path, resume: bool = False, watch: Watch | None = None, team: Team = ALONE) -> Outcome:
    """Run an experiment into the folder `out`, or continue what was stopped there.

    Args:
        settings: what to run.
        out: the run folder. It must hold no run yet, unless `resume`.
        resume: continue from the last checkpoint; start where there is nothing yet; do nothing where the run is over.
            The settings must be those of the run, but for `rounds`, and for what they leave open.
        watch: told of what happens.
        team: of processes that a launcher started, of which this is the first; the others `follow`. Without one, this
            process starts as many as the settings say.

    Raises:
        Mistake: the settings cannot be used, or the folder cannot. In the first case nothing is written.
        Lost: another process of the run has ended.
    """
    folder, watch = RunFolder(out), watch or Silent()
    size = launcher_size()
    settings = settings if size is None else in_launched(settings, size)
    if not folder.has_run:
        experiment = build(settings, this_machine())
        with folder.hold():
            if folder.has_run:
                raise _already(folder)
            going = _Run(experiment, folder, watch)
            try:
                return _in_processes(going, team)
            except Mistake:
                if not going.records:
                    folder.withdraw()
                raise
    if not resume:
        raise _already(folder)
    with folder.hold():
        settings = _as_before(settings, folder)
        over = _over(folder, settings)
        if over is not None:
            team.gather(None)
            return Outcome(out, over, ran=False)
        return _in_processes(_Run(build(settings, this_machine(), folder.start), folder, watch), team)


def _already(folder: RunFolder) -> Mistake:
    return Mistake(
        f"{folder.path}: holds a run already; continue it with --resume, or choose another folder with --out"
    )


def _as_before(settings: Settings, folder: RunFolder) -> Settings:
    """The settings with what they leave open as the run in the folder resolved it.

    Raises:
        Mistake: they differ from those of the run.
    """
    earlier = load(folder.config)
    settings = resolved.adopting(settings, earlier)
    changed = [key for key in resolved.difference(settings, earlier) if key != "rounds"]
    if changed:
        raise Mistake(
            f"{', '.join(changed)}: changed since the run in {folder.path} began; "
            "only rounds may change with --resume, so start another run with --out"
        )
    return settings


def _over(folder: RunFolder, settings: Settings) -> dict[str, Any] | None:
    """The summary of a run that needs no more rounds."""
    end = folder.read_summary()
    if end is None or (end["stopped"] == "rounds" and end["rounds"] < settings.rounds):
        return None
    if not (folder.path / "report.html").is_file():
        write_report(folder.path)
    return end


@dataclass
class _Run:
    """A run that goes on: where it stands, and what of it the disk holds."""

    experiment: Experiment
    folder: RunFolder
    watch: Watch
    records: list[Record] = field(default_factory=list)
    team: Team = ALONE

    def __post_init__(self) -> None:
        self.saving = Saving(self.folder)

    @property
    def target(self) -> float | None:
        return self.experiment.settings.evaluate.target_accuracy

    def join(self, team: Team) -> None:
        """Let the team share the work from here on."""
        self.team = self.saving.checkpoints.team = team

    def begin(self) -> Resume | None:
        """Bring the folder to the last checkpoint. Collective."""
        found = self.saving.load(self.watch.say)
        rounds, done = self.experiment.settings.rounds, self.saving.saved
        if rounds < done:
            raise Mistake(f"rounds = {rounds}: {done} rounds are done already; give {done} or more")
        self.records = self.folder.rounds.cut(done)
        self.folder.reopen()
        self._write_config()
        own = self.experiment.plan.algorithm.traits.own_models
        self.folder.write_clients(self.experiment.described(), self.experiment.model_of if own else None)
        self.folder.write_inputs(self.experiment.inputs.record())
        self._write_start()
        return found

    def _write_start(self) -> None:
        """What the models begin with, and how good it is; nothing where these are initial weights of their own."""
        if not self.experiment.starts:
            return
        plan, models = self.experiment.plan, list(self.experiment.models.values())
        self.experiment = replace(self.experiment, starts=start.measured(self.experiment.starts, plan))
        packages = [pack_weights(model, dict(model.state_dict())) for model in models]
        files = dict(zip(start.files(self.folder.start, len(models)), packages, strict=True))
        self.folder.write_start(files, [each.record() for each in self.experiment.starts])

    def _write_config(self) -> None:
        """config.toml as it was, but for `rounds`; a run keeps the versions that it began with."""
        now = resolved.versions(this_machine())
        began = file.read(self.folder.config).get("versions", now) if self.folder.config.is_file() else now
        changed = [f"{name} {began.get(name)} is now {now[name]}" for name in now if began.get(name) != now[name]]
        if changed:
            self.watch.say(f"since this run began, {', '.join(changed)}: its numbers may differ in the last digits")
        self.folder.write_config(resolved.text(self.experiment.settings, began))

    def reached(self) -> bool:
        """Whether the target accuracy was reached in the last round on record."""
        accuracy = self.records[-1]["test_accuracy"] if self.records else None
        return self.target is not None and accuracy is not None and bool(accuracy >= self.target)

    def take(self, round: Round, stop: bool) -> bool:
        """Put a round on record, and save a checkpoint if one is due; whether this was the last round. Collective."""
        self.records.append(self.folder.rounds.append(round.record()))
        self.saving.last, stop = round, stop or self.reached()
        last = stop or round.round == self.experiment.settings.rounds
        order = told(self.team, Order(save=last or self.saving.due, stop=stop))
        if order.save:
            self.saving.save()
        self.watch.round(self.records[-1])
        return order.stop

    @contextmanager
    def saved_on_interrupt(self) -> Iterator[None]:
        """A block after whose interruption (Ctrl-C) no complete round is lost; for a team, see `stopping`."""
        try:
            yield
        except KeyboardInterrupt:
            if self.team.size == 1:
                self.saving.save()
            raise

    def end(self, state: Tree, store: Store) -> dict[str, Any]:
        """Write what a finished run leaves, the summary last. Collective."""
        write_weights(self.experiment, self.folder, state, store, self.team)
        end = summarise(self.records, self.target, self.experiment.bytes_once, len(self.experiment.clients))
        self.folder.write_summary(end)
        with disk_mistakes(self.folder.path / "report.html"):
            write_report(self.folder.path)
        return end


def _in_processes(going: _Run, team: Team) -> Outcome:
    """Carry a run out with a launcher's team, or with one that is started here."""
    workers = going.experiment.settings.engine.workers
    assert workers != "auto", "settings are resolved"
    lead = partial(_carried_out, going)
    return lead(team) if team.size > 1 else lead_processes(workers, lead, follow)


def _carried_out(going: _Run, team: Team) -> Outcome:
    """What the first process of a run does, or the only one. Collective."""
    settings, folder, watch = going.experiment.settings, going.folder, going.watch
    plan = replace(going.experiment.plan, team=team)
    team.gather(Call(settings, folder.path.resolve()))
    team.gather(None)  # nothing is written before the others have built it too
    going.join(team)
    found = going.begin()
    watch.begin(going.experiment, folder.path, list(going.records))
    for sentence in going.experiment.remarks:
        watch.say(sentence)
    over = told(team, Order(save=False, stop=going.reached())).stop
    with going.saved_on_interrupt(), stopping(team) as asked:
        for round in () if over else federate(plan, found):
            if going.take(round, asked.wanted):
                break
    newest = going.saving.last or found
    assert newest is not None, "a run has at least one round"
    unfinished = newest.round < settings.rounds and not going.reached()
    if told(team, Order(save=False, stop=unfinished)).stop:
        raise KeyboardInterrupt
    return Outcome(folder.path, going.end(newest.state, newest.store), ran=True)
