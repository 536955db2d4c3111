"""Checks of a rule's parameters, and of the number of updates in a round."""

from __future__ import annotations

from coterie.core.errors import Mistake, require


def require_number(num_byzantine: int) -> None:
    """Check that a number of attackers is a whole number, 0 or more.

    Raises:
        Mistake: it is not.
    """
    right = isinstance(num_byzantine, int) and not isinstance(num_byzantine, bool) and num_byzantine >= 0
    require("num_byzantine", num_byzantine, right, "a whole number, 0 or more")


def require_updates(rule: str, n: int, num_byzantine: int, least: int | None = None) -> None:
    """Check that n updates of a round are enough for a rule: `least`, by default 2 f + 1.

    Args:
        rule: its name, for the message.
        n: how many updates the round has.
        num_byzantine: f.
        least: how many the rule needs; by default 2 f + 1, since with fewer the attackers could be the majority.

    Raises:
        Mistake: there are too few.
    """
    least = 2 * num_byzantine + 1 if least is None else least
    if n < least:
        sentence = f"{rule} then needs {least} updates or more, and has {n}; lower it or ask a larger cohort"
        raise Mistake(sentence, key="num_byzantine", value=num_byzantine)
