"""The letters of one round, as they arrive."""

from __future__ import annotations

from coterie.peers.decision import Decision
from coterie.peers.letter import Letter
from coterie.peers.message import Form, Unusable
from coterie.peers.signed_mailbox import SignedMailbox


class RoundLetters:
    """What is known of the updates of a round.

    Args:
        mailbox: where they lie.
        number: the round.
        cohort: who is asked, in its order.
        before: the decision on the round before.
        form: what an honest update looks like.

    Attributes:
        answered: whose own letter was read. What lies in a participant's name without its signature does not count.
    """

    def __init__(self, mailbox: SignedMailbox, number: int, cohort: list[str], before: Decision, form: Form) -> None:
        self.mailbox, self.number, self.cohort, self.before, self.form = mailbox, number, cohort, before, form
        self.answered: set[str] = set()
        self._found: dict[str, Letter | Unusable] = {}

    def read(self) -> None:
        """Read the letters that were not read yet, or could not be used when they were."""
        for name in self.cohort:
            if not isinstance(self._found.get(name), Letter):
                found = self.mailbox.read(self.number, name, "update", self.form.max_bytes)
                if found is not None:
                    self._found[name] = self._check_start(found)
                if isinstance(found, Letter):
                    self.answered.add(name)

    def usable(self) -> dict[str, Letter]:
        """Return the letters that can be used so far, by sender, in the order of the cohort."""
        return {name: found for name in self.cohort if isinstance(found := self._found.get(name), Letter)}

    def reasons(self) -> dict[str, str]:
        """Return why the others that were found cannot be used, by the name in which they lie."""
        return {name: found.why for name, found in self._found.items() if isinstance(found, Unusable)}

    def who_to_wait_for(self) -> list[str]:
        """Return who has not answered, and is not absent or has been heard of in the last two rounds."""
        return [name for name in self.cohort if name not in self.answered and self._is_expected(name)]

    def absent(self) -> frozenset[str]:
        """Return whom nobody waits for in the next round, unless they are heard of."""
        return frozenset({*self.before.absent, *self.cohort} - self.answered)

    def of(self, decision: Decision) -> dict[str, Letter] | None:
        """Return the letters that were decided on, with exactly these bytes; None if one of them is not there."""
        found: dict[str, Letter] = {}
        for name, wanted in decision.letters.items():
            letter = self._found.get(name)
            if not isinstance(letter, Letter) or letter.digest != wanted:
                again = self.mailbox.read(self.number, name, "update", self.form.max_bytes)
                letter = None if again is None else self._check_start(again)
            if not isinstance(letter, Letter) or letter.digest != wanted:
                return None
            found[name] = letter
        return found

    def _is_expected(self, name: str) -> bool:
        if name not in self.before.absent:
            return True
        last = (self.number, self.number - 1)
        return any(self.mailbox.is_heard_of(each, name, self.form.max_bytes) for each in last)

    def _check_start(self, found: Letter | Unusable) -> Letter | Unusable:
        """Return a letter whose work started from the common state."""
        if isinstance(found, Letter) and found.facts.get("state") != self.before.state:
            return Unusable("started from another state than that of the last round")
        return found
