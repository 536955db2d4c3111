"""Probes by the names that [probe] takes, and what each of them needs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Annotated, Any, Literal

from annotated_types import Ge

from coterie.core.algorithm import Recipe
from coterie.core.errors import Mistake, require
from coterie.loop.plan import Plan, Round
from coterie.probes import rounds
from coterie.probes.remembering import remembering
from coterie.probes.rounds import Look, Measures, look
from coterie.probes.surface import Surface, subset

Need = Literal["differences", "model", "loss", "accuracy"]


@dataclass(frozen=True)
class Kind:
    """One probe.

    Attributes:
        measure: what it measures of a round.
        needs: the clients' differences of weights; one model of the server's for all clients; a loss, or an accuracy,
            on test examples.
    """

    measure: Callable[[Look], Measures]
    needs: tuple[Need, ...]


KINDS: Mapping[str, Kind] = {
    "drift": Kind(rounds.drift, ("differences",)),
    "diversity": Kind(rounds.diversity, ("differences",)),
    "direction": Kind(rounds.direction, ("differences",)),
    "gain": Kind(rounds.gain, ("differences", "model", "loss", "accuracy")),
    "weights": Kind(rounds.weights, ("differences", "model", "loss")),
    "travelled": Kind(rounds.travelled, ("model",)),
    "curvature": Kind(rounds.curvature, ("model", "loss")),
}
"""Every probe by name; what each measures is in `coterie.probes.rounds`."""


@dataclass(frozen=True)
class Probe:
    """What is measured of some rounds, beyond what every round is measured by.

    A round that is looked at keeps the updates of its whole cohort in memory until it is over, which others need not.

    Attributes:
        names: of `KINDS`.
        every: in every how manyth round; the first and the last always are.
        examples: so many of the test examples, the same in all rounds, are what losses and accuracies are measured on.

    Raises:
        Mistake: a name is unknown, or a number is below 1.

    >>> Probe(["drift", "gain"], every=5).due(7, last=100)
    False
    """

    names: Sequence[str]
    every: Annotated[int, Ge(1)] = 1
    examples: Annotated[int, Ge(1)] = 1000

    def __post_init__(self) -> None:
        for name in self.names:
            if name not in KINDS:
                close = get_close_matches(name, KINDS, n=1)
                hint = f'did you mean "{close[0]}"? It' if close else "it"
                raise Mistake(f'probe.names = "{name}": {hint} must be one of {", ".join(KINDS)}')
        require("every", self.every, self.every >= 1, "1 or more")
        require("examples", self.examples, self.examples >= 1, "1 or more")

    @property
    def cost(self) -> str:
        """What its user should know, in a sentence."""
        which = "all rounds" if self.every == 1 else f"the first round, the last, and one in {self.every}"
        return f"{which}, which probes look at, keep the updates of their whole cohort in memory"

    def following(self, algorithm: Recipe) -> Recipe:
        """See `coterie.loop.plan.Probe`."""
        return remembering(algorithm) if "direction" in self.names else algorithm

    def due(self, round: int, last: int) -> bool:
        """See `coterie.loop.plan.Probe`."""
        return round in (1, last) or round % self.every == 0

    def __call__(self, round: Round) -> dict[str, Any]:
        """The measures of a round, each as "probe.<measure>"; none of those that need differences where there are none.
        Collective.
        """
        seen = look(round, self._surface(round.plan))
        found: dict[str, Any] = {}
        for name in self.names:
            if seen.differences or "differences" not in KINDS[name].needs:
                found |= KINDS[name].measure(seen)
        return {f"probe.{measure}": value for measure, value in found.items()}

    def _surface(self, plan: Plan) -> Surface | None:
        test = plan.evaluation.test
        if test is None or len(plan.tasks) > 1:
            return None
        (task,) = plan.tasks.values()
        return Surface(task, plan.engine, subset(test, self.examples, plan.rng_seed))

    def suits(self, plan: Plan) -> None:
        """Check that a federation has what the probes need.

        Raises:
            Mistake: it has not.
        """
        algorithm, measured = plan.algorithm, plan.evaluation.test is not None and plan.algorithm.predicts
        why: dict[Need, str | None] = {
            "differences": None if "delta" in algorithm.weights else NO_DIFFERENCES,
            "model": NO_MODEL if algorithm.own_models or algorithm.pooled else None,
            "loss": None if measured else NO_LOSS,
            "accuracy": None if all("accuracy" in task.metrics for task in plan.tasks.values()) else NO_ACCURACY,
        }
        for name in self.names:
            reason = next((why[need] for need in KINDS[name].needs if why[need]), None)
            if reason:
                raise Mistake(f'probe.names = "{name}": {reason}')


NO_DIFFERENCES = (
    "by this algorithm clients send no differences of weights to a server, which is what the probe looks at; "
    "leave it out, or choose an algorithm such as fedavg"
)
NO_MODEL = (
    "by this algorithm there is no one model of the server's, whose weights the probe looks at; leave it out, or "
    "choose an algorithm such as fedavg"
)
NO_LOSS = (
    "there are no test examples to measure it on, or the algorithm trains no model of their labels; leave it out, or "
    "give some"
)
NO_ACCURACY = "accuracy is not among the metrics; leave it out, or measure it too"
