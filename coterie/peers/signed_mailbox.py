"""A mailbox of signed letters, without anyone who runs it: what lies where, and how a round is decided in it.

    RUN/3/north.update          what north sends up in round 3
    RUN/3/north.here            north has come, or come back, in round 3
    RUN/3/decision.1            which updates count in round 3, and the digest of the state after it
    RUN/3/state.<digest>        that state
    RUN/0/north.facts           what north says before the first round; it is created, and stays
    start/north.start           what north wants to run

Nothing is listed. A decision is created, and creating succeeds once, so all participants read the same one, whatever
each of them has seen and however late it is. The state lies there before the decision that names it, so whoever can
read a decision can go on from it. If what stands as the first decision cannot be one, since it has no right signature,
the second counts, and so on. RUN is the beginning of the digest of what is run, so another run is never in the way.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, TypeVar

from coterie.core.digests import digest
from coterie.core.errors import Mistake, reason
from coterie.peers.decision import Decision, read_decision
from coterie.peers.keys import PrivateKey
from coterie.peers.letter import MAX_HEAD_BYTES, Letter, Place, read_letter, write_letter
from coterie.peers.message import Unusable
from coterie.peers.names import spell
from coterie.peers.objects import Objects
from coterie.peers.roster import Roster

ROUNDS_KEPT = 3
"""Updates of this many rounds stay, so that slow participants still find the last ones."""

MAX_DECISIONS = 20
"""Decisions on one round that are looked at: all but one were written by somebody who may not decide."""

RETRY_SECONDS = 2.0
"""Pause after a place that did not answer."""

_ANY_RUN = Place("", 0, "start")

T = TypeVar("T")


class SignedMailbox:
    """One participant's way into the mailbox of one run.

    Args:
        objects: where it is.
        roster: who takes part.
        me: this participant.
        key: its private key.
        parts: digests of what is run, by what they are of; all of them together name the run.
        patience: seconds for which a place that does not answer is asked again.
        say: gets a sentence when it does not answer.

    Raises:
        Mistake: this participant is not in the roster, or has another key there.
    """

    def __init__(
        self,
        objects: Objects,
        roster: Roster,
        me: str,
        key: PrivateKey,
        parts: Mapping[str, str],
        patience: float = 600.0,
        say: Callable[[str], None] = lambda sentence: None,
    ) -> None:
        if me not in roster.keys:
            raise Mistake(f"{me} is not in the roster, which has {', '.join(sorted(roster.keys))}")
        if roster.keys[me] != key.public_key:
            raise Mistake(
                f"the roster has another public key for {me} than that of the private key here, {key.public_key}; "
                "correct the roster at every participant, or name the right key with --key"
            )
        self.objects, self.roster, self.me, self.key, self.parts = objects, roster, me, key, dict(parts)
        self.run = digest(json.dumps({**self.parts, "roster": roster.digest}, sort_keys=True).encode())
        self.patience, self.say = patience, say
        self._decisions: dict[int, Decision] = {}

    def put(self, round: int, kind: str, facts: Mapping[str, Any], body: bytes = b"", send: bool = True) -> str:
        """Leave a letter in this participant's name, and return its digest; only that, unless it is to be sent."""
        data = write_letter(self.key, self.me, Place(self.run, round, kind), facts, body)
        if send:
            self._patiently(lambda: self.objects.put(self._name(round, f"{spell(self.me)}.{kind}"), data))
        return digest(data)

    def leave(self, round: int, kind: str, facts: Mapping[str, Any], body: bytes = b"", max_bytes: int = 0) -> None:
        """Leave a letter in this participant's name, unless it has left one there, which is never replaced.

        What somebody else has put there in its name is replaced.
        """
        name = self._name(round, f"{spell(self.me)}.{kind}")
        data = write_letter(self.key, self.me, Place(self.run, round, kind), facts, body)
        created = self._patiently(lambda: self.objects.create(name, data))
        if not created and not isinstance(self.read(round, self.me, kind, max_bytes), Letter):
            self._patiently(lambda: self.objects.put(name, data))

    def announce(self) -> None:
        """Leave word of what this participant runs, where those look who run something else."""
        data = write_letter(self.key, self.me, _ANY_RUN, self.parts)
        self._patiently(lambda: self.objects.put(f"start/{spell(self.me)}.start", data))

    def differs(self, sender: str) -> str | None:
        """Return in a few words what a participant runs that is not what this one runs; None if it is unknown.

        Parts that only one of them has are not compared: one may know its data before the other.
        """
        data = self._patiently(lambda: self.objects.read(f"start/{spell(sender)}.start", MAX_HEAD_BYTES))
        if not isinstance(data, bytes):
            return None
        letter = read_letter(data, self.roster, _ANY_RUN, sender)
        if isinstance(letter, Unusable):
            return f"its first message {letter.why}"
        different = [name for name, each in self.parts.items() if letter.facts.get(name, each) != each]
        return f"it runs another {', '.join(different)}" if different else None

    def read(self, round: int, sender: str, kind: str, max_bytes: int = 0) -> Letter | Unusable | None:
        """Return a participant's letter, why it does not count, or None if there is none.

        Args:
            round, sender, kind: which letter.
            max_bytes: length of the longest tree in it.
        """
        name = self._name(round, f"{spell(sender)}.{kind}")
        data = self._patiently(lambda: self.objects.read(name, max_bytes + MAX_HEAD_BYTES))
        if not isinstance(data, bytes):
            return data
        return read_letter(data, self.roster, Place(self.run, round, kind), sender)

    def is_heard_of(self, round: int, sender: str, max_bytes: int) -> bool:
        """Return whether a participant has left a letter in a round, whose tree has `max_bytes` at most."""
        kinds = {"here": 0, "update": max_bytes}
        return any(isinstance(self.read(round, sender, kind, size), Letter) for kind, size in kinds.items())

    def decide(self, round: int, decision: Decision, state: bytes) -> None:
        """Try to decide a round. Whether this one or another's holds, `decision` says afterwards."""
        self._patiently(lambda: self.objects.put(self._name(round, f"state.{decision.state}"), state))
        data = write_letter(self.key, self.me, Place(self.run, round, "decision"), decision.facts())
        for attempt in range(1, MAX_DECISIONS + 1):
            name = self._name(round, f"decision.{attempt}")
            created = self._patiently(partial(self.objects.create, name, data))
            if created or isinstance(self._read_decision(round, attempt), Decision):
                return

    def decision(self, round: int) -> Decision | None:
        """Return the decision on a round, None before there is one.

        Raises:
            Mistake: somebody has filled its place with letters that cannot be one.
        """
        if round in self._decisions:
            return self._decisions[round]
        for attempt in range(1, MAX_DECISIONS + 1):
            found = self._read_decision(round, attempt)
            if found is None:
                return None
            if isinstance(found, Decision):
                self._decisions = {round: found, **dict(list(self._decisions.items())[:1])}
                return found
        raise Mistake(
            f"{self.objects.where}: somebody who is not in the roster writes into round {round}; keep strangers out, "
            "and start again in a new mailbox"
        )

    def _read_decision(self, round: int, attempt: int) -> Decision | Unusable | None:
        name = self._name(round, f"decision.{attempt}")
        data = self._patiently(lambda: self.objects.read(name, MAX_HEAD_BYTES))
        if not isinstance(data, bytes):
            return data
        letter = read_letter(data, self.roster, Place(self.run, round, "decision"))
        return letter if isinstance(letter, Unusable) else read_decision(letter, self.roster)

    def state(self, round: int, wanted: str, max_bytes: int) -> bytes | None:
        """Return the packed state after a round, whose digest is `wanted`; None if it is not there any more."""
        name = self._name(round, f"state.{wanted}")
        data = self._patiently(lambda: self.objects.read(name, max_bytes))
        return data if isinstance(data, bytes) and digest(data) == wanted else None

    def clean(self, round: int) -> None:
        """Remove what this participant has left in the round that nobody needs any more; decisions stay."""
        old = round - ROUNDS_KEPT
        if old < 0:
            return
        for kind in ("update", "here"):
            self.objects.remove(self._name(old, f"{spell(self.me)}.{kind}"))
        decision = self.decision(old)
        if decision is not None and decision.author == self.me:
            self.objects.remove(self._name(old, f"state.{decision.state}"))

    def pause(self, seconds: float) -> None:
        """Wait before the next look."""
        time.sleep(seconds)

    def _name(self, round: int, last: str) -> str:
        return f"{self.run[:16]}/{round}/{last}"

    def _patiently(self, ask: Callable[[], T]) -> T:
        """Ask the place, again and again while it does not answer.

        Raises:
            Mistake: it has not answered for as long as `patience`.
        """
        until, complained = time.monotonic() + self.patience, False
        while True:
            try:
                return ask()
            except Mistake:
                raise
            except Exception as error:  # a network's and a storage package's errors are of many kinds
                if time.monotonic() > until:
                    raise Mistake(
                        f"{self.objects.where}: the mailbox does not answer ({reason(error)}); continue with --resume "
                        "when it does"
                    ) from error
                if not complained:
                    self.say(f"{self.objects.where}: does not answer ({reason(error)}); it is asked again")
                complained = True
                time.sleep(min(RETRY_SECONDS, self.patience))
