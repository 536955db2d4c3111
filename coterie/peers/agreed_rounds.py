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
from coterie.core.algorithm import Federation
from coterie.core.digests import digest
from coterie.core.engine import Reply, count_examples
from coterie.core.errors import Mistake, few
from coterie.core.packing import pack
from coterie.core.tree import Tree
from coterie.loop.check_update import broken_leaf
from coterie.loop.jobs import Assignment
from coterie.loop.measure import measure_round
from coterie.loop.plan import Plan, Resume, Round
from coterie.loop.replies import encode
from coterie.loop.round import run_jobs
from coterie.loop.store import Store
from coterie.loop.tally import Tally
from coterie.loop.template import Templates
from coterie.peers.decision import Decision
from coterie.peers.letter import Letter
from coterie.peers.message import MAX_BYTES, Form, Unusable, form_of_round
from coterie.peers.next_common_state import Outcome, next_common_state, read_state, state_problem
from coterie.peers.own_plan import assignment_of, own_plan, require_computable
from coterie.peers.signed_mailbox import SignedMailbox

NO_ANSWER = "did not answer in time"

NOT_MEASURED = {"test_loss": None, "test_accuracy": None}
"""The measures of a round whose state this participant never held."""

BYSTANDER_DEADLINES = 4
"""Deadlines after which a participant decides that has no work in a round, and so waits while others do theirs."""


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
        self._letters: dict[str, Letter | Unusable] = {}
        self._answered: set[str] = set()  # whose own letter was read; what a stranger leaves does not count

    def rounds(self, resume: Resume | None) -> Iterator[Round]:
        """Yield every round after the one that was saved."""
        last = resume.round if resume else 0
        if resume is not None and last and self.mailbox.decision(last) is None:
            raise Mistake(
                f"{self.mailbox.objects.where}: has no round {last} of this run, which {self.me} has done; give "
                "it the mailbox of the run, or start another run with --out"
            )
        self._hold(self.plan.to_device(resume.state) if resume else self._start())
        for number in range(last + 1, self.plan.rounds + 1):
            yield self._round(number)

    def _hold(self, state: Tree) -> None:
        self.state, self.digest = state, digest(pack(state))

    # The start: round 0 has no work, and decides who is there and from which state all start.

    def _start(self) -> Tree:
        """Wait for all participants, and return the state that all start from."""
        self.mailbox.announce()
        self.mailbox.put(0, "here", {"examples": len(self.plan.clients[self.me])})
        until, reminded = time.monotonic() + self.pace.start_deadline, 0.0
        first = time.monotonic()
        while (decision := self.mailbox.decision(0)) is None:
            here = {name: letter for name in self.plan.ids if (letter := self._come(name)) is not None}
            missing = [name for name in self.plan.ids if name not in here]
            late = time.monotonic() >= until and len(here) >= self.pace.min_clients
            if missing and time.monotonic() - max(first, reminded) > self.pace.deadline / 4:
                self.say(f"waiting for {few([self._describe(name) for name in missing], 10)}")
                reminded = time.monotonic() + self.pace.deadline
            if late or (not missing and self._is_my_turn(0, list(here), first)):
                self._decide_start(here, missing)
            elif missing:
                first = time.monotonic()
            self.mailbox.pause(min(0.05, self.pace.turn))
        state = self._initial_state(list(decision.letters))
        if digest(pack(state)) == decision.state:
            return state
        return self._adopt(0, decision, state, "the model or the weights that this participant starts from")

    def _describe(self, name: str) -> str:
        why = self.mailbox.differs(name)
        return name if why is None else f"{name} ({why})"

    def _come(self, name: str) -> Letter | None:
        letter = self.mailbox.read(0, name, "here")
        return letter if isinstance(letter, Letter) else None

    def _decide_start(self, here: Mapping[str, Letter], missing: list[str]) -> None:
        packed = pack(self._initial_state(list(here)))
        letters = {name: letter.digest for name, letter in here.items()}
        self.mailbox.decide(0, Decision(digest(packed), letters, [], frozenset(missing)), packed)

    def _initial_state(self, counted: list[str]) -> Tree:
        """Return the first common state, given who is there."""
        letters = [self.mailbox.read(0, name, "here") for name in counted]
        examples = [each.facts.get("examples") for each in letters if isinstance(each, Letter)]
        total = sum(number for number in examples if type(number) is int and number > 0)
        plan = self.plan
        one = next(iter(plan.initial.values())) if len(plan.initial) == 1 else None
        return plan.algorithm.server.initial_state(one, Federation(plan.ids, lambda: total, plan.seed_set))

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
        self._letters, self._answered = {}, set()
        decision = decision or self._wait(now, number, cohort, before, form)
        if own is not None and decision.letters.get(self.me) not in (None, own.digest):
            self.say(f"round {number}: done again with other results, so this is another machine or another version")
        return self._finish(now, number, cohort, before, form, decision, own, started)

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

    def _wait(self, now: Plan, number: int, cohort: list[str], before: Decision, form: Form) -> Decision:
        """Wait until the round is decided, and decide it when it is this participant's turn."""
        patience = self.pace.deadline * (1 if self.me in cohort else BYSTANDER_DEADLINES)
        until, complete_since, pause = time.monotonic() + patience, None, 0.02
        wanted = min(self.pace.min_clients, len(cohort))
        while (decision := self.mailbox.decision(number)) is None:
            self._read_letters(number, cohort, before, form)
            usable = [name for name in cohort if isinstance(self._letters.get(name), Letter)]
            waited_for = [
                name
                for name in cohort
                if name not in self._answered and self._is_expected(number, name, before, form.max_bytes)
            ]
            now_is = time.monotonic()
            complete = not waited_for and len(usable) >= wanted
            complete_since = (complete_since or now_is) if complete else None
            since = complete_since if complete_since is not None else until
            if now_is >= until and not complete and len(usable) < wanted:
                missing = [name for name in cohort if name not in self._answered]
                self.say(f"round {number}: {len(usable)} of at least {wanted} updates; waiting for {few(missing, 10)}")
                until = now_is + patience
            elif (complete or now_is >= until) and self._is_my_turn(number, usable, since):
                self._decide(now, number, cohort, before)
                continue
            self.mailbox.pause(pause)
            pause = min(1.5 * pause, 0.5)
        return decision

    def _is_expected(self, number: int, name: str, before: Decision, max_bytes: int) -> bool:
        """Return whether a participant is waited for: it is not absent, or has been heard of in the last two rounds."""
        if name not in before.absent:
            return True
        return any(self.mailbox.is_heard_of(each, name, max_bytes) for each in (number, number - 1))

    def _is_my_turn(self, number: int, able: list[str], since: float) -> bool:
        """Return whether this participant may decide: one after another, each round another one first."""
        order = sorted({*able, self.me})
        first = number % len(order)
        place = (order.index(self.me) - first) % len(order)
        return time.monotonic() >= since + place * self.pace.turn

    def _read_letters(self, number: int, cohort: list[str], before: Decision, form: Form) -> None:
        """Read the letters that were not read yet, or could not be used when they were."""
        for name in cohort:
            if not isinstance(self._letters.get(name), Letter):
                found = self.mailbox.read(number, name, "update", form.max_bytes)
                if found is not None:
                    self._letters[name] = self._check_start(found, before)
                if isinstance(found, Letter):
                    self._answered.add(name)

    def _check_start(self, found: Letter | Unusable, before: Decision) -> Letter | Unusable:
        """Return a letter whose work started from the common state."""
        if isinstance(found, Letter) and found.facts.get("state") != before.state:
            return Unusable("started from another state than that of the last round")
        return found

    def _decide(self, now: Plan, number: int, cohort: list[str], before: Decision) -> None:
        """Compute the next state from what is there, and try to make that the decision."""
        letters = {name: found for name in cohort if isinstance(found := self._letters.get(name), Letter)}
        why = {name: found.why for name, found in self._letters.items() if isinstance(found, Unusable)}
        outcome = self._outcome(now, number, cohort, letters, why)
        absent = frozenset({*before.absent, *cohort} - self._answered)
        packed = pack(outcome.state)
        digests = {name: letter.digest for name, letter in letters.items()}
        dropped = [dict(entry) for entry in outcome.tally.dropped]
        self.mailbox.decide(number, Decision(digest(packed), digests, dropped, absent), packed)

    def _outcome(
        self, now: Plan, number: int, cohort: list[str], letters: Mapping[str, Letter], why: Mapping[str, str]
    ) -> Outcome:
        """Return what follows from some letters, given why those of others do not count."""
        form = form_of_round(
            now,
            self.templates.of_round(now, now.algorithm.server.broadcast(self.state))(self._assignment(now, number)),
        )
        reasons = {name: why.get(name, NO_ANSWER) for name in cohort if name not in letters}
        return next_common_state(now, number, self.state, cohort, letters, reasons, form)

    # What follows from a decision.

    def _finish(
        self, now: Plan, number: int, cohort: list[str], before: Decision, form: Form, decision: Decision,
        own: _Work | None, started: float,
    ) -> Round:  # fmt: skip
        """Take over what was decided, and return the round with this participant's own measures."""
        state_before, letters = self.state, self._letters_of(number, decision, before, form)
        down = sum(len(letter.body) for name, letter in (letters or {}).items() if name != self.me)
        mine: Outcome | None = None
        holds = True
        if letters is not None:
            why = {each["client"]: each["why"] for each in decision.dropped}
            mine = self._outcome(now, number, cohort, letters, why)
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
        return self._record(number, seconds, cohort, decision, own.nbytes if own else 0, down, measures, mine_alone)

    def _letters_of(self, number: int, decision: Decision, before: Decision, form: Form) -> dict[str, Letter] | None:
        """Return the letters that were decided on, with exactly these bytes; None if one of them is not there."""
        found: dict[str, Letter] = {}
        for name, wanted in decision.letters.items():
            letter = self._letters.get(name)
            if not isinstance(letter, Letter) or letter.digest != wanted:
                again = self.mailbox.read(number, name, "update", form.max_bytes)
                letter = None if again is None else self._check_start(again, before)
            if not isinstance(letter, Letter) or letter.digest != wanted:
                return None
            found[name] = letter
        return found

    def _take(self, number: int, decision: Decision, computed: Tree | None) -> bool:
        """Hold the state that a decision names; return False if it is gone because the others are far ahead.

        Raises:
            Mistake: it is gone for another reason, or is not what follows from the round's updates.
        """
        if computed is not None:
            self._hold(self._adopt(number, decision, computed, "this participant's version of coterie or of PyTorch"))
        elif not self._catch_up(number, decision):
            if self.mailbox.decision(number + 1) is None:
                raise Mistake(
                    f"{self.mailbox.objects.where}: the state after round {number} is gone; start in a new mailbox"
                )
            return False
        return True

    def _adopt(self, number: int, decision: Decision, computed: Tree, suspect: str) -> Tree:
        """Return the state that a decision names, if it is the computed one to rounding.

        Raises:
            Mistake: it is not, or it is gone.
        """
        found = self._fetch(number, decision)
        wrong = "is gone" if found is None else state_problem(found, computed, self.state or None)
        if found is None or wrong is not None:
            raise Mistake(
                f"round {number}: the state that {decision.author} has decided on {wrong}: {suspect} differs from "
                f"that of {decision.author}, or {decision.author} is not honest; compare them, and start again in a "
                "new mailbox"
            )
        return self.plan.to_device(found)

    def _fetch(self, number: int, decision: Decision) -> Tree | None:
        data = self.mailbox.state(number, decision.state, MAX_BYTES)
        return None if data is None else read_state(data)

    def _catch_up(self, number: int, decision: Decision) -> bool:
        """Hold the state after a round that was decided without this participant; return False if it is gone."""
        found = self._fetch(number, decision)
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
