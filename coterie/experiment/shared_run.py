"""A run from its last checkpoint to its end, as every process of it carries it out.

All processes make the same collective calls, in the order in which `carry_out` has them. The first process also has a
recorder, which keeps the run folder. It alone decides what depends on a clock, on the user, on the folder or on the
target accuracy; the others are told what it decides.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Protocol, TypeVar

from coterie.core.errors import Mistake
from coterie.core.threads import compute_with
from coterie.core.tree import Tree
from coterie.experiment.build_experiment import Experiment, build_experiment
from coterie.experiment.describe_predictions import MAX_CLIENTS, describe_own_predictions, describe_predictions
from coterie.experiment.engine_choice import Machine
from coterie.experiment.resolve_engine import this_machine
from coterie.experiment.run_recorder import RunRecorder, SilentRun
from coterie.experiment.save_checkpoints import CheckpointSaver
from coterie.experiment.settings import Settings
from coterie.experiment.stop_requests import ignore_stop_requests, stop_requests
from coterie.loop.check_update import broken_leaf
from coterie.loop.federate import federate
from coterie.loop.plan import Resume, Round
from coterie.loop.store import Store
from coterie.models import huggingface_models
from coterie.models.adapter_files import write_adapter
from coterie.models.lora import find_adapters, merge_values
from coterie.processes.team import Team, owns
from coterie.track import RunFolder
from coterie.track.file_writing import client_file_names, disk_mistakes
from coterie.track.weights_file import pack_weights

T = TypeVar("T")


def follow(team: Team, experiment: Experiment | None = None) -> None:
    """Take part in a run, in a process other than the first.

    Args:
        team: the processes of the run.
        experiment: what the first process has built, if this one is a copy of it. Otherwise it is built here again.

    Raises:
        Mistake: this process cannot build what the first process has built.
        Lost: another process has ended.
    """
    library = logging.getLogger("coterie")  # the first process speaks for all
    if experiment is not None:
        library.handlers, library.propagate = [], False  # a copy has those of the first process
    library.addHandler(logging.NullHandler())
    ignore_stop_requests()
    carry_out(team, experiment=experiment)


class Participation(Protocol):
    """How a process takes part in a run whose other clients are elsewhere."""

    def adapt(self, settings: Settings) -> Settings:
        """Return the settings as this process runs them."""

    def build(
        self, settings: Settings, machine: Machine, folder: RunFolder, start_folder: Path | None = None
    ) -> Experiment:
        """Return the experiment of this process's own client. Nothing is written into the folder.

        Args:
            settings: from `adapt`.
            machine: where it runs.
            folder: the run folder.
            start_folder: see `build_experiment`.
        """

    def rounds(self, folder: RunFolder, resume: Resume | None, warn: Callable[[str], None]) -> Iterator[Round]:
        """Yield the rounds that are left."""


def carry_out(
    team: Team,
    recorder: RunRecorder | None = None,
    participation: Participation | None = None,
    experiment: Experiment | None = None,
) -> dict[str, Any]:
    """Run all rounds that are left, and write what a finished run leaves. Collective: every process calls it.

    Args:
        team: the processes of the run.
        recorder: the first process's; None in all others. Without one in the first process there is nothing to run.
        participation: where the other clients are not here. A checkpoint is then saved after every round, and so it is
            where the clients of the experiment work elsewhere.
        experiment: in a process without a recorder, what to run, if it is built. The first process's is its recorder's.

    Returns:
        The entries of summary.json in the first process; nothing in the others.

    Raises:
        KeyboardInterrupt: in the first process, where the user stopped the run.
        Mistake: this process cannot build the experiment, or a file cannot be written.
        Lost: another process has ended.
    """
    order = _broadcast_decision(team, recorder, RunRecorder.order)
    if order is None:
        return {}
    folder = RunFolder(order.folder) if recorder is None else recorder.folder
    if recorder is not None:
        experiment = recorder.experiment
    elif experiment is None:
        experiment = build_experiment(order.settings, this_machine(), folder.start)
    team.gather(None)  # nothing is written before every process has built the experiment
    workplace = experiment.plan.workplace
    saver = CheckpointSaver(folder, team, every_round=participation is not None or workplace is not None)
    found = saver.newest = saver.load()
    if recorder is not None:
        for sentence in saver.warnings():
            recorder.watch.say(sentence)
        recorder.begin(found)
    is_complete = _broadcast_decision(team, recorder, RunRecorder.is_complete)
    secret = _broadcast_decision(team, recorder, lambda recorder: recorder.experiment.plan.secret)
    threads = experiment.settings.engine.threads
    assert threads != "auto", "the settings are resolved"
    with compute_with(threads), saver.save_on_interrupt(), stop_requests(team) as request:
        plan, warn = (
            replace(experiment.plan, team=team, secret=secret or ""),
            (SilentRun() if recorder is None else recorder.watch).say,
        )
        left = federate(plan, found, warn=warn) if participation is None else participation.rounds(folder, found, warn)
        for round in () if is_complete else left:
            if recorder is not None:
                saver.raise_failure()
                recorder.append(round)
            saver.newest = Resume(round.round, round.state, round.store, round.elapsed)
            del round  # its state before the round would stay in memory for all of the next one
            decide = partial(RunRecorder.decide, stop_wanted=request.is_made, save_due=saver.due)
            do = _broadcast_decision(team, recorder, decide)
            assert do is not None, "the first process has a recorder"
            if do.save:
                saver.save()
            if do.stop:
                saver.wait()
            if recorder is not None:
                recorder.show_round(saver.saved, saver.seconds)
            if do.stop:
                break
    assert saver.newest is not None, "a run has at least one round"
    is_complete = _broadcast_decision(team, recorder, RunRecorder.is_complete)
    if not is_complete:
        if recorder is not None:
            raise KeyboardInterrupt
        return {}
    newest = saver.newest
    broken = _write_weights(experiment, folder, newest.state, newest.store, team, is_alone=participation is None)
    if workplace is not None:
        workplace.save(experiment.plan, newest.round, newest.state, newest.store)
    return {} if recorder is None else recorder.write_end(broken)


def _broadcast_decision(team: Team, recorder: RunRecorder | None, decide: Callable[[RunRecorder], T]) -> T | None:
    """Let the first process decide, and return its decision in every process; None if it has no recorder.

    Collective: every process calls it.
    """
    decisions: list[T | None] = team.gather(None if recorder is None else decide(recorder))
    return decisions[0]


def _write_weights(
    experiment: Experiment, folder: RunFolder, state: Tree, store: Store, team: Team, is_alone: bool
) -> str | None:
    """Write the model, in the first process; or each client's, in the process that keeps its state.

    Where all clients are here, `is_alone`, the predictions on test data are written: of the one model, or in a run of
    one process of each client's.
    Models of clients whose states are elsewhere are written there; see `coterie.loop.workplace.Workplace.save`.

    Collective: every process calls it.

    Returns:
        A sentence about the first model that is not finite, or None.
    """
    folder.rounds.require_present()
    plan, models = experiment.plan, experiment.models
    own = plan.algorithm.traits.own_models
    broken: str | None = None
    mine = [client for client in plan.ids if owns(team, client)] if own else plan.ids[: team.rank == 0]
    mine = [] if own and plan.workplace is not None else mine
    file_names = client_file_names(plan.ids) if own else {}
    if own and is_alone and team.size == 1 and plan.workplace is None:
        each = {client: plan.evaluated_weights(state, store, client) for client in mine[: MAX_CLIENTS + 1]}
        folder.write_predictions(describe_own_predictions(experiment.settings, plan, each))
    for client in mine:
        architecture = plan.architecture(client)
        weights = plan.evaluated_weights(state, store, client)
        broken = broken or _broken_weights(weights, plan.initial[architecture], client if own else None)
        named = plan.tasks[architecture].state_dict(weights)
        name = experiment.model_of(client) if own else None
        model = models[architecture]
        if not own and is_alone:
            folder.write_predictions(describe_predictions(experiment.settings, plan, weights))
        if not own and find_adapters(model):
            with disk_mistakes(folder.adapter):
                write_adapter(model, named, folder.adapter)
        named = merge_values(model, named)
        is_merged = bool(find_adapters(model))
        folder.write_weights(pack_weights(model, named, name, part=is_merged), file_names.get(client))
        if not own and huggingface_models.is_huggingface_model(model):
            with disk_mistakes(folder.huggingface):
                huggingface_models.export_checkpoint(model, named, folder.huggingface)
    of_all = team.gather(broken)  # no process goes on before all weights are written
    return next((sentence for sentence in of_all if sentence is not None), None)


def _broken_weights(weights: Tree, initial: Tree, client: str | None) -> str | None:
    """Return a sentence about a model with numbers that are not finite and were no part of the model; None if good."""
    with_nan = (f"params/{name}" for name, p in weights["params"].items() if bool(p.isnan().any()))
    broken = broken_leaf(weights, initial) or next(with_nan, None)
    if broken is None:
        return None
    whose = "the model" if client is None else f"the model of client {client}"
    return (
        f"{whose} is not finite in {broken}, so it is of no use: lower the learning rate (algorithm.lr) and run again "
        "in another folder, from weights that are finite"
    )


def set_workers(settings: Settings, size: int) -> Settings:
    """Return the settings with the number of processes that a launcher has started.

    Raises:
        Mistake: they ask for another number.
    """
    if settings.engine.workers not in ("auto", size):
        raise Mistake(
            f"the launcher has started {size} processes; leave it out, or let the launcher start as many",
            key="workers",
            value=settings.engine.workers,
            table="engine",
        )
    return replace(settings, engine=replace(settings.engine, workers=size))
