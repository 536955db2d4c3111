"""Refuse work that cannot end: that no memory holds, or that no machine finishes in a lifetime."""

from __future__ import annotations

from collections.abc import Sized

from coterie.core.errors import Mistake
from coterie.experiment.engine_choice import PROCESS_BYTES, Machine, Work, format_seconds
from coterie.experiment.settings import Settings

CLIENT_BYTES = 200
"""What a client of a population that is made on demand takes: its id, and its places in lists."""
LONGEST_SECONDS = 3e11
"""Seconds of one core, ten thousand years. A large GPU does the work of a thousand cores."""


def check_population(clients: Sized, machine: Machine) -> None:
    """Refuse more clients than the memory holds the ids of.

    Raises:
        Mistake: there are more.
    """
    most = machine.memory // 2 // CLIENT_BYTES
    if len(clients) > most:
        raise Mistake(
            f"this machine's memory holds the ids of {most:,} clients at most; lower it",
            key="num_clients",
            value=len(clients),
            table="data",
        )


def check_work(settings: Settings, work: Work, machine: Machine) -> None:
    """Refuse a run whose local work does not fit into memory, whose processes do not, or that would never end.

    Raises:
        Mistake: it is such a run; the sentence names the key to lower.
    """
    workers = settings.engine.workers
    if workers != "auto" and workers * (PROCESS_BYTES + work.data) > machine.memory:
        most = max(1, machine.memory // (PROCESS_BYTES + work.data))
        raise Mistake(
            f"so many processes do not fit into this machine's memory; give {most} or fewer",
            key="workers",
            value=workers,
            table="engine",
        )
    local = next((key for key in ("local_steps", "local_epochs") if settings.algorithm.get(key) is not None), "lr")
    if work.order > machine.memory // 2:
        raise Mistake(
            f"the batches of one client in one round would take {work.order / 2**30:,.0f} GiB, and this machine has "
            f"{machine.memory / 2**30:,.0f}; lower it, and give more rounds instead",
            key=local,
            value=settings.algorithm.get(local),
            table="algorithm",
        )
    if work.seconds > LONGEST_SECONDS:
        raise Mistake(
            f"the run would take {format_seconds(work.seconds)} of one core, by a rough estimate; lower it, or "
            f"algorithm.{local}",
            key="rounds",
            value=settings.rounds,
        )
