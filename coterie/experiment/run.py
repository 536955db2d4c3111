"""A run from its settings to its report: all that `coterie run` does, except talking to a terminal."""

from __future__ import annotations

from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from coterie.experiment.build_experiment import Experiment, build_experiment
from coterie.experiment.check_data import check_data
from coterie.experiment.folder_jobs import Outcome, start_or_resume
from coterie.experiment.mend_folder import has_begun, mend_folder, require_checkpoint
from coterie.experiment.resolve_engine import this_machine
from coterie.experiment.resume_run import adopt_settings, is_finished
from coterie.experiment.run_recorder import RunRecorder, RunWatch, SilentRun
from coterie.experiment.settings import Settings
from coterie.experiment.shared_run import Participation, carry_out, follow, set_workers
from coterie.processes.launcher import launcher_size
from coterie.processes.spawn import lead_processes
from coterie.processes.team import ALONE, Team
from coterie.track import RunFolder
from coterie.track.rounds_file import Record


def run(
    settings: Settings,
    out: Path,
    resume: bool = False,
    watch: RunWatch | None = None,
    team: Team = ALONE,
    participation: Participation | None = None,
) -> Outcome:
    """Run an experiment into the folder `out`, or continue what was stopped there.

    Args:
        settings: what to run.
        out: the run folder. It must not hold a run, unless `resume`.
        resume: continue from the last checkpoint; start where the folder holds no run; do nothing where the run is
            finished. The settings must be those of the run, except `rounds` and what they leave open.
        watch: is told how the run goes on.
        team: the processes that a launcher started; this is the first of them, and the others call `follow`. Without
            one, this process starts as many as the settings ask for.
        participation: how this process takes part in a run whose other clients are elsewhere.

    Raises:
        Mistake: the settings cannot be used, or the folder cannot. In the first case nothing is written.
        Lost: another process of the run has ended.
    """
    folder, watch = RunFolder(out), watch or SilentRun()
    size = launcher_size()
    settings = settings if size is None else set_workers(settings, size)
    settings = settings if participation is None else participation.adapt(settings)

    def build(settings: Settings, start_folder: Path | None = None) -> Experiment:
        if participation is None:
            return build_experiment(settings, this_machine(), start_folder)
        return participation.build(settings, this_machine(), folder, start_folder)

    def prepare() -> _RunJob:
        experiment = build(settings)
        return _RunJob(RunRecorder(experiment, folder, watch), team, participation)

    def prepare_rest() -> _RunJob | None:
        mend_folder(folder, watch.say)
        adopted = adopt_settings(settings, folder)
        if is_finished(folder, adopted):
            carry_out(team)  # without a recorder: the other processes end
            return None
        require_checkpoint(folder)
        experiment = build(adopted, folder.start)
        if has_begun(folder):
            check_data(experiment, folder, watch.say)
        return _RunJob(RunRecorder(experiment, folder, watch), team, participation)

    return start_or_resume(folder, resume, prepare, prepare_rest)


@dataclass
class _RunJob:
    """A run that is ready to go on."""

    recorder: RunRecorder
    team: Team
    participation: Participation | None = None

    @property
    def records(self) -> list[Record]:
        return self.recorder.records

    def carry_out(self) -> dict[str, Any]:
        """Carry the run out with the launcher's processes, or with processes that are started here."""
        workers = self.recorder.experiment.settings.engine.workers
        assert workers != "auto", "the settings are resolved"
        lead = partial(carry_out, recorder=self.recorder, participation=self.participation)
        follow_as_copy = partial(follow, experiment=self.recorder.experiment)
        with closing(self.recorder.trackers):
            return lead(self.team) if self.team.size > 1 else lead_processes(workers, lead, follow, follow_as_copy)

    def withdraw(self) -> None:
        """Remove what the run wrote into its folder before its first round."""
        self.recorder.folder.withdraw()
