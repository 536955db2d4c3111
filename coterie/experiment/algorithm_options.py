"""The options of [algorithm] whose defaults follow from one another."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from coterie.algorithms import ALGORITHMS
from coterie.algorithms.schedules import NEEDS_LENGTH
from coterie.core.errors import Mistake, mistakes_in
from coterie.experiment.settings import Settings


def find_algorithm(settings: Settings) -> Callable[..., Any]:
    """Return the function that [algorithm] names.

    Raises:
        Mistake: there is no such function.
    """
    with mistakes_in("algorithm"):
        return ALGORITHMS.find(settings.algorithm["name"], settings.folders)


def complete_algorithm(settings: Settings) -> Settings:
    """Return the settings with the options that the algorithm's function fills in; see `options.completes_options`.

    A schedule that ends, over rounds, ends with the run unless the file says when. A run that goes on for more rounds
    keeps the length that it began with.

    Raises:
        Mistake: the algorithm does not exist, or an option is out of its range.
    """
    settings = _complete_schedule(settings)
    complete = getattr(find_algorithm(settings), "complete_options", None)
    if complete is None:
        return settings
    with mistakes_in("algorithm"):
        return replace(settings, algorithm=settings.algorithm | complete(settings.algorithm))


def _complete_schedule(settings: Settings) -> Settings:
    """Return the settings with the length of a schedule over rounds."""
    options = settings.algorithm
    ends = options.get("schedule") in NEEDS_LENGTH and options.get("schedule_over") == "rounds"
    if not ends or "schedule_length" not in options or options["schedule_length"] is not None:
        return settings
    return replace(settings, algorithm=options | {"schedule_length": settings.rounds})


def remarks_on_schedule(settings: Settings) -> list[str]:
    """Return what the user should know of rounds after the end of the schedule, a sentence; none where there are none.

    Raises:
        Mistake: the learning rate would be 0 in them.
    """
    options = settings.algorithm
    if options.get("schedule") not in NEEDS_LENGTH or options.get("schedule_over") != "rounds":
        return []
    length, end = options["schedule_length"], options["lr_end"] or 0.0
    if settings.rounds <= length:
        return []
    if not end:
        raise Mistake(
            f"the learning rate is 0 from then on, and rounds = {settings.rounds}; set lr_end, or run no more rounds",
            key="schedule_length",
            value=length,
            table="algorithm",
        )
    return [f"the schedule ends with round {length}: later rounds keep the learning rate {end:g} (algorithm.lr_end)"]


def adopt_algorithm(settings: Settings, earlier: Settings) -> Settings:
    """Return the settings with what they leave to the algorithm's function as an earlier run has it.

    Args:
        settings: what is to be run.
        earlier: those of the run, complete.
    """
    if settings.algorithm["name"] != earlier.algorithm["name"]:
        return settings
    complete = complete_algorithm(settings).algorithm
    left_open = {k for k, value in settings.algorithm.items() if value is None and complete[k] is not None}
    return replace(settings, algorithm=settings.algorithm | {k: earlier.algorithm[k] for k in left_open})
