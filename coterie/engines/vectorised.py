"""Many clients at once: a chunk of the cohort is one stacked tensor per leaf, and every step one batched call.

Clients of a chunk are sorted by their number of steps, so that those still at work are always the first ones: a client
that is done is cut off rather than dragged along, and nothing is computed for it. Within a step, short batches are
padded and masked, which changes nothing (see `coterie.core.task.masked_sums` and
`coterie.models.layers.MaskedBatchNorm`).

A compiled step is made for one number of clients. So that few are needed, a chunk is then filled up to a round number
with clients that have nothing to do, and cut at powers of two only: who is done earlier is part of the step until then,
but keeps what it has.

Legend: n clients of the chunk, a of them still at work, K steps of the longest, B the largest batch of a step.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.func import vmap
from torch.nn.utils.rnn import pad_sequence

from coterie.core import tree
from coterie.core.algorithm import Algorithm, Batches, Context, Logs
from coterie.core.engine import Job, Reply, as_input, context, planned_keys, planned_rows, planned_steps
from coterie.core.examples import Examples, pool_examples
from coterie.core.task import Batch, Differentiate, Task, gradient_by_func, gradient_by_tape
from coterie.core.tree import Tree
from coterie.engines.compiled import Compiled, Step
from coterie.engines.malloc import keep_freed_memory
from coterie.engines.sequential import CPU, Sequential

log = logging.getLogger(__name__)
BUDGET = 2**30
"""Bytes that the carries of a chunk may take, where `chunk` does not set its size."""


@dataclass(frozen=True)
class Vectorised:
    """The vectorised engine. Models that cannot be batched are left to the sequential one, and the log says why.

    Attributes:
        chunk: how many clients at once; by default as many as fit a budget of memory.
        compile: compile the step for all clients at once; a step with a "full" batch runs as it is.
        left: architectures of the federation last prepared that turned out not to be batchable, and why.
    """

    device: torch.device = CPU
    dtype: torch.dtype = torch.float32
    chunk: int | None = None
    compile: bool = False
    left: dict[str, str] = field(default_factory=dict, repr=False)
    _compiled: dict[Any, Compiled] = field(default_factory=dict, repr=False, compare=False)
    _sequential: Sequential = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_sequential", Sequential(self.device, self.dtype, self.compile))

    def prepare(self, task: Task) -> Task:
        """Gradients by `torch.func.grad`, which can be batched; by the tape where the model cannot."""
        self.left.clear()  # what was learnt about another federation's models says nothing about these
        differentiate = _one_at_a_time(task.unbatchable) if task.unbatchable else gradient_by_func
        return replace(self._sequential.prepare(task), autodiff=differentiate)

    def run(self, algorithms: Mapping[str, Algorithm], broadcast: Tree, jobs: Sequence[Job]) -> Iterator[Reply]:
        """See `coterie.core.engine.Engine.run`."""
        keep_freed_memory()
        for architecture in dict.fromkeys(job.architecture for job in jobs):
            mine = [job for job in jobs if job.architecture == architecture]
            for part in self._chunks(algorithms[architecture], broadcast, mine):
                yield from self._alike(algorithms, architecture, broadcast, part)

    def _alike(
        self, algorithms: Mapping[str, Algorithm], architecture: str, broadcast: Tree, jobs: list[Job]
    ) -> Iterable[Reply]:
        """The replies of a chunk of clients of one architecture."""
        if architecture not in self.left:
            try:
                return self._work(algorithms[architecture], broadcast, jobs)
            except (
                RuntimeError,
                ValueError,
                NotImplementedError,
            ) as error:  # what torch.func raises at what it cannot batch
                self.left[architecture] = (str(error).splitlines() or [type(error).__name__])[0]
                log.warning(
                    "clients run one after another, since this model cannot be batched: %s", self.left[architecture]
                )
        return self._sequential.run(algorithms, broadcast, jobs)

    def _chunks(self, algorithm: Algorithm, broadcast: Tree, jobs: list[Job]) -> Iterator[list[Job]]:
        """Clients with most steps first, in chunks whose sizes differ by one at most."""
        jobs = sorted(jobs, key=lambda job: planned_steps(algorithm, job), reverse=True)
        each = 4 * (tree.nbytes(broadcast) + tree.nbytes(jobs[0].state)) + 1  # carry, gradient, its predecessor, update
        most = self.chunk or max(1, BUDGET // each)
        number = -(-len(jobs) // most)
        return (jobs[k * len(jobs) // number : (k + 1) * len(jobs) // number] for k in range(number))

    @torch.no_grad()
    def _work(self, algorithm: Algorithm, broadcast: Tree, jobs: list[Job]) -> list[Reply]:
        idle = _roomy(len(jobs)) - len(jobs) if self.compile else 0
        steps = [planned_steps(algorithm, job) for job in jobs] + [0] * idle  # descending
        real, jobs = len(jobs), jobs + [jobs[-1]] * idle
        ctx, states = self._contexts(algorithm, jobs, steps), tree.stack([job.state for job in jobs])
        carry = tree.clone(vmap(algorithm.client.start, in_dims=(None, 0, CONTEXT))(broadcast, states, ctx))
        streams = {name: _Stacked.of(name, algorithm, jobs, steps, self) for name in algorithm.client.streams}
        logs: Logs = {}
        done: list[Tree] = []  # the carries of those who are finished, shortest first
        active, working = len(jobs), ctx
        for k in range(steps[0]):
            left = self._kept(sum(s > k for s in steps), active)
            if left < active:
                carry, active = _cut(carry, active, left, done)
                working = _first_of(ctx, active)
            now = {name: s for name, s in streams.items() if k < s.lengths.shape[1]}
            step = self._step(algorithm, {name: s.dims for name, s in now.items()})
            carry, new = step(carry, {name: s.batch(k, active, self) for name, s in now.items()}, working)
            logs = _added(logs, new, len(jobs))
        carry = _joined([carry, *reversed(done)])
        updates, kept = vmap(algorithm.client.finish, in_dims=(None, 0, CONTEXT))(broadcast, carry, ctx)
        return _replies(jobs, updates, kept, logs, next(iter(streams.values())).counts())[:real]

    def _kept(self, working: int, active: int) -> int:
        """How many clients a step is done for, of whom so many are still at work."""
        return min(active, 1 << (working - 1).bit_length()) if self.compile else working

    def _step(self, algorithm: Algorithm, dims: dict[str, Any]) -> Step:
        """The step for all clients at once, whose batches are stacked in these places."""
        if not self.compile:
            return vmap(algorithm.client.step, in_dims=(0, dims, CONTEXT))
        batched = vmap(
            _unless_done(algorithm.client.step, next(iter(algorithm.client.streams))), in_dims=(0, dims, CONTEXT)
        )
        if any(algorithm.client.streams[name].is_full for name in dims):
            return batched
        key = algorithm.client.step, tuple((name, *dim) for name, dim in dims.items())
        if key not in self._compiled:
            self._compiled[key] = Compiled(batched, self.device)
        return self._compiled[key]

    def _contexts(self, algorithm: Algorithm, jobs: list[Job], steps: list[int]) -> Context:
        each = [context(algorithm, job, k, self) for job, k in zip(jobs, steps, strict=True)]
        shared = each[0]
        return Context(
            round=shared.round,
            examples=torch.stack([c.examples for c in each]),
            steps=torch.stack([c.steps for c in each]),
            lr=shared.lr,
            key=torch.stack([c.key for c in each]),
            seed_set=shared.seed_set,
        )


CONTEXT: Any = Context(round=None, examples=0, steps=0, lr=None, key=0, seed_set=None)  # type: ignore[arg-type]
"""Which entries of a chunk's context differ between clients."""


