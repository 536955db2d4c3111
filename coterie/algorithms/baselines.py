"""What a federation is measured against: everything in one place, and everyone alone.

Both are local training without a server: nothing is sent in either direction, and a client's model is its own state
from round to round, momentum included. `centralized` has one client that holds all data; it is asked in every round,
whatever the cohort, the faults, the attackers and the aggregator. `independent` has them all, of whom a round trains
its cohort.
"""

from __future__ import annotations

from typing import Unpack

from coterie.algorithms.local import LocalOptions, LocalSGD, local_step
from coterie.core import tree
from coterie.core.algorithm import Algorithm, ClientHalf, Context, Recipe, ServerHalf, Traits
from coterie.core.task import Task
from coterie.core.tree import Tree


def centralized(**local_options: Unpack[LocalOptions]) -> Recipe:
    """SGD on the pooled data, which no federation could do: the upper bound. A round is `local_epochs` passes, or
    `local_steps` steps.

    Args:
        **local_options: see `LocalSGD`. Momentum is always kept between rounds.

    Raises:
        Mistake: a value is out of its range.
    """
    return _alone(LocalSGD(**local_options), pooled=True)


def independent(**local_options: Unpack[LocalOptions]) -> Recipe:
    """Every client trains its own model on its own data: what each would have without the federation.

    Args:
        **local_options: see `LocalSGD`. Momentum is always kept between rounds.

    Raises:
        Mistake: a value is out of its range.
    """
    return _alone(LocalSGD(**local_options), pooled=False)


def _alone(local: LocalSGD, pooled: bool) -> Recipe:
    def bind(task: Task) -> Algorithm:
        def begin_with(weights: Tree) -> Tree:
            return {**weights, **({"momentum": tree.zeros_like(weights["params"])} if local.momentum else {})}

        def start(broadcast: Tree, state: Tree, ctx: Context) -> Tree:
            return local.initial_carry(state, state)

        def finish(broadcast: Tree, carry: Tree, ctx: Context) -> tuple[Tree, Tree]:
            return {}, dict(carry)

        return Algorithm(
            client=ClientHalf(
                start=start,
                step=local_step(task, local),
                finish=finish,
                streams={"private": local.stream()},
                lr=local.rate,
                initial_state=begin_with,
            ),
            server=ServerHalf(
                update=lambda state, aggregate, info: state,
                weighting={},
                initial_state=lambda weights, federation: {},
                broadcast=lambda state: {},
                evaluated_weights=lambda state, kept: {"params": kept["params"], "buffers": kept["buffers"]},
            ),
            traits=Traits(own_models=not pooled, pooled=pooled),
        )

    return bind
