"""The engine's contract: it runs `start`, `step` ... and `finish` for the clients of a cohort."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from coterie.core import rng
from coterie.core.algorithm import Algorithm, Context, Stream, Weighting
from coterie.core.batching import batch_size, batches, num_steps, poisson_batches
from coterie.core.examples import Examples
from coterie.core.secret_draws import gaussian, join_purpose
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
    secret: str | None = None  # what Poisson batches and noise are drawn from; None where nothing needs it


class Reply(NamedTuple):
    """The result of one client's work in one round."""

    client: str
    update: Tree  # U_i
    state: Tree  # C_i
    weighting: Mapping[Weighting, float]
    logs: Mapping[str, float]  # sums over the round's steps


class Engine(Protocol):
    """Runs clients' work. Engines differ only in speed and in rounding."""

    @property
    def dtype(self) -> torch.dtype:
        """Floating-point type of weights and data."""

    @property
    def device(self) -> torch.device:
        """Where weights and batches live."""

    def prepare(self, tasks: Mapping[str, Task]) -> dict[str, Task]:
        """Return a federation's tasks, by architecture, with the kind of gradient that this engine needs."""

    def run(self, algorithms: Mapping[str, Algorithm], broadcast: Tree, jobs: Sequence[Job]) -> Iterator[Reply]:
        """Yield one reply per job as soon as it is ready, in an order that depends on the jobs alone.

        Args:
            algorithms: architecture -> the algorithm bound to it.
            broadcast: what the server sends.
            jobs: the work of the cohort, or of a part of it.
        """


def count_steps(algorithm: Algorithm, job: Job) -> int:
    """Return K_i, the number of steps of a job; the first stream sets it."""
    name, stream = next(iter(algorithm.client.streams.items()))
    return num_steps(stream, len(job.data[name]))


def count_examples(algorithm: Algorithm, sizes: Mapping[str, int]) -> int:
    """Return about how many examples a client's steps process in a round: the cost of its work.

    Args:
        algorithm: the client's.
        sizes: stream -> its number of examples. If one is 0, the client has no work and the result is 0.
    """
    if not all(sizes.values()):
        return 0
    name, stream = next(iter(algorithm.client.streams.items()))
    return num_steps(stream, sizes[name]) * batch_size(stream, sizes[name])


def batch_rows(algorithm: Algorithm, job: Job, steps: int) -> dict[str, list[Tensor]]:
    """Return the row numbers [B] of each of `steps` batches, by stream."""

    def draw(name: str, stream: Stream) -> list[Tensor]:
        n, number, purpose = len(job.data[name]), 1 if stream.once else steps, (job.round, job.client, name)
        if stream.poisson:
            return poisson_batches(stream, n, number, secret_of(job), *purpose)
        return batches(stream, n, number, job.rng_seed, *purpose)

    return {name: draw(name, stream) for name, stream in algorithm.client.streams.items()}


def secret_of(job: Job) -> str:
    """Return the secret that a job's Poisson batches and noise are drawn from.

    Raises:
        RuntimeError: it has none, and must never be drawn from anything else.
    """
    if job.secret is None:
        raise RuntimeError(f"the work of client {job.client} needs a secret to draw noise from, and has none")
    return job.secret


def draw_noise(stream: Stream, job: Job, name: str, k: int, engine: Engine) -> Tensor | None:
    """Return the standard normal numbers of a stream's step k (from 0) on the engine's device; None without noise."""
    if not stream.noise:
        return None
    key = join_purpose(secret_of(job), job.round, job.client, name, "noise", k)
    return gaussian(key, [stream.noise]).to(engine.device, engine.dtype)


def count_expected(stream: Stream, n: int) -> float | None:
    """Return how many of n examples a Poisson batch has on average; None for a stream that is not a Poisson one."""
    return float(batch_size(stream, n)) if stream.poisson else None


def count_processed(algorithm: Algorithm, job: Job, rows: Mapping[str, list[Tensor]]) -> float:
    """Return how many examples the steps of the first stream process; the expected number of a Poisson stream."""
    name, stream = next(iter(algorithm.client.streams.items()))
    expected = count_expected(stream, len(job.data[name]))
    return float(sum(map(len, rows[name]))) if expected is None else expected * len(rows[name])


def step_keys(algorithm: Algorithm, job: Job, steps: int) -> dict[str, Tensor]:
    """Return the key of each step, int64 [K], by stream."""
    return {
        name: rng.keys(steps, job.rng_seed, job.round, job.client, name, "step") for name in algorithm.client.streams
    }


def client_context(algorithm: Algorithm, job: Job, steps: int, engine: Engine) -> Context:
    """Return what one client knows about the round, as tensors of the engine's type and device."""
    first = next(iter(algorithm.client.streams))
    kind = engine.dtype, engine.device
    return Context(
        round=_scalar(job.round, *kind),
        examples=_scalar(len(job.data[first]), *kind),
        steps=_scalar(steps, *kind),
        lr=_scalar(algorithm.client.lr(job.round), *kind),
        key=rng.key(job.rng_seed, job.round, job.client, "algorithm").to(engine.device),
        seed_set=seed_set_batch(job.seed_set, engine),
    )


@functools.lru_cache(1024)
def _scalar(value: float, dtype: torch.dtype, device: torch.device) -> Tensor:
    """Return a scalar tensor, cached and shared between clients; contexts are read only."""
    return torch.tensor(value, dtype=dtype, device=device)


def seed_set_batch(seed_set: Examples | None, engine: Engine) -> Batch | None:
    """Return the whole seed set in its order as a batch, or None."""
    if seed_set is None:
        return None
    x, y = seed_set.tensors()
    rows, key = torch.arange(len(seed_set)), rng.key("public")  # this word is part of the draw; never change it
    labels = None if y is None else as_input(y, engine)
    return Batch(as_input(x, engine), labels, rows.to(engine.device), None, key.to(engine.device))


def as_input(x: Tensor, engine: Engine) -> Tensor:
    """Return x on the engine's device; floats have its type, integers (tokens, labels) keep theirs."""
    return x.to(engine.device, engine.dtype if x.is_floating_point() else x.dtype)
