"""Rounds without a server in which all participants end with the same state, for any algorithm with a server's half.

Each participant holds the common state S, does its own work of a round, and leaves its update in the mailbox, signed.
When the updates of all who are waited for are there, or at the deadline, one of them decides: it computes the next S as
a server would, leaves it, and creates the decision, which names the updates that count and the digest of S. The first
decision holds. Everyone else computes S from the same updates; where that gives other bits, as on another processor,
the S that the decision names is taken, if it is the same to rounding.

So two participants that see different updates cannot part: what each has seen decides nothing. One that was away reads
the newest decision and its S, and is in again.

Legend: N participants, n of them in a round's cohort.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from coterie.core import tree
from coterie.core.digests import digest
from coterie.core.engine import Reply, count_examples
from coterie.core.errors import Mistake, few
from coterie.core.packing import pack
from coterie.core.tree import Tree
from coterie.loop.check_update import broken_leaf
from coterie.loop.jobs import Assignment, run_jobs
from coterie.loop.measure import measure_round
from coterie.loop.plan import Plan, Resume, Round
from coterie.loop.replies import encode
from coterie.loop.store import Store
from coterie.loop.tally import Tally
from coterie.loop.template import Templates
from coterie.peers.decision import Decision
from coterie.peers.letter import Letter
from coterie.peers.message import form_of_round
from coterie.peers.next_common_state import Outcome, next_common_state
from coterie.peers.own_plan import assignment_of, own_plan, require_computable
from coterie.peers.pace import Pace
from coterie.peers.round_letters import RoundLetters
from coterie.peers.signed_mailbox import SignedMailbox
from coterie.peers.start import agree_on_start
from coterie.peers.taken_state import fetch_state, take_state

NO_ANSWER = "did not answer in time"

NOT_MEASURED = {"test_loss": None, "test_accuracy": None}
"""The measures of a round whose state this participant never held."""

BYSTANDER_DEADLINES = 4
"""Deadlines after which a participant decides that has no work in a round, and so waits while others do theirs."""


@dataclass
class _Work:
    """This participant's own work of a round."""

    digest: str  # of its letter
    reply: Reply | None  # None where it could not work
    nbytes: int = 0


def take_part(
    plan: Plan,
    mailbox: SignedMailbox,
    pace: Pace | None = None,
    resume: Resume | None = None,
    say: Callable[[str], None] = lambda sentence: None,
) -> Iterator[Round]:
    """Take part in a federation without a server, yielding each round when it is decided.

    A round that was decided while this participant was away is yielded too, without measures. Save a checkpoint after
    every round: a client state from before it can be made again, and an older one cannot.

    Args:
        plan: as for a simulation, with all participants as `ids`. Of its clients only this participant is looked at.
        mailbox: this participant's way into the mailbox. It says who this participant is.
        pace: how long participants wait for one another.
        resume: continue from here.
        say: gets a sentence where the user should know something; the run goes on.

    Raises:
        Mistake: participants cannot compute this plan's server half for themselves, what this participant needs is no
            longer in the mailbox, or a decision names a state that does not follow from its updates.
    """
    require_computable(plan, mailbox)
    yield from _Participant(plan, mailbox, pace or Pace(), resume, say).rounds(resume)


