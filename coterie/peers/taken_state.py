"""A state that another participant has decided on: it is taken if it follows from the updates."""

from __future__ import annotations

from coterie.core.errors import Mistake
from coterie.core.tree import Tree
from coterie.peers.decision import Decision
from coterie.peers.message import MAX_BYTES
from coterie.peers.next_common_state import read_state, state_problem
from coterie.peers.signed_mailbox import SignedMailbox


def fetch_state(mailbox: SignedMailbox, number: int, decision: Decision) -> Tree | None:
    """Return the state after a round, as its decision names it; None if it is gone."""
    data = mailbox.state(number, decision.state, MAX_BYTES)
    return None if data is None else read_state(data)


def take_state(
    mailbox: SignedMailbox, number: int, decision: Decision, computed: Tree, before: Tree | None, suspect: str
) -> Tree:
    """Return the state that a decision names, if it is the computed one to rounding.

    Args:
        mailbox: where it lies.
        number: the round.
        decision: on that round.
        computed: the state that this participant has computed from the same updates.
        before: the state before the round; None before the first one.
        suspect: what may be another one here than at whoever decided, for the message.

    Raises:
        Mistake: it is not, or it is gone.
    """
    found = fetch_state(mailbox, number, decision)
    wrong = "is gone" if found is None else state_problem(found, computed, before)
    if found is None or wrong is not None:
        raise Mistake(
            f"round {number}: the state that {decision.author} has decided on {wrong}: {suspect} differs from "
            f"that of {decision.author}, or {decision.author} is not honest; compare them, and start again in a "
            "new mailbox"
        )
    return found
