"""What a client sends after a round, as a function of the examples that it holds.

Whoever attacks an update knows the model, the algorithm and its options, and so can compute what any examples would
have sent. This function is the algorithm's own client half, so an attack knows no algorithm: momentum, proximal terms
and several local steps are all part of what it inverts.

Legend: B examples, K local steps.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from coterie.core import rng
from coterie.core.algorithm import Algorithm, Context
from coterie.core.engine import Job, as_input, client_context, count_steps
from coterie.core.errors import Mistake
from coterie.core.examples import Examples
from coterie.core.task import Batch, gradient_by_func
from coterie.core.tree import Tree
from coterie.loop.plan import Plan

Work = Callable[[Tensor, Tensor | None], Tree]
"""(x [B, ...], y [B, ...] or None) -> the update's parameters: w - w_i, a flat dict. It has a gradient in x."""


@dataclass(frozen=True)
class LocalWork:
    """The work of a client that holds a few examples, in the first round.

    Attributes:
        plan: of the run, on the engine that loads it.
        weights: {"params", "buffers"} that the server broadcasts.
        steps: how many local steps the client takes; None: as many as the run's file says for its examples.
    """

    plan: Plan
    weights: Tree
    steps: int | None = 1

    def send(self, client: str, examples: Examples) -> Tree:
        """Return what the run's own engine sends for these examples: w - w_i of the parameters.

        Raises:
            Mistake: the algorithm sends no difference of weights, or reads more than its clients' own data.
        """
        algorithm, job = self.algorithm, self.job(client, examples)
        architecture = self.plan.architecture(client)
        (reply,) = self.plan.engine.run({architecture: algorithm}, self._broadcast(algorithm), [job])
        return _params(reply.update)

    def as_function(self, client: str, like: Examples, number: int) -> Work:
        """Return the same as a function of the examples, which an attacker can differentiate.

        Its draws, for dropout or augmentation, are the attacker's own: nobody but the client knows the client's.

        Args:
            client: whose work it is.
            like: as many examples as the client holds; they say how many steps it takes.
            number: how many examples the attacker supposes. They make one batch, which is exact where the client's do.

        Raises:
            Mistake: as `send`.
        """
        (task,) = self.plan.tasks.values()
        bound = self.plan.recipe(replace(task, autodiff=gradient_by_func))
        algorithm = self._with_steps(bound.stage(1) if bound.stage else bound)
        job = self.job(client, like)
        steps, broadcast, engine = count_steps(algorithm, job), self._broadcast(algorithm), self.plan.engine
        ctx: Context = client_context(algorithm, job, steps, engine)
        ctx = ctx._replace(key=rng.key(self.plan.rng_seed, "attack of an update").to(engine.device))
        keys = rng.keys(steps, self.plan.rng_seed, "attack of an update", "step").to(engine.device)
        (stream,) = algorithm.client.streams
        rows = torch.arange(number, device=engine.device)

        def work(x: Tensor, y: Tensor | None) -> Tree:
            carry = algorithm.client.start(broadcast, job.state, ctx)
            for key in keys:
                carry, _ = algorithm.client.step(carry, {stream: Batch(x, y, rows, None, key)}, ctx)
            return _params(algorithm.client.finish(broadcast, carry, ctx)[0])

        return work

    @property
    def algorithm(self) -> Algorithm:
        """The run's, with the number of steps.

        Raises:
            Mistake: it reads more than its clients' own data.
        """
        return self._with_steps(self.plan.algorithm)

    def _with_steps(self, algorithm: Algorithm) -> Algorithm:
        """Return the algorithm with the number of steps; refuse one that reads more than a client's own data."""
        streams = algorithm.client.streams
        if len(streams) != 1 or algorithm.traits.pooled or next(iter(streams.values())).source != "private":
            raise Mistake(
                "the algorithm's update does not follow from one client's own examples, so it cannot be inverted; "
                "choose --attack membership"
            )
        if self.steps is None:
            return algorithm
        one = {name: replace(stream, epochs=1, steps=self.steps) for name, stream in streams.items()}
        return replace(algorithm, client=replace(algorithm.client, streams=one))

    def _broadcast(self, algorithm: Algorithm) -> Tree:
        """Return what the server sends before the first round."""
        return algorithm.server.broadcast(algorithm.server.initial_state(self.weights, self.plan.federation()))

    def job(self, client: str, examples: Examples) -> Job:
        """Return the first round's work of a client that holds these examples."""
        data = dict.fromkeys(self.plan.algorithm.client.streams, examples)
        state, plan = self.plan.client_state_from(client, None)["algorithm"], self.plan
        return Job(client, plan.architecture(client), state, data, None, 1, plan.rng_seed, plan.example_secret)

    def batch(self, examples: Examples) -> tuple[Tensor, Tensor | None]:
        """Return examples as the engine takes them: x [B, ...] and y [B, ...] or None."""
        x, y = examples.tensors()
        return as_input(x, self.plan.engine), None if y is None else as_input(y, self.plan.engine)


def _params(update: Tree) -> Tree:
    """Return the difference of the parameters in an update."""
    params: Tree | None = update.get("delta", {}).get("params")
    if not params:
        raise Mistake(
            "the algorithm's clients send no difference of weights, so there is nothing to invert; choose "
            "--attack membership"
        )
    return params
