"""One client after another, in a plain loop: the reference that other engines must agree with. Any model, any
Python.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from coterie.core import rng, tree
from coterie.core.algorithm import Algorithm, Batches, Logs, Weighting
from coterie.core.engine import Job, Reply, context, planned_keys, planned_rows, planned_steps
from coterie.core.task import Task
from coterie.core.tree import Tree
from coterie.engines.compiled import Compiled, Step
from coterie.engines.gathering import gathered
from coterie.engines.malloc import keep_freed_memory

log = logging.getLogger(__name__)
CPU = torch.device("cpu")


@dataclass(frozen=True)
class Sequential:
    """The sequential engine.

    Attributes:
        compile: compile the algorithm's step. Short batches are then padded and masked, so that one compiled step
            serves all of them; a step with a "full" batch, whose length differs from client to client, runs as it is,
            and so do all steps of a federation with a model that would count padding.
    """

    device: torch.device = CPU
    dtype: torch.dtype = torch.float32
    compile: bool = False
    _compiled: dict[Step, Step] = field(default_factory=dict, repr=False, compare=False)
    _unpaddable: list[str] = field(default_factory=list, repr=False, compare=False)

    def prepare(self, task: Task) -> Task:
        """As it is: gradients by PyTorch's tape."""
        if self.compile and task.unpaddable:
            self._unpaddable.append(task.unpaddable)
            log.warning("steps run uncompiled: %s", task.unpaddable)
        return task

    @property
    def _compiles(self) -> bool:
        return self.compile and not self._unpaddable

    def run(self, algorithms: Mapping[str, Algorithm], broadcast: Tree, jobs: Sequence[Job]) -> Iterator[Reply]:
        """See `coterie.core.engine.Engine.run`."""
        keep_freed_memory()
        for job in jobs:
            with torch.no_grad(), torch.random.fork_rng(devices=[self.device] if self.device.type == "cuda" else []):
                _seed(self.device, rng.number(job.rng_seed, job.round, job.client, "torch"))
                reply = self._work(algorithms[job.architecture], broadcast, job)
            yield reply

    def _work(self, algorithm: Algorithm, broadcast: Tree, job: Job) -> Reply:
        steps = planned_steps(algorithm, job)
        rows = planned_rows(algorithm, job, steps)
        ctx = context(algorithm, job, steps, self)
        carry = tree.clone(algorithm.client.start(broadcast, job.state, ctx))  # a step may write into it
        logs = []
        for batches in self._batches(algorithm, job, rows, steps):
            carry, new = self._step(algorithm, batches)(carry, batches, ctx)
            logs.append(new)
        update, state = algorithm.client.finish(broadcast, carry, ctx)
        processed = sum(len(batch) for batch in next(iter(rows.values())))
        examples = len(next(iter(job.data.values())))
        weights: dict[Weighting, float] = {"examples": float(examples), "processed": float(processed), "one": 1.0}
        return Reply(job.client, update, state, weights, totals(logs))

    def _step(self, algorithm: Algorithm, batches: Batches) -> Step:
        if not self._compiles or any(algorithm.client.streams[name].is_full for name in batches):
            return algorithm.client.step
        if algorithm.client.step not in self._compiled:
            self._compiled[algorithm.client.step] = Compiled(algorithm.client.step, self.device)
        return self._compiled[algorithm.client.step]

    def _batches(
        self, algorithm: Algorithm, job: Job, rows: Mapping[str, list[Tensor]], steps: int
    ) -> Iterator[Batches]:
        keys = planned_keys(algorithm, job, steps)
        streams = {
            name: gathered(job.data[name], own, keys[name].to(self.device), self, self._width(algorithm, name, own))
            for name, own in rows.items()
        }
        for k in range(steps):
            yield {name: next(stream) for name, stream in streams.items() if k < len(rows[name])}

    def _width(self, algorithm: Algorithm, name: str, batches: list[Tensor]) -> int | None:
        """The length to which a compiled step's batches are padded; None where all of them have it."""
        size = algorithm.client.streams[name].batch_size
        if not self._compiles or size == "full" or all(len(batch) == size for batch in batches):
            return None
        return size


def _seed(device: torch.device, number: int) -> None:
    """Let layers that draw from torch's own generator (none of ours do) depend on (round, client) too."""
    if device.type == "cpu":
        torch.default_generator.manual_seed(number)  # `torch.manual_seed` looks for other devices at every call
    else:
        torch.manual_seed(number)


def totals(logs: list[Logs]) -> dict[str, float]:
    """The sum of each log over the steps."""
    return {name: float(torch.stack([log[name] for log in logs]).sum()) for name in (logs[0] if logs else {})}
