"""Run one client after another in a plain loop: the reference for other engines. It takes any model."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from coterie.core import rng, tree
from coterie.core.algorithm import Algorithm, Batches, Logs, Weighting
from coterie.core.batching import width_of_padding
from coterie.core.engine import (
    Job,
    Reply,
    batch_rows,
    client_context,
    count_expected,
    count_processed,
    count_steps,
    draw_noise,
    step_keys,
)
from coterie.core.task import Batch, Task
from coterie.core.tree import Tree
from coterie.engines.compiled import Compiled, Step
from coterie.engines.gathering import gather_batches
from coterie.engines.malloc import keep_freed_memory
from coterie.engines.mixed_precision import Precision, autocast_task, check_precision

log = logging.getLogger(__name__)
CPU = torch.device("cpu")


@dataclass(frozen=True)
class Sequential:
    """The sequential engine.

    Attributes:
        compile: compile the algorithm's step. Short batches are then padded and masked, so that one compiled step
            serves all of them. A step with a "full" batch is not compiled, since its length differs from client to
            client; nor is a step of a model that would count padding.
        precision: "bf16" computes forwards by autocast; see `coterie.engines.mixed_precision`.

    Raises:
        Mistake: the device or the type of number does not allow this precision.
    """

    device: torch.device = CPU
    dtype: torch.dtype = torch.float32
    compile: bool = False
    precision: Precision = "full"
    _compiled: dict[Step, Step] = field(default_factory=dict, repr=False, compare=False)
    _unpaddable: dict[str, str] = field(default_factory=dict, repr=False, compare=False)  # architecture -> why

    def __post_init__(self) -> None:
        """Refuse a precision that is not there."""
        check_precision(self.precision, self.dtype, self.device)

    def prepare(self, tasks: Mapping[str, Task]) -> dict[str, Task]:
        """Return a federation's tasks in the engine's precision, after noting which models' steps cannot be compiled.

        Their gradients are taken by PyTorch's tape.
        """
        self._unpaddable.clear()  # an earlier federation's models have no say
        for architecture, task in tasks.items():
            if self.compile and task.unpaddable:
                self._unpaddable[architecture] = task.unpaddable
                log.warning("steps run uncompiled: %s", task.unpaddable)
        return dict(tasks) if self.precision == "full" else {k: autocast_task(t, self.device) for k, t in tasks.items()}

    def _compiles(self, architecture: str) -> bool:
        """Return whether the steps of this architecture are compiled."""
        return self.compile and architecture not in self._unpaddable

    def run(self, algorithms: Mapping[str, Algorithm], broadcast: Tree, jobs: Sequence[Job]) -> Iterator[Reply]:
        """Yield the reply of one job after another; see `coterie.core.engine.Engine.run`."""
        keep_freed_memory()
        for job in jobs:
            with torch.no_grad(), torch.random.fork_rng(devices=[self.device] if self.device.type == "cuda" else []):
                _seed_torch(self.device, rng.number(job.rng_seed, job.round, job.client, "torch"))
                reply = self._run_job(algorithms[job.architecture], broadcast, job)
            yield reply
            del reply  # the next client works in its memory

    def _run_job(self, algorithm: Algorithm, broadcast: Tree, job: Job) -> Reply:
        """Run all steps of one client's work, and return its reply."""
        steps = count_steps(algorithm, job)
        rows = batch_rows(algorithm, job, steps)
        ctx = client_context(algorithm, job, steps, self)
        carry = tree.clone(algorithm.client.start(broadcast, job.state, ctx))  # a step may write into it
        logs = []
        for batches in self._batches(algorithm, job, rows, steps):
            step = self._step(algorithm, job.architecture, batches)
            carry, new = step(carry, batches, ctx)
            logs.append(new)
        update, state = algorithm.client.finish(broadcast, carry, ctx)
        processed = count_processed(algorithm, job, rows)
        examples = len(next(iter(job.data.values())))
        weights: dict[Weighting, float] = {"examples": float(examples), "processed": processed, "one": 1.0}
        return Reply(job.client, update, state, weights, sum_logs(logs))

    def _step(self, algorithm: Algorithm, architecture: str, batches: Batches) -> Step:
        """Return the algorithm's step, compiled where that is asked for and possible."""
        if not self._compiles(architecture) or any(algorithm.client.streams[name].is_full for name in batches):
            return algorithm.client.step
        if algorithm.client.step not in self._compiled:
            self._compiled[algorithm.client.step] = Compiled(algorithm.client.step, self.device)
        return self._compiled[algorithm.client.step]

    def _batches(
        self, algorithm: Algorithm, job: Job, rows: Mapping[str, list[Tensor]], steps: int
    ) -> Iterator[Batches]:
        """Yield each step's batches, by stream."""
        keys = step_keys(algorithm, job, steps)
        streams = {
            name: gather_batches(
                job.data[name], own, keys[name].to(self.device), self, self._width(algorithm, job, name, own)
            )
            for name, own in rows.items()
        }
        for k in range(steps):
            yield {
                name: self._with_noise(algorithm, job, name, k, next(stream))
                for name, stream in streams.items()
                if k < len(rows[name])
            }

    def _with_noise(self, algorithm: Algorithm, job: Job, name: str, k: int, batch: Batch) -> Batch:
        """Return the batch of step k with the noise of a stream that has some, and a Poisson batch's expected size."""
        stream = algorithm.client.streams[name]
        expected = count_expected(stream, len(job.data[name]))
        if expected is None and not stream.noise:
            return batch
        size = None if expected is None else torch.tensor(expected, dtype=self.dtype, device=self.device)
        return batch._replace(expected=size, noise=draw_noise(stream, job, name, k, self))

    def _width(self, algorithm: Algorithm, job: Job, name: str, batches: list[Tensor]) -> int | None:
        """Return the length to which a compiled step's batches are padded; None if no padding is needed."""
        stream = algorithm.client.streams[name]
        size = stream.batch_size
        if not self._compiles(job.architecture) or size == "full" or all(len(batch) == size for batch in batches):
            return None
        return size if not stream.poisson else max(width_of_padding(stream, len(job.data[name])), *map(len, batches))


def _seed_torch(device: torch.device, number: int) -> None:
    """Seed torch's own generator, for layers that draw from it (none of ours do)."""
    if device.type == "cpu":
        torch.default_generator.manual_seed(number)  # `torch.manual_seed` looks for other devices at every call
    else:
        torch.manual_seed(number)


def sum_logs(logs: list[Logs]) -> dict[str, float]:
    """Return the sum of each log over the steps."""
    return {name: float(torch.stack([log[name] for log in logs]).sum()) for name in (logs[0] if logs else {})}
