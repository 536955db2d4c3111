"""Where the work of a round is done and where models are measured, if it is not here on the plan's engine.

The loop is the same for both. What differs is who computes the replies, who keeps the clients' states, and who holds
the test data.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Protocol

from coterie.core.engine import Reply
from coterie.core.tree import Tree
from coterie.loop.jobs import Assignment
from coterie.loop.plan import Plan
from coterie.loop.secure_work import SecureWork
from coterie.loop.store import Store
from coterie.loop.tally import Tally


class Workplace(Protocol):
    """A place, other than the plan's engine, where clients work and models are measured.

    Attributes:
        min_clients: a round with fewer updates that count changes nothing, except under a guarantee for clients: there
            the noise counts whoever answers.
    """

    min_clients: int

    def work(
        self, plan: Plan, number: int, broadcast: Tree, store: Store, tally: Tally
    ) -> Iterator[tuple[Assignment, Reply]]:
        """Draw the cohort now; yield the clients' replies, encoded, in the cohort's order, as they come.

        There may be fewer replies than clients. Whoever gives none is named in `tally.silent`, with the reason. A
        reply's state is what the store shall keep of it here; the state itself may stay where the client works.
        """

    def secure_work(self, plan: Plan, number: int, broadcast: Tree, store: Store, tally: Tally) -> SecureWork:
        """Draw the cohort now; return where its clients work in a round whose updates are summed in secret."""

    def measure(self, plan: Plan, number: int, state: Tree, store: Store) -> dict[str, Any]:
        """Return the measures after a round, as `coterie.loop.measure.measure_round` names them."""

    def save(self, plan: Plan, number: int, state: Tree, store: Store) -> list[str]:
        """Write clients' models, as they are after a round, where the clients work; return the places that have."""
