"""Choose probes by the names that [probe] takes, and run them on some of the rounds.

This module imports without PyTorch, so that names and numbers can be checked first.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from coterie.core.errors import Mistake, require
from coterie.core.kinds import Count
from coterie.core.registry import Registry

if TYPE_CHECKING:
    from coterie.core.algorithm import Recipe
    from coterie.loop.plan import Plan, Round
    from coterie.probes.loss_surface import Surface

Need = Literal["differences", "model", "loss", "accuracy"]
"""What a probe needs: the clients' differences of weights; one server model for all clients; a loss, or an accuracy, on
test examples."""

NEEDS: Mapping[str, tuple[Need, ...]] = {
    "drift": ("differences",),
    "diversity": ("differences",),
    "direction": ("differences",),
    "gain": ("differences", "model", "loss", "accuracy"),
    "weights": ("differences", "model", "loss"),
    "travelled": ("model",),
    "curvature": ("model", "loss"),
}
"""Every probe by name, and what it needs."""

PROBES = Registry("names", {name: f"coterie.probes.round_measures:measure_{name}" for name in NEEDS})
"""Every probe by name: a function from a `coterie.probes.round_measures.RoundView` to measures by name."""


@dataclass(frozen=True)
class Probe:
    """Further measures of some rounds.

    A round that is probed keeps the updates of its whole cohort in memory until it is over.

    Attributes:
        names: of `PROBES`.
        every: probe every N rounds, and always the first round and the last.
        examples: how many test examples losses and accuracies are measured on; the same ones in all rounds.

    Raises:
        Mistake: a name is unknown, or a number is below 1.

    >>> Probe(["drift", "gain"], every=5).due(7, last=100)
    False
    """

    names: Sequence[str]
    every: Count = 1
    examples: Count = 1000

    def __post_init__(self) -> None:
        for name in self.names:
            if name not in PROBES:
                PROBES.find(name)  # raises the mistake, without importing any probe
        require("every", self.every, self.every >= 1, "1 or more")
        require("examples", self.examples, self.examples >= 1, "1 or more")

    @property
    def cost(self) -> str:
        """A sentence about the memory that probed rounds take."""
        which = "all rounds" if self.every == 1 else f"the first round, the last, and one in {self.every}"
        return f"{which} are probed, and keep the updates of their whole cohort in memory"

    def extend_algorithm(self, algorithm: Recipe) -> Recipe:
        """Return the algorithm with what the probes need in its server state; see `coterie.loop.plan.Probe`."""
        from coterie.probes.last_aggregate import keep_last_aggregate

        return keep_last_aggregate(algorithm) if "direction" in self.names else algorithm

    def due(self, round: int, last: int) -> bool:
        """Whether this round is probed."""
        return round in (1, last) or round % self.every == 0

    def __call__(self, round: Round) -> dict[str, Any]:
        """Measure a round: "probe.<measure>" -> value.

        Probes that need differences are left out where a round has none. All processes of a run call this together.
        """
        from coterie.probes.round_measures import view_round

        view = view_round(round, self._surface(round.plan))
        measures: dict[str, Any] = {}
        for name in self.names:
            if view.differences or "differences" not in NEEDS[name]:
                measures |= PROBES[name](view)
        return {f"probe.{measure}": value for measure, value in measures.items()}

    def _surface(self, plan: Plan) -> Surface | None:
        """Return the loss on a drawn subset of the test data; None without test data or with several models."""
        from coterie.probes.loss_surface import Surface, draw_subset

        test = plan.evaluation.test
        if test is None or len(plan.tasks) > 1:
            return None
        (task,) = plan.tasks.values()
        return Surface(task, plan.engine, draw_subset(test, self.examples, plan.rng_seed))

    def check_plan(self, plan: Plan) -> None:
        """Check that a federation has what the probes need.

        Raises:
            Mistake: it has not.
        """
        algorithm = plan.algorithm
        loss = plan.evaluation.test is not None and algorithm.traits.predicts
        accuracy = all("accuracy" in task.metrics for task in plan.tasks.values())
        lacks: dict[Need, str | None] = {
            "differences": None if "delta" in algorithm.server.weighting else NO_DIFFERENCES,
            "model": NO_MODEL if algorithm.traits.own_models or algorithm.traits.pooled else None,
            "loss": None if loss else NO_LOSS,
            "accuracy": None if accuracy else NO_ACCURACY,
        }
        for name in self.names:
            reason = next((lacks[need] for need in NEEDS[name] if lacks[need]), None)
            if reason:
                raise Mistake(reason, key="names", value=name, table="probe")


NO_DIFFERENCES = (
    "the clients of this algorithm send no differences of weights to a server, and these are what the probe measures; "
    "leave it out, or choose an algorithm such as fedavg"
)
NO_MODEL = (
    "this algorithm has no single server model, and its weights are what the probe measures; leave it out, or choose "
    "an algorithm such as fedavg"
)
NO_LOSS = (
    "there are no test examples for it, or the algorithm trains no model that predicts their labels; leave it out, or "
    "give test examples"
)
NO_ACCURACY = "accuracy is not among the metrics; leave it out, or add accuracy to them"
