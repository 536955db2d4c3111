"""What all participants must know of one another before the first round: a letter of each, which is never replaced."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from coterie.core.errors import Mistake, few
from coterie.peers.letter import Letter
from coterie.peers.message import Unusable
from coterie.peers.signed_mailbox import SignedMailbox

REMINDER_SECONDS = 15.0
"""Pause before the user is told who is waited for."""


def exchange_letters(
    mailbox: SignedMailbox,
    kind: str,
    facts: Mapping[str, Any],
    body: bytes = b"",
    *,
    max_bytes: int = 0,
    deadline: float = 600.0,
    say: Callable[[str], None] = lambda sentence: None,
) -> dict[str, Letter]:
    """Leave this participant's letter, and return those of all participants of the roster, in the roster's order.

    The letters stay, so a participant that starts again finds them.

    Args:
        mailbox: of the run.
        kind: what the letters are about.
        facts, body: what this participant's says. If it has left another one, that one holds, and is returned.
        max_bytes: length of the longest body.
        deadline: seconds to wait for all.
        say: is told who is waited for.

    Raises:
        Mistake: not all have left one by the deadline.
    """
    mailbox.leave(0, kind, facts, body, max_bytes)
    began, reminded = time.monotonic(), False
    while True:
        found = {name: mailbox.read(0, name, kind, max_bytes) for name in mailbox.roster.keys}
        letters = {name: letter for name, letter in found.items() if isinstance(letter, Letter)}
        missing = [_describe(mailbox, name, found[name]) for name in found if name not in letters]
        if not missing:
            return letters
        waited = time.monotonic() - began
        if waited >= deadline:
            raise Mistake(
                f"{_few(missing)} did not come within {deadline:g} seconds, and a run begins with all participants; "
                "start them at about one time, with the same file"
            )
        if waited >= min(REMINDER_SECONDS, deadline / 4) and not reminded:
            say(f"waiting for {_few(missing)}")
            reminded = True
        mailbox.pause(0.1)


def _describe(mailbox: SignedMailbox, name: str, found: Letter | Unusable | None) -> str:
    """Return who is missing, and why if that can be known."""
    why = f"its letter {found.why}" if isinstance(found, Unusable) else mailbox.differs(name)
    return name if why is None else f"{name} ({why})"


def _few(names: Sequence[str]) -> str:
    return few(list(names), 10)
