"""Baselines of a federation: training on all data in one place, and training of every client alone.

Both are local training without a server: nothing is sent in either direction, and a client keeps its model and its
optimiser's state from round to round. `centralized` has one client that holds all data and trains in every round;
cohort, faults, attack and aggregator do not apply. `independent` has all clients, and a round trains those of its
cohort.
"""

from __future__ import annotations

from typing import Unpack

from coterie.algorithms.local import LocalSGD, local_step
from coterie.algorithms.local_options import LocalOptions
from coterie.core.algorithm import Algorithm, ClientHalf, Context, Recipe, ServerHalf, Traits
from coterie.core.kind_checks import refuse_wrong_types
from coterie.core.task import Task
from coterie.core.tree import Tree


@refuse_wrong_types
def centralized(**local_options: Unpack[LocalOptions]) -> Recipe:
    """Return SGD on the pooled data, an upper bound that no federation can use.

    A round is `local_epochs` passes, or `local_steps` steps.

    Args:
        **local_options: see `LocalOptions`. The optimiser's state is always kept between rounds.

    Raises:
        Mistake: a value is out of its range.
    """
    return _alone(LocalSGD(**local_options), pooled=True)


@refuse_wrong_types
def independent(**local_options: Unpack[LocalOptions]) -> Recipe:
    """Return training of every client on its own data alone: the model it would have without the federation.

    Args:
        **local_options: see `LocalOptions`. The optimiser's state is always kept between rounds.

    Raises:
        Mistake: a value is out of its range.
    """
    return _alone(LocalSGD(**local_options), pooled=False)


def _alone(local: LocalSGD, pooled: bool) -> Recipe:
    """Return local training without a server: of one client with all data if `pooled`, or of each client alone."""

    def bind(task: Task) -> Algorithm:
        def initial_client_state(weights: Tree) -> Tree:
            """Return the model and the optimiser's initial state."""
            return {**weights, **local.optimizer.init(weights["params"])}

        def start(broadcast: Tree, client_state: Tree, ctx: Context) -> Tree:
            """Return the carry of the client's own model and momentum; the broadcast is empty."""
            return local.initial_carry(client_state, client_state)

        def finish(broadcast: Tree, carry: Tree, ctx: Context) -> tuple[Tree, Tree]:
            """Return an empty update, and the trained model with its momentum as the client state."""
            return {}, {"params": carry["params"], "buffers": carry["buffers"], **carry["optimizer"]}

        return Algorithm(
            client=ClientHalf(
                start=start,
                step=local_step(task, local),
                finish=finish,
                streams={"private": local.stream()},
                lr=local.lr,
                initial_state=initial_client_state,
            ),
            server=ServerHalf(
                update=lambda server_state, aggregate, info: server_state,
                weighting={},
                private="centralized has all data in one place, so no client can be protected from the others; choose "
                "a federated algorithm"
                if pooled
                else "independent sends nothing, so there is nothing to protect; leave [privacy] out",
                initial_state=lambda weights, federation: {},
                broadcast=lambda server_state: {},
                evaluated_weights=lambda server_state, client_state: {
                    name: client_state[name] for name in ("params", "buffers")
                },
            ),
            traits=Traits(own_models=not pooled, pooled=pooled),
        )

    return bind
