"""Steps as CUDA graphs: what the vectorised engine would gain if it replayed a step in place of launching it anew.

`torch.compile`'s mode "reduce-overhead" is no way to it: a compiled step writes over the carry, and TorchInductor makes
no graph of a program that writes over tensors which move. Here the carry, the batch and the context of a step lie at
fixed places; a call copies its arguments there unless they are there already, replays the graph, and returns the carry
where it lies. So this is for a benchmark of FedAvg, whose clients send nothing that is the carry itself.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple
from unittest import mock

import torch
from torch import Tensor

from coterie.core import tree
from coterie.core.algorithm import Batches, Context, Logs
from coterie.core.task import Batch
from coterie.core.tree import Tree
from coterie.engines import vectorised
from coterie.engines.compiled import Compiled, Step


class Recorded(NamedTuple):
    """A step at fixed places."""

    carry: Tree
    batches: Batches
    context: Context
    replay: Callable[[], object]
    logs: Logs  # filled by each replay


class Graphed:
    """A step that is recorded at its first call with each combination of shapes, and replayed from then on."""

    def __init__(self, step: Step, device: torch.device) -> None:
        self.step, self.device = step, device
        self._recorded: dict[Any, Recorded] = {}

    @property
    def _failure(self) -> str:
        """Why the step runs uncompiled, if it should not; as `Compiled` says it."""
        return getattr(self.step, "_failure", "")

    def __call__(self, carry: Tree, batches: Batches, ctx: Context) -> tuple[Tree, Logs]:
        """Run the step; the carry that it returns is written over by the next call with these shapes."""
        key = tuple((x.shape, x.dtype) for x in (*tree.leaves(carry), *_tensors(batches), *_facts(ctx)))
        if key not in self._recorded:
            self._recorded[key] = self._record(carry, batches, ctx)
        found = self._recorded[key]
        if carry is not found.carry:
            tree.map(lambda here, new: here.copy_(new), found.carry, carry)
        for here, new in zip(
            _tensors(found.batches) + _facts(found.context), _tensors(batches) + _facts(ctx), strict=True
        ):
            here.copy_(new)
        found.replay()
        return found.carry, {name: value.clone() for name, value in found.logs.items()}

    def _record(self, carry: Tree, batches: Batches, ctx: Context) -> Recorded:
        """Return the step on copies of these arguments."""
        own = tree.clone(carry)
        given = {name: Batch._make(None if x is None else x.clone() for x in batch) for name, batch in batches.items()}
        facts = ctx._replace(**{name: getattr(ctx, name).clone() for name in ctx._fields if name != "seed_set"})
        logs: Logs = {}

        def run() -> None:
            """Write the new carry over the old one."""
            new, found = self.step(own, given, facts)
            if new is not own:
                tree.map(lambda old, x: old.copy_(x), own, tree.clone(new))
            logs.update(found)

        return Recorded(own, given, facts, capture(run, self.device), logs)


def capture(run: Callable[[], None], device: torch.device) -> Callable[[], object]:
    """Return a function that does what `run` does, on the same memory: on a GPU by replaying a graph of it."""
    if device.type != "cuda":
        return run
    side = torch.cuda.Stream(device)
    side.wait_stream(torch.cuda.current_stream(device))
    with torch.cuda.stream(side):
        for _ in range(3):  # what the first calls allocate and look up must not be recorded
            run()
    torch.cuda.current_stream(device).wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        run()
    return graph.replay


@contextmanager
def replay_steps(compiled: bool) -> Iterator[None]:
    """Let vectorised engines with `compile = True` replay their steps in this block: as they are, or compiled."""

    def make(step: Step, device: torch.device) -> Graphed:
        return Graphed(Compiled(step, device) if compiled else step, device)

    with mock.patch.object(vectorised, "Compiled", make):
        yield


def _tensors(batches: Batches) -> list[Tensor]:
    """Return the tensors of batches."""
    return [x for batch in batches.values() for x in batch if x is not None]


def _facts(ctx: Context) -> list[Tensor]:
    """Return the tensors of a context without a seed set."""
    return list(ctx._replace(seed_set=None)[:-1])
