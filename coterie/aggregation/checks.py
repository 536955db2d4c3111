"""What rules ask of their parameters and of a round."""

from __future__ import annotations

from coterie.core.errors import Mistake, require


def require_number(num_byzantine: int) -> None:
    """Refuse a number of attackers that is no whole number from 0.

    Raises:
        Mistake: it is none.
    """
    right = isinstance(num_byzantine, int) and not isinstance(num_byzantine, bool) and num_byzantine >= 0
    require("num_byzantine", num_byzantine, right, "a whole number, 0 or more")


def require_updates(rule: str, n: int, num_byzantine: int, least: int | None = None) -> None:
    """Refuse a round of n updates if fewer than `least` are too few; 2 f + 1 unless given, below which the attackers
    could be the majority.

    Raises:
        Mistake: there are too few.
    """
    least = 2 * num_byzantine + 1 if least is None else least
    if n < least:
        raise Mistake(
            f"aggregation.num_byzantine = {num_byzantine}: {rule} then needs {least} updates or more, "
            f"and has {n}; lower it or ask a larger cohort"
        )