def _first_of(ctx: Context, n: int) -> Context:
    """The context of a chunk's first n clients."""
    return ctx._replace(examples=ctx.examples[:n], steps=ctx.steps[:n], key=ctx.key[:n])


class _Stacked(NamedTuple):
    """One stream of a chunk: which rows of a common pool each client's steps take."""

    pool: Examples
    rows: Tensor  # [n, K, B] int64, within a client's own data; padded with 0
    places: Tensor  # [n, K, B] int64, the same examples in the pool
    lengths: Tensor  # [n, K] how many of a step's rows are real; 0 after the client's last step
    keys: Tensor  # [n, K]

    @classmethod
    def of(cls, name: str, algorithm: Algorithm, jobs: list[Job], steps: list[int], engine: Vectorised) -> _Stacked:
        parts = [job.data[name] for job in jobs]
        pool, looked_up = _common_pool(parts)
        planned = [planned_rows(algorithm, job, k)[name] for job, k in zip(jobs, steps, strict=True)]
        width = max(len(rows) for client in planned for rows in client)
        filler = torch.zeros(width, dtype=torch.int64)
        rows = [pad_sequence([*client, filler], batch_first=True)[:-1] for client in planned]  # [K_i, B] each
        places = [lookup[own] for lookup, own in zip(looked_up, rows, strict=True)]
        lengths = [torch.tensor([len(batch) for batch in client], dtype=torch.int64) for client in planned]
        keys = [planned_keys(algorithm, job, k)[name] for job, k in zip(jobs, steps, strict=True)]
        padded = (pad_sequence(each, batch_first=True) for each in (rows, places, lengths, keys))
        return cls(pool, *padded)

    @property
    def dims(self) -> Any:
        """Which entries of a batch are stacked."""
        ragged = bool((self.lengths != self.rows.shape[2]).any())
        return Batch(0, None if self.pool.y is None else 0, 0, 0 if ragged else None, 0)  # type: ignore[arg-type]

    def batch(self, k: int, active: int, engine: Vectorised) -> Batch:
        """Step k of the first `active` clients: x [a, B, ...], y [a, B, ...], rows and mask [a, B], keys [a]."""
        lengths = self.lengths[:active, k]
        width = self.rows.shape[2] if engine.compile else int(lengths.max())
        x, y = self.pool.batch(self.places[:active, k, :width].reshape(-1))
        mask = None if self.dims.mask is None else (torch.arange(width) < lengths[:, None]).to(engine.device)
        return Batch(
            as_input(x, engine).reshape(active, width, *x.shape[1:]),
            None if y is None else as_input(y, engine).reshape(active, width, *y.shape[1:]),
            self.rows[:active, k, :width].to(engine.device),
            mask,
            self.keys[:active, k].to(engine.device),
        )

    def counts(self) -> list[float]:
        """Examples that each client processes."""
        return [float(c) for c in self.lengths.sum(1)]