class _Participant:
    """What one participant knows."""

    def __init__(
        self, plan: Plan, mailbox: SignedMailbox, pace: Pace, resume: Resume | None, say: Callable[[str], None]
    ) -> None:
        self.plan, self.mailbox, self.me, self.pace, self.say = plan, mailbox, mailbox.me, pace, say
        self.templates = Templates()
        self.store, self.began = resume.store if resume else Store(), time.perf_counter()
        self.elapsed = resume.elapsed if resume else 0.0
        self.state: Tree = {}
        self.digest = ""
        self.returning = True

    def rounds(self, resume: Resume | None) -> Iterator[Round]:
        """Yield every round after the one that was saved."""
        last = resume.round if resume else 0
        if resume is not None and last and self.mailbox.decision(last) is None:
            raise Mistake(
                f"{self.mailbox.objects.where}: has no round {last} of this run, which {self.me} has done; give "
                "it the mailbox of the run, or start another run with --out"
            )
        self._hold(
            self.plan.to_device(resume.state)
            if resume
            else agree_on_start(self.plan, self.mailbox, self.pace, self.say)
        )
        for number in range(last + 1, self.plan.rounds + 1):
            yield self._round(number)

    def _hold(self, state: Tree) -> None:
        self.state, self.digest = state, digest(pack(state))

    # A round.

    def _round(self, number: int) -> Round:
        """Take part in one round, or follow what the others have decided."""
        started, before = time.perf_counter(), self.mailbox.decision(number - 1)
        if before is None:
            raise Mistake(f"{self.mailbox.objects.where}: the mailbox has lost round {number - 1}; start in a new one")
        decision = self.mailbox.decision(number)
        mine = decision is not None and self.me in decision.letters
        can_work = self.digest == before.state or self._catch_up(number - 1, before)
        if decision is not None and (not mine or not can_work):
            return self._follow(number, decision, mine, started)
        if not can_work:
            raise Mistake(
                f"{self.mailbox.objects.where}: the state of round {number - 1} is gone, so this participant cannot go "
                "on; start in a new mailbox"
            )
        now = self.plan.in_round(number)
        cohort = now.cohort.draw(now.ids, now.rng_seed, number)
        work = self._assignment(now, number)
        template = self.templates.of_round(now, now.algorithm.server.broadcast(self.state))(work)
        form = form_of_round(now, template)
        if self.returning:
            self.mailbox.put(number, "here", {})
        own = self._work(now, number, work, decision is None) if self.me in cohort else None
        letters = RoundLetters(self.mailbox, number, cohort, before, form)
        decision = decision or self._wait(now, letters)
        if own is not None and decision.letters.get(self.me) not in (None, own.digest):
            self.say(f"round {number}: done again with other results, so this is another machine or another version")
        return self._finish(now, letters, decision, own, started)

    def _assignment(self, now: Plan, number: int) -> Assignment:
        return assignment_of(now, number, self.me, self.store)

    def _work(self, now: Plan, number: int, work: Assignment, send: bool) -> _Work:
        """Do this participant's work of a round, and leave the update, unless it lies there already."""
        why, reply = None, None
        sizes = {name: len(held) for name, held in work.job.data.items()}
        if not count_examples(now.algorithm, sizes):
            why = "has no examples"
        else:
            jobs = run_jobs(now, now.algorithm.server.broadcast(self.state), [{self.me: work}])
            ((_, reply),) = encode(now, jobs)
            broken = broken_leaf(reply.state, {"algorithm": work.job.state, "up": work.codec_state})
            if broken is not None:
                why = f"the client's own {broken} holds numbers that are not finite"
        body = b"" if reply is None or why is not None else pack(reply.update)
        weighting = {} if reply is None else {kind: float(value) for kind, value in reply.weighting.items()}
        facts = {"weighting": weighting, "state": self.digest, **({} if why is None else {"why": why})}
        return _Work(self.mailbox.put(number, "update", facts, body, send), reply, len(body))

    def _wait(self, now: Plan, letters: RoundLetters) -> Decision:
        """Wait until the round is decided, and decide it when it is this participant's turn."""
        number, cohort = letters.number, letters.cohort
        patience = self.pace.deadline * (1 if self.me in cohort else BYSTANDER_DEADLINES)
        until, complete_since, pause = time.monotonic() + patience, None, 0.02
        wanted = min(self.pace.min_clients, len(cohort))
        while (decision := self.mailbox.decision(number)) is None:
            letters.read()
            usable, now_is = list(letters.usable()), time.monotonic()
            complete = len(usable) >= wanted and not letters.who_to_wait_for()
            complete_since = (complete_since or now_is) if complete else None
            since = complete_since if complete_since is not None else until
            if now_is >= until and not complete and len(usable) < wanted:
                missing = [name for name in cohort if name not in letters.answered]
                self.say(f"round {number}: {len(usable)} of at least {wanted} updates; waiting for {few(missing, 10)}")
                until = now_is + patience
            elif (complete or now_is >= until) and self.pace.is_turn_of(self.me, number, usable, since):
                self._decide(now, letters)
                continue
            self.mailbox.pause(pause)
            pause = min(1.5 * pause, 0.5)
        return decision

    def _decide(self, now: Plan, letters: RoundLetters) -> None:
        """Compute the next state from what is there, and try to make that the decision."""
        usable = letters.usable()
        outcome = self._outcome(now, letters, usable, letters.reasons())
        packed = pack(outcome.state)
        digests = {name: letter.digest for name, letter in usable.items()}
        dropped = [dict(entry) for entry in outcome.tally.dropped]
        self.mailbox.decide(letters.number, Decision(digest(packed), digests, dropped, letters.absent()), packed)

    def _outcome(
        self, now: Plan, letters: RoundLetters, counted: Mapping[str, Letter], why: Mapping[str, str]
    ) -> Outcome:
        """Return what follows from some letters, given why those of others do not count."""
        reasons = {name: why.get(name, NO_ANSWER) for name in letters.cohort if name not in counted}
        return next_common_state(now, letters.number, self.state, letters.cohort, counted, reasons, letters.form)

    # What follows from a decision.

    def _finish(self, now: Plan, letters: RoundLetters, decision: Decision, own: _Work | None, started: float) -> Round:
        """Take over what was decided, and return the round with this participant's own measures."""
        number, state_before, counted = letters.number, self.state, letters.of(decision)
        down = sum(len(letter.body) for name, letter in (counted or {}).items() if name != self.me)
        mine: Outcome | None = None
        holds = True
        if counted is not None:
            why = {each["client"]: each["why"] for each in decision.dropped}
            mine = self._outcome(now, letters, counted, why)
        if mine is not None and digest(pack(mine.state)) == decision.state:
            self.state, self.digest = mine.state, decision.state
        else:
            holds = self._take(number, decision, None if mine is None else mine.state)
            down += tree.nbytes(self.state)
        if own is not None and own.reply is not None and decision.counts(self.me):
            self.store = self.store.after(number, {self.me: own.reply.state} if any(own.reply.state.values()) else {})
        self.returning = self.returning and self.me not in decision.letters
        self.mailbox.clean(number)
        tally = Tally()
        if own is not None and own.reply is not None:
            tally.count(own.reply, own.nbytes, None)
        seconds = time.perf_counter() - started
        extra = {k: float(v) for k, v in now.algorithm.server.measures(state_before, self.state).items()}
        mine_alone = own_plan(now, self.me)
        measured = measure_round(mine_alone, number, self.state, self.store) if holds else NOT_MEASURED
        measures = {**tally.measures(), **extra, **measured}
        return self._record(
            number, seconds, letters.cohort, decision, own.nbytes if own else 0, down, measures, mine_alone
        )

    def _take(self, number: int, decision: Decision, computed: Tree | None) -> bool:
        """Hold the state that a decision names; return False if it is gone because the others are far ahead.

        Raises:
            Mistake: it is gone for another reason, or is not what follows from the round's updates.
        """
        if computed is not None:
            suspect = "this participant's version of coterie or of PyTorch"
            found = take_state(self.mailbox, number, decision, computed, self.state or None, suspect)
            self._hold(self.plan.to_device(found))
        elif not self._catch_up(number, decision):
            if self.mailbox.decision(number + 1) is None:
                raise Mistake(
                    f"{self.mailbox.objects.where}: the state after round {number} is gone; start in a new mailbox"
                )
            return False
        return True

    def _catch_up(self, number: int, decision: Decision) -> bool:
        """Hold the state after a round that was decided without this participant; return False if it is gone."""
        found = fetch_state(self.mailbox, number, decision)
        if found is None or tree.structure(found) != tree.structure(self.state):
            return False
        self.state, self.digest = self.plan.to_device(found), decision.state
        return True

    def _follow(self, number: int, decision: Decision, mine: bool, started: float) -> Round:
        """Return a round that the others have decided while this participant was away.

        Raises:
            Mistake: it took part and no longer has what it kept, so that its own state is lost.
        """
        now, own = self.plan.in_round(number), own_plan(self.plan.in_round(number), self.me)
        if mine and any(self.plan.client_state(self.store, self.me).values()) and decision.counts(self.me):
            raise Mistake(
                f"{self.me} took part in round {number}, and its own state of that time is not in its run folder: "
                "continue in the folder that it had then, or start all participants in a new mailbox"
            )
        self.returning = True
        is_newest = self.mailbox.decision(number + 1) is None
        if is_newest:
            self.mailbox.put(number, "here", {})
            if self.digest != decision.state and not self._catch_up(number, decision):
                is_newest = False
                if number == self.plan.rounds:
                    raise Mistake(f"{self.mailbox.objects.where}: the state after the last round is gone")
        measured = measure_round(own, number, self.state, self.store) if is_newest else NOT_MEASURED
        measures = {"train_loss": None, **measured}
        cohort = now.cohort.draw(now.ids, now.rng_seed, number)
        seconds = time.perf_counter() - started
        return self._record(number, seconds, cohort, decision, 0, 0, measures, own)

    def _record(
        self, number: int, seconds: float, cohort: list[str], decision: Decision, up: int, down: int,
        measures: Mapping[str, Any], plan: Plan,
    ) -> Round:  # fmt: skip
        reached = sum(decision.counts(name) for name in cohort)
        elapsed = self.elapsed + time.perf_counter() - self.began
        return Round(
            number, seconds, elapsed, cohort, reached, decision.dropped, up, down, measures, self.state, self.store,
            replace(plan, ids=(self.me,)),
        )  # fmt: skip
