"""How long participants wait for one another, and whose turn it is to decide."""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class Pace:
    """How long participants wait for one another, in seconds.

    Attributes:
        deadline: for those who are waited for in a round, after the own work.
        start_deadline: for all to come, before the first round.
        min_clients: updates below which no round is decided, however late it is; or as many as a cohort has.
        turn: between one that may decide and the next, so that usually one alone does.
    """

    deadline: float = 60.0
    start_deadline: float = 600.0
    min_clients: int = 1
    turn: float = 0.5

    def is_turn_of(self, me: str, number: int, able: Iterable[str], since: float) -> bool:
        """Return whether a participant may decide a round: one after another, each round another one first.

        Args:
            me: who asks.
            number: the round.
            able: those who may decide it.
            since: when there was something to decide, by the clock `time.monotonic`.
        """
        order = sorted({*able, me})
        place = (order.index(me) - number % len(order)) % len(order)
        return time.monotonic() >= since + place * self.turn
