"""What is counted while a round goes on: who was asked, who answered, and how that counts."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple, TypeVar

from coterie.core.algorithm import Weighting
from coterie.core.engine import Reply
from coterie.core.tree import Tree
from coterie.processes.team import Team, all_to_all


class Answer(NamedTuple):
    """What one client sent, in numbers."""

    client: str
    nbytes: int
    wrong: str | None  # why it does not count
    stateful: bool  # whether there is a new state to keep
    weighting: Mapping[Weighting, float]
    logs: Mapping[str, float]


@dataclass
class Tally:
    """The round in numbers. `updates` collects the accepted updates, where they are wanted.

    Sums are taken in the cohort's order, so that they do not depend on who counted.
    """

    updates: dict[str, Tree] | None = None
    cohort: list[str] = field(default_factory=list)
    silent: list[dict[str, str]] = field(default_factory=list)
    answers: list[Answer] = field(default_factory=list)
    bytes_down: int = 0

    def count(self, reply: Reply, nbytes: int, wrong: str | None) -> None:
        """A client answered, with a message of so many bytes; `wrong` says why it does not count."""
        stateful = wrong is None and any(reply.state.values())
        self.answers.append(Answer(reply.client, nbytes, wrong, stateful, reply.weighting, reply.logs))

    def reject(self, why: str) -> None:
        """None of the updates counts, for a reason that lies in all of them."""
        self.answers = [a._replace(wrong=a.wrong or why, stateful=False) for a in self.answers]
        self.updates = None if self.updates is None else {}

    def merge(self, team: Team) -> None:
        """Take in what the other members counted. Collective."""
        place = {client: k for k, client in enumerate(self.cohort)}
        everyones = [answer for part in team.gather(self.answers) for answer in part]
        self.answers = sorted(everyones, key=lambda answer: place[answer.client])
        if self.updates is not None:
            self.updates = dict(
                sorted(all_to_all(team, [self.updates] * team.size).items(), key=lambda item: place[item[0]])
            )

    @property
    def dropped(self) -> list[dict[str, str]]:
        """Each client whose work does not count, and why."""
        return self.silent + [{"client": a.client, "why": a.wrong} for a in self.answers if a.wrong is not None]

    @property
    def reached(self) -> int:
        """How many clients' work counts."""
        return sum(1 for _ in self._accepted())

    @property
    def bytes_up(self) -> int:
        """What all answers weigh."""
        return sum(answer.nbytes for answer in self.answers)

    def client_weights(self) -> dict[str, Mapping[Weighting, float]]:
        """The weights of each client whose work counts."""
        return {answer.client: answer.weighting for answer in self._accepted()}

    def weighting(self) -> dict[Weighting, float]:
        """The sum of each kind of weight."""
        return _sums(answer.weighting for answer in self._accepted())

    def measures(self) -> dict[str, float | None]:
        """train_loss, the mean over all examples of the round's steps, and the mean of every further log over the same
        examples.
        """
        logs = _sums(answer.logs for answer in self._accepted())
        own = {name: value for name, value in logs.items() if name not in ("loss", "count")}
        if not logs.get("count"):
            return {"train_loss": None}
        return {"train_loss": logs["loss"] / logs["count"], **{k: value / logs["count"] for k, value in own.items()}}

    def _accepted(self) -> Iterator[Answer]:
        return (answer for answer in self.answers if answer.wrong is None)


K = TypeVar("K")


def _sums(each: Iterable[Mapping[K, float]]) -> dict[K, float]:
    totals: dict[K, float] = {}
    for numbers in each:
        for name, value in numbers.items():
            totals[name] = totals.get(name, 0.0) + value
    return totals
