"""The start of a run without a server: round 0 has no work, and decides who is there and from which state all start."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

from coterie.core.algorithm import Federation
from coterie.core.digests import digest
from coterie.core.errors import few
from coterie.core.packing import pack
from coterie.core.tree import Tree
from coterie.loop.plan import Plan
from coterie.peers.decision import Decision
from coterie.peers.letter import Letter
from coterie.peers.pace import Pace
from coterie.peers.signed_mailbox import SignedMailbox
from coterie.peers.taken_state import take_state


def agree_on_start(plan: Plan, mailbox: SignedMailbox, pace: Pace, say: Callable[[str], None]) -> Tree:
    """Wait for all participants, and return the state that all start from.

    Raises:
        Mistake: the others start from another state, as with other weights.
    """
    mailbox.announce()
    mailbox.put(0, "here", {"examples": len(plan.clients[mailbox.me])})
    first = time.monotonic()
    until, reminded = first + pace.start_deadline, 0.0
    while (decision := mailbox.decision(0)) is None:
        here = {name: letter for name in plan.ids if (letter := _find_letter(mailbox, name)) is not None}
        missing = [name for name in plan.ids if name not in here]
        late = time.monotonic() >= until and len(here) >= pace.min_clients
        if missing and time.monotonic() - max(first, reminded) > pace.deadline / 4:
            say(f"waiting for {few([_describe(mailbox, name) for name in missing], 10)}")
            reminded = time.monotonic() + pace.deadline
        if late or (not missing and pace.is_turn_of(mailbox.me, 0, here, first)):
            _decide(plan, mailbox, here, missing)
        elif missing:
            first = time.monotonic()
        mailbox.pause(min(0.05, pace.turn))
    state = _initial_state(plan, mailbox, list(decision.letters))
    if digest(pack(state)) == decision.state:
        return plan.to_device(state)
    suspect = "the model or the weights that this participant starts from"
    return plan.to_device(take_state(mailbox, 0, decision, state, None, suspect))


def _find_letter(mailbox: SignedMailbox, name: str) -> Letter | None:
    letter = mailbox.read(0, name, "here")
    return letter if isinstance(letter, Letter) else None


def _describe(mailbox: SignedMailbox, name: str) -> str:
    """Return who is missing, and what it runs that is not what this participant runs."""
    why = mailbox.differs(name)
    return name if why is None else f"{name} ({why})"


def _decide(plan: Plan, mailbox: SignedMailbox, here: Mapping[str, Letter], missing: list[str]) -> None:
    """Try to decide who is there."""
    packed = pack(_initial_state(plan, mailbox, list(here)))
    letters = {name: letter.digest for name, letter in here.items()}
    mailbox.decide(0, Decision(digest(packed), letters, [], frozenset(missing)), packed)


def _initial_state(plan: Plan, mailbox: SignedMailbox, counted: list[str]) -> Tree:
    """Return the first common state, given who is there."""
    letters = [mailbox.read(0, name, "here") for name in counted]
    examples = [each.facts.get("examples") for each in letters if isinstance(each, Letter)]
    total = sum(number for number in examples if type(number) is int and number > 0)
    one = next(iter(plan.initial.values())) if len(plan.initial) == 1 else None
    return plan.algorithm.server.initial_state(one, Federation(plan.ids, lambda: total, plan.seed_set))