def _common_pool(parts: list[Examples]) -> tuple[Examples, list[Tensor]]:
    """One pool for all clients, and for each client where its examples stand in it, int64 [n_i]."""
    first = parts[0]
    if all(p.x is first.x and p.y is first.y for p in parts):
        return Examples(first.x, first.y), [torch.arange(len(p.x)) if p.rows is None else p.rows for p in parts]
    pool = pool_examples([Examples(*p.tensors()) for p in parts])
    return pool, list(torch.split(torch.arange(len(pool)), [len(p) for p in parts]))


def _one_at_a_time(why: str) -> Differentiate:
    """The tape, for a model that cannot be batched; in a batched call it says why."""

    def differentiate(f: Callable[[Tree], tuple[Tensor, Any]], params: Tree) -> tuple[Tree, Any]:
        try:
            next(iter(params.values())).detach().requires_grad_()
        except RuntimeError as error:  # the tape does not work under vmap
            raise RuntimeError(why) from error
        return gradient_by_tape(f, params)

    return differentiate


def _roomy(n: int) -> int:
    """The least number from n on that is 4, 5, 6 or 7 times a power of two, or less than 4; at most a quarter more.

    >>> [_roomy(n) for n in (1, 3, 7, 9, 17, 21, 29)]
    [1, 3, 7, 10, 20, 24, 32]
    """
    unit = 1 << max(n.bit_length() - 3, 0)
    return -(-n // unit) * unit


def _unless_done(step: Step, first: str) -> Step:
    """The step of one client, which changes nothing where the client is done: where no example of its first stream is
    real.
    """

    def guarded(carry: Tree, batches: Batches, ctx: Context) -> tuple[Tree, Logs]:
        mask = batches[first].mask
        if mask is None:
            return step(carry, batches, ctx)
        working, before = mask.any(), tree.clone(carry)  # a step may write into its carry
        after, logs = step(carry, batches, ctx)
        kept = tree.map(lambda new, old: torch.where(working, new, old), after, before)
        return kept, {name: torch.where(working, value, 0.0) for name, value in logs.items()}

    return guarded


def _cut(carry: Tree, active: int, left: int, done: list[Tree]) -> tuple[Tree, int]:
    """Set the carries of those who are finished aside."""
    done.append(tree.map(lambda c: c[left:active], carry))
    return tree.map(lambda c: c[:left], carry), left


def _joined(parts: list[Tree]) -> Tree:
    return parts[0] if len(parts) == 1 else tree.map(lambda *xs: torch.cat(xs), *parts)


def _added(logs: Logs, new: Logs, n: int) -> Logs:
    """Sums of each client's logs [n]; clients that are done add nothing."""
    padded = {name: torch.cat([value, value.new_zeros(n - len(value))]) for name, value in new.items()}
    return {name: logs[name] + value for name, value in padded.items()} if logs else padded


def _replies(jobs: list[Job], updates: Tree, kept: Tree, logs: Logs, processed: list[float]) -> list[Reply]:
    n = len(jobs)
    numbers = {name: value.tolist() for name, value in logs.items()}
    return [
        Reply(
            job.client,
            update,
            tree.clone(state),  # it is kept for long; a view would keep the whole chunk's states with it
            {"examples": float(len(next(iter(job.data.values())))), "processed": count, "one": 1.0},
            {name: values[i] for name, values in numbers.items()},
        )
        for i, (job, update, state, count) in enumerate(
            zip(jobs, tree.unstack(updates, n), tree.unstack(kept, n), processed, strict=True)
        )
    ]
