"""What is counted during a round: the clients that are asked, their replies, and which of these count."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple, TypeVar

from coterie.core.algorithm import Weighting
from coterie.core.engine import Reply
from coterie.core.tree import Tree
from coterie.processes.team import Team, all_to_all

T = TypeVar("T")


class Answer(NamedTuple):
    """One client's reply in numbers."""

    client: str
    nbytes: int
    wrong: str | None  # why it does not count, or None
    stateful: bool  # whether the client has a new state to keep
    weighting: Mapping[Weighting, float]
    logs: Mapping[str, float]


@dataclass
class Tally:
    """The round in numbers. Sums are taken in the cohort's order, so they do not depend on which process counted.

    Attributes:
        updates: the accepted updates by client; None if nobody needs them.
        cohort: the clients that are asked, in order.
        silent: {"client", "why"} of each client that does not answer.
        answers: the replies of the others.
        bytes_down: what all clients of the cohort are sent.
        bytes_of_keys: what the clients sent beside their payloads, for a secure sum.
        sums: of the weights and the logs, where a secure sum hides those of single clients.
    """

    updates: dict[str, Tree] | None = None
    cohort: list[str] = field(default_factory=list)
    silent: list[dict[str, str]] = field(default_factory=list)
    answers: list[Answer] = field(default_factory=list)
    bytes_down: int = 0
    bytes_of_keys: int = 0
    sums: tuple[Mapping[Weighting, float], Mapping[str, float]] | None = None

    def count(self, reply: Reply, nbytes: int, wrong: str | None) -> None:
        """Count a reply whose payload has this many bytes; `wrong` says why it does not count, or is None."""
        stateful = wrong is None and any(reply.state.values())
        self.answers.append(Answer(reply.client, nbytes, wrong, stateful, reply.weighting, reply.logs))

    def refuse(self, client: str, why: str) -> None:
        """Let the reply of one client not count any more."""
        self.answers = [
            a._replace(wrong=why, stateful=False) if a.client == client and a.wrong is None else a for a in self.answers
        ]

    def reject(self, why: str) -> None:
        """Let none of the replies count, for a reason that all of them share."""
        self.answers = [a._replace(wrong=a.wrong or why, stateful=False) for a in self.answers]
        self.updates = None if self.updates is None else {}
        self.sums = None

    def merge(self, team: Team, note: T | None = None) -> list[T | None]:
        """Add what the other processes counted; return every process's note, by rank, which travels with it.

        Collective: every process calls it.
        """
        place = {client: k for k, client in enumerate(self.cohort)}
        by_rank = team.gather((self.answers, note))
        of_all = [answer for answers, _ in by_rank for answer in answers]
        self.answers = sorted(of_all, key=lambda answer: place[answer.client])
        if self.updates is not None:
            self.updates = dict(
                sorted(all_to_all(team, [self.updates] * team.size).items(), key=lambda item: place[item[0]])
            )
        return [note for _, note in by_rank]

    @property
    def dropped(self) -> list[dict[str, str]]:
        """{"client", "why"} of each client whose reply does not count, or that did not answer."""
        return self.silent + [{"client": a.client, "why": a.wrong} for a in self.answers if a.wrong is not None]

    @property
    def reached(self) -> int:
        """How many replies count."""
        return sum(1 for _ in self._answers_that_count())

    @property
    def bytes_up(self) -> int:
        """The bytes of all payloads, and of what goes with them in a secure sum."""
        return self.bytes_of_keys + sum(answer.nbytes for answer in self.answers)

    def client_weights(self) -> dict[str, Mapping[Weighting, float]]:
        """Return the weights of each client whose reply counts, of every kind; none where a secure sum hides them."""
        if self.sums is not None:
            return {}
        return {answer.client: answer.weighting for answer in self._answers_that_count()}

    def weighting(self) -> dict[Weighting, float]:
        """Return the sum of each kind of weight over the replies that count."""
        if self.sums is not None:
            return dict(self.sums[0])
        return _sums(answer.weighting for answer in self._answers_that_count())

    def measures(self) -> dict[str, float | None]:
        """Return train_loss and every further log, each as the mean over all examples of the round's steps."""
        logs = _sums(answer.logs for answer in self._answers_that_count()) if self.sums is None else self.sums[1]
        own = {name: value for name, value in logs.items() if name not in ("loss", "count")}
        if not logs.get("count"):
            return {"train_loss": None}
        return {"train_loss": logs["loss"] / logs["count"], **{k: value / logs["count"] for k, value in own.items()}}

    def _answers_that_count(self) -> Iterator[Answer]:
        return (answer for answer in self.answers if answer.wrong is None)


K = TypeVar("K")


def _sums(each: Iterable[Mapping[K, float]]) -> dict[K, float]:
    """Add up dicts of numbers, name by name."""
    totals: dict[K, float] = {}
    for numbers in each:
        for name, value in numbers.items():
            totals[name] = totals.get(name, 0.0) + value
    return totals
