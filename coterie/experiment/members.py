"""A run in several processes: the first leads, and owns the run folder; the others follow it from round to round.

Before the first round the leader tells what is run. After each, it tells whether a checkpoint is due and whether the
run is to stop, which depend on a clock, on a user and on a target, and so are never decided twice.
"""

from __future__ import annotations

import logging
import math
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import FrameType
from typing import NamedTuple

from coterie.core.errors import Mistake
from coterie.core.tree import Tree
from coterie.experiment.build import Experiment, build
from coterie.experiment.engine import this_machine
from coterie.experiment.settings import Settings
from coterie.loop.checkpoint import Checkpoints
from coterie.loop.federate import federate
from coterie.loop.plan import Resume, Round
from coterie.loop.store import Store
from coterie.models import huggingface_models
from coterie.processes.team import Team, owns
from coterie.track import RunFolder
from coterie.track.file_writing import disk_mistakes
from coterie.track.weights_file import pack_weights


class Order(NamedTuple):
    """What the leader decides after a round."""

    save: bool
    stop: bool


class Call(NamedTuple):
    """What the leader calls the others for: these settings, with nothing left open, into this folder."""

    settings: Settings
    folder: Path


def follow(team: Team) -> None:
    """What every process but the first does. Returns when the run is over, or where there is nothing to run.

    Raises:
        Mistake: this process cannot build what the leader has built.
        Lost: another process has ended.
    """
    _quiet()
    call: Call | None = team.gather(None)[0]
    if call is None:
        return
    experiment = build(call.settings, this_machine(), RunFolder(call.folder).start)
    team.gather(None)  # from here on everyone has built it
    checkpoints = Checkpoints(RunFolder(call.folder).checkpoint, team)
    found = checkpoints.load()
    newest: Resume | Round | None = found
    over = told(team).stop
    for round in () if over else federate(replace(experiment.plan, team=team), found):
        newest, order = round, told(team)
        if order.save:
            checkpoints.save(round)
        if order.stop:
            break
    assert newest is not None, "a run has at least one round"
    if not told(team).stop:
        write_weights(experiment, RunFolder(call.folder), newest.state, newest.store, team)


def told(team: Team, order: Order | None = None) -> Order:
    """The leader's order, which it gives here and the others receive. Collective."""
    given: Order | None = team.gather(order)[0]
    assert given is not None, "the leader has an order"
    return given


def write_weights(experiment: Experiment, folder: RunFolder, state: Tree, store: Store, team: Team) -> None:
    """The model, by the leader; or each client's own, by the process that keeps its state. Collective."""
    plan, models = experiment.plan, experiment.models
    own = plan.algorithm.traits.own_models
    mine = [client for client in plan.ids if owns(team, client)] if own else plan.ids[: team.rank == 0]
    for client in mine:
        architecture = plan.architecture(client)
        named = plan.tasks[architecture].whole(plan.personal(state, store, client))
        name = experiment.model_of(client) if own else None
        folder.write_weights(pack_weights(models[architecture], named, name), client if own else None)
        if not own and huggingface_models.is_huggingface_model(models[architecture]):
            with disk_mistakes(folder.huggingface):
                huggingface_models.export_checkpoint(models[architecture], named, folder.huggingface)
    team.gather(None)  # from here on all are written


def _quiet() -> None:
    """The leader speaks for all, and decides what an interruption means."""
    logging.getLogger("coterie").addHandler(logging.NullHandler())
    if threading.current_thread() is threading.main_thread():
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_IGN)


AGAIN = 1.0
"""Seconds until a second request counts: launchers pass on signals that their processes have had already."""


class Stopping:
    """Whether the user has asked for an end, and when that was."""

    def __init__(self) -> None:
        self.since = math.inf

    @property
    def wanted(self) -> bool:
        """Whether the user has."""
        return self.since < math.inf


@contextmanager
def stopping(team: Team) -> Iterator[Stopping]:
    """A block in which, for a team, the first Ctrl-C or polite request to end lets the round come to its end, since its
    other members cannot be left in the middle of it; the second ends the block at once.

    Raises:
        KeyboardInterrupt: at the second, and for a process alone at the first.
    """
    asked = Stopping()

    def ask(number: int, frame: FrameType | None) -> None:
        now = time.monotonic()
        if now - asked.since > AGAIN:
            raise KeyboardInterrupt("stopped at once; continue from the last checkpoint")
        if not asked.wanted:
            asked.since = now
            print("stopping after this round; once more stops at once", file=sys.stderr, flush=True)

    if team.size == 1 or threading.current_thread() is not threading.main_thread():
        yield asked
        return
    before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def in_launched(settings: Settings, size: int) -> Settings:
    """The settings with the number of processes that a launcher has started.

    Raises:
        Mistake: they ask for another number.
    """
    if settings.engine.workers not in ("auto", size):
        raise Mistake(
            f"engine.workers = {settings.engine.workers}: the launcher has started {size} processes; leave it out, "
            "or let the launcher start as many"
        )
    return replace(settings, engine=replace(settings.engine, workers=size))
