"""The decision on a round: which updates count in it, and the state that follows.

Whoever creates it first has decided; see `coterie.peers.signed_mailbox`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from coterie.core.printable import printable
from coterie.peers.letter import Letter
from coterie.peers.message import MAX_REASON_LENGTH, Unusable
from coterie.peers.roster import Roster

_DIGEST = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class Decision:
    """What holds for a round, for everyone.

    Attributes:
        state: SHA-256 of the packed common state after the round.
        letters: participant -> SHA-256 of the letter that was looked at. Those that are also in `dropped` do not count.
        dropped: {"client", "why"} of each of the cohort that does not count.
        absent: those whom nobody waits for in the next round, unless they are heard of.
        author: who decided.
    """

    state: str
    letters: Mapping[str, str]
    dropped: Sequence[Mapping[str, str]]
    absent: frozenset[str]
    author: str = ""

    def facts(self) -> dict[str, Any]:
        """Return what a letter says of it."""
        return {
            "state": self.state,
            "letters": dict(self.letters),
            "dropped": [dict(each) for each in self.dropped],
            "absent": sorted(self.absent),
        }

    def counts(self, client: str) -> bool:
        """Return whether a participant's update counts."""
        return client in self.letters and all(each["client"] != client for each in self.dropped)


def read_decision(letter: Letter, roster: Roster) -> Decision | Unusable:
    """Return the decision that a letter holds, or why it holds none."""
    facts, names = letter.facts, roster.keys
    state, letters, dropped, absent = (facts.get(key) for key in ("state", "letters", "dropped", "absent"))
    if not (isinstance(letters, dict) and isinstance(dropped, list) and isinstance(absent, list)):
        return Unusable("is not a decision on a round")
    right = (
        _is_digest(state)
        and all(name in names and _is_digest(each) for name, each in letters.items())
        and all(isinstance(name, str) and name in names for name in absent)
        and all(_is_entry(each) and each["client"] in names for each in dropped)
    )
    if not right:
        return Unusable("is not a decision on a round")
    entries = [{"client": each["client"], "why": printable(each["why"])[:MAX_REASON_LENGTH]} for each in dropped]
    return Decision(str(state), letters, entries, frozenset(absent), letter.sender)


def _is_digest(value: object) -> bool:
    return isinstance(value, str) and _DIGEST.fullmatch(value) is not None


def _is_entry(value: object) -> bool:
    return (
        isinstance(value, dict)
        and value.keys() == {"client", "why"}
        and all(isinstance(text, str) for text in value.values())
    )
