"""What an engine is to the loop: something that runs `start`, `step` ... and `finish` for the clients of a cohort."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from coterie.core import rng
from coterie.core.algorithm import Algorithm, Context, Weighting
from coterie.core.batching import batch_size, batches, num_steps
from coterie.core.examples import Examples
from coterie.core.task import Batch, Task
from coterie.core.tree import Tree


class Job(NamedTuple):
    """One client's work in one round."""

    client: str
    architecture: str
    state: Tree  # C_i; read only
    data: Mapping[str, Examples]  # one entry per stream
    seed_set: Examples | None
    round: int
    rng_seed: int


class Reply(NamedTuple):
    """What one client's work gave."""

    client: str
    update: Tree  # U_i
    state: Tree  # C_i
    weighting: Mapping[Weighting, float]
    logs: Mapping[str, float]  # sums over the round's steps


class Engine(Protocol):
    """Runs clients' work. Engines differ in speed and in rounding, in nothing else."""

    @property
    def dtype(self) -> torch.dtype:
        """Floating-point type of weights and data."""

    @property
    def device(self) -> torch.device:
        """Where weights and batches live."""

    def prepare(self, task: Task) -> Task:
        """The task with its gradients taken the way this engine needs."""

    def run(self, algorithms: Mapping[str, Algorithm], broadcast: Tree, jobs: Sequence[Job]) -> Iterator[Reply]:
        """One reply per job, each when it is there, in an order that depends on the jobs alone; `algorithms` is by
        architecture.
        """


def planned_steps(algorithm: Algorithm, job: Job) -> int:
    """K_i: the first stream decides."""
    name, stream = next(iter(algorithm.client.streams.items()))
    return num_steps(stream, len(job.data[name]))


def planned_examples(algorithm: Algorithm, sizes: Mapping[str, int]) -> int:
    """How many examples pass through a client's steps in a round, about, given those of each stream: what its work
    costs. 0 where there is no work, for want of examples.
    """
    if not all(sizes.values()):
        return 0
    name, stream = next(iter(algorithm.client.streams.items()))
    return num_steps(stream, sizes[name]) * batch_size(stream, sizes[name])


def planned_rows(algorithm: Algorithm, job: Job, steps: int) -> dict[str, list[Tensor]]:
    """For each stream, the row numbers [B] of each of `steps` batches."""
    return {
        name: batches(
            stream, len(job.data[name]), 1 if stream.once else steps, job.rng_seed, job.round, job.client, name
        )
        for name, stream in algorithm.client.streams.items()
    }


def planned_keys(algorithm: Algorithm, job: Job, steps: int) -> dict[str, Tensor]:
    """For each stream, the key of each step: int64 [K]."""
    return {
        name: rng.keys(steps, job.rng_seed, job.round, job.client, name, "step") for name in algorithm.client.streams
    }


def context(algorithm: Algorithm, job: Job, steps: int, engine: Engine) -> Context:
    """The round's facts for one client, as tensors of the engine's type and device."""
    first = next(iter(algorithm.client.streams))
    kind = engine.dtype, engine.device
    return Context(
        round=_number(job.round, *kind),
        examples=_number(len(job.data[first]), *kind),
        steps=_number(steps, *kind),
        lr=_number(algorithm.client.lr(job.round), *kind),
        key=rng.key(job.rng_seed, job.round, job.client, "algorithm").to(engine.device),
        seed_set=whole(job.seed_set, engine),
    )


@functools.lru_cache(1024)
def _number(value: float, dtype: torch.dtype, device: torch.device) -> Tensor:
    """Made once for all clients of whom it is a fact: nobody writes into a context."""
    return torch.tensor(value, dtype=dtype, device=device)


def whole(seed_set: Examples | None, engine: Engine) -> Batch | None:
    """The seed set in its order, where there is one."""
    if seed_set is None:
        return None
    x, y = seed_set.tensors()
    rows, key = torch.arange(len(seed_set)), rng.key("public")  # the word is part of the draw: never change it
    labels = None if y is None else as_input(y, engine)
    return Batch(as_input(x, engine), labels, rows.to(engine.device), None, key.to(engine.device))


def as_input(x: Tensor, engine: Engine) -> Tensor:
    """x where the engine computes; floats in its type, integers (tokens, labels) as they are."""
    return x.to(engine.device, engine.dtype if x.is_floating_point() else x.dtype)
