"""The options of [algorithm] whose defaults follow from one another."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from coterie.algorithms import ALGORITHMS
from coterie.core.errors import mistakes_in
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

    Raises:
        Mistake: the algorithm does not exist, or an option is out of its range.
    """
    complete = getattr(find_algorithm(settings), "complete_options", None)
    if complete is None:
        return settings
    with mistakes_in("algorithm"):
        return replace(settings, algorithm=settings.algorithm | complete(settings.algorithm))


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
