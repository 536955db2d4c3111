"""Run many clients at once: a chunk of the cohort is one stacked tensor per leaf, and every step one batched call.

Clients of a chunk are sorted by their number of steps, most first, so that those still at work are always the first
ones. A finished client is cut off, and nothing is computed for it. Within a step, short batches are padded and masked,
which changes nothing (see `coterie.core.task.masked_sums` and
`coterie.models.layers.MaskedBatchNorm`).

A compiled step serves one number of clients. To need few of them, a chunk is then filled up to a round number with
clients that have no steps, and cut at powers of two only. Until the next cut, a finished client is still part of the
step, but its carry stays unchanged.

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
from coterie.core.batching import width_of_padding
from coterie.core.engine import (
    Job,
    Reply,
    as_input,
    batch_rows,
    client_context,
    count_expected,
    count_steps,
    draw_noise,
    step_keys,
)
from coterie.core.errors import Mistake, reason
from coterie.core.examples import Examples, pool_examples
from coterie.core.task import Batch, Differentiate, Task, gradient_by_func, gradient_by_tape
from coterie.core.tree import Tree
from coterie.engines.compiled import Compiled, Step
from coterie.engines.malloc import keep_freed_memory
from coterie.engines.mixed_precision import Precision
from coterie.engines.sequential import CPU, Sequential

log = logging.getLogger(__name__)
CHUNK_BYTES = 2**30
"""How much memory the carries of a chunk may take, if `chunk` does not set its size."""


@dataclass(frozen=True)
class Vectorised:
    """The vectorised engine. The sequential engine runs models that cannot be batched, and the log says why.

    Attributes:
        chunk: how many clients run at once; by default as many as fit into `CHUNK_BYTES`.
        compile: compile the step for all clients at once. A step with a "full" batch is not compiled.
        precision: "bf16" computes forwards by autocast; see `coterie.engines.mixed_precision`.
        unbatched: architecture -> why it cannot be batched, for the federation that was prepared last.
    """

    device: torch.device = CPU
    dtype: torch.dtype = torch.float32
    chunk: int | None = None
    compile: bool = False
    precision: Precision = "full"
    unbatched: dict[str, str] = field(default_factory=dict, repr=False)
    _compiled: dict[Any, Compiled] = field(default_factory=dict, repr=False, compare=False)
    _sequential: Sequential = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Make the sequential engine that runs what cannot be batched."""
        object.__setattr__(self, "_sequential", Sequential(self.device, self.dtype, self.compile, self.precision))

    def prepare(self, tasks: Mapping[str, Task]) -> dict[str, Task]:
        """Return the tasks with gradients by `torch.func.grad`, or by the tape for models that cannot be batched."""
        self.unbatched.clear()  # an earlier federation's models have no say
        prepared = self._sequential.prepare(tasks)
        return {
            name: replace(t, autodiff=_unbatchable_gradient(t.unbatchable) if t.unbatchable else _gradient_by_either)
            for name, t in prepared.items()
        }

    def run(self, algorithms: Mapping[str, Algorithm], broadcast: Tree, jobs: Sequence[Job]) -> Iterator[Reply]:
        """Yield the replies of one chunk of clients after another; see `coterie.core.engine.Engine.run`."""
        keep_freed_memory()
        for architecture in dict.fromkeys(job.architecture for job in jobs):
            mine = [job for job in jobs if job.architecture == architecture]
            for part in self._chunks(algorithms[architecture], broadcast, mine):
                yield from self._run_chunk(algorithms, architecture, broadcast, part)

    def _run_chunk(
        self, algorithms: Mapping[str, Algorithm], architecture: str, broadcast: Tree, jobs: list[Job]
    ) -> Iterable[Reply]:
        """Return the replies of a chunk: batched, in halves if memory is too small, or one client after another."""
        if architecture not in self.unbatched:
            try:
                return self._run_batched(algorithms[architecture], broadcast, jobs)
            except MemoryError as error:
                exhausted = reason(error)
            except (RuntimeError, ValueError, NotImplementedError) as error:  # torch.func's, if it cannot batch a model
                exhausted = reason(error) if _is_out_of_memory(error) else ""
                if not exhausted:
                    self._note_unbatched(architecture, error)
            if exhausted:
                return self._run_halves(algorithms, architecture, broadcast, jobs, exhausted)
        return self._sequential.run(algorithms, broadcast, jobs)

    def _run_halves(
        self, algorithms: Mapping[str, Algorithm], architecture: str, broadcast: Tree, jobs: list[Job], why: str
    ) -> Iterator[Reply]:
        """Yield the replies of a chunk that does not fit into memory, in two smaller chunks; refuse a single client."""
        if len(jobs) == 1:
            raise Mistake(
                f"the memory of {self.device} is too small for the work of one client ({why}); lower `batch_size` or "
                "choose a smaller model"
            )
        half = -(-len(jobs) // 2)
        log.warning(
            "%d clients at once do not fit into memory: running %d at once; set chunk = %d", len(jobs), half, half
        )
        for part in (jobs[:half], jobs[half:]):
            yield from self._run_chunk(algorithms, architecture, broadcast, part)

    def _note_unbatched(self, architecture: str, error: Exception) -> None:
        """Note and log why an architecture cannot be batched."""
        self.unbatched[architecture] = (str(error).splitlines() or [type(error).__name__])[0]
        log.warning(
            "clients run one after another, since this model cannot be batched: %s", self.unbatched[architecture]
        )

    def _chunks(self, algorithm: Algorithm, broadcast: Tree, jobs: list[Job]) -> Iterator[list[Job]]:
        """Yield chunks of clients, those with most steps first; the chunks' sizes differ by at most one."""
        jobs = sorted(jobs, key=lambda job: count_steps(algorithm, job), reverse=True)
        each = 4 * (tree.nbytes(broadcast) + tree.nbytes(jobs[0].state)) + 1  # carry, gradient, its predecessor, update
        most = self.chunk or max(1, CHUNK_BYTES // each)
        number = -(-len(jobs) // most)
        return (jobs[k * len(jobs) // number : (k + 1) * len(jobs) // number] for k in range(number))

    @torch.no_grad()
    def _run_batched(self, algorithm: Algorithm, broadcast: Tree, jobs: list[Job]) -> list[Reply]:
        """Return the replies of a chunk whose clients run all at once."""
        idle = _round_up(len(jobs)) - len(jobs) if self.compile else 0
        steps = [count_steps(algorithm, job) for job in jobs] + [0] * idle  # descending
        real, jobs = len(jobs), jobs + [jobs[-1]] * idle
        ctx, states = self._stack_contexts(algorithm, jobs, steps), tree.stack([job.state for job in jobs])
        carry = tree.clone(vmap(algorithm.client.start, in_dims=(None, 0, CONTEXT_DIMS))(broadcast, states, ctx))
        streams = {name: _StackedStream.stack(name, algorithm, jobs, steps, self) for name in algorithm.client.streams}
        logs: Logs = {}
        done: list[Tree] = []  # the carries of those who are finished, shortest first
        active, working = len(jobs), ctx
        for k in range(steps[0]):
            left = self._count_active(sum(s > k for s in steps), active)
            if left < active:
                carry, active = _cut_finished(carry, active, left, done)
                working = _first_clients(ctx, active)
            now = {name: s for name, s in streams.items() if k < s.lengths.shape[1]}
            step = self._step(algorithm, {name: s.dims for name, s in now.items()})
            carry, new = step(carry, {name: s.batch(k, active, self) for name, s in now.items()}, working)
            logs = _add_logs(logs, new, len(jobs))
        carry = _concatenate([carry, *reversed(done)])
        updates, states_after = vmap(algorithm.client.finish, in_dims=(None, 0, CONTEXT_DIMS))(broadcast, carry, ctx)
        return _replies(jobs, updates, states_after, logs, next(iter(streams.values())).counts())[:real]

    def _count_active(self, working: int, active: int) -> int:
        """Return how many clients the next step computes, given how many of them still have steps."""
        return min(active, 1 << (working - 1).bit_length()) if self.compile else working

    def _step(self, algorithm: Algorithm, dims: dict[str, Any]) -> Step:
        """Return the step for all clients at once, compiled if asked for and possible.

        `dims` says along which dimension each entry of a batch is stacked.
        """
        if not self.compile:
            return vmap(algorithm.client.step, in_dims=(0, dims, CONTEXT_DIMS))
        batched = vmap(
            _skip_finished(algorithm.client.step, next(iter(algorithm.client.streams))), in_dims=(0, dims, CONTEXT_DIMS)
        )
        if any(algorithm.client.streams[name].is_full for name in dims):
            return batched
        key = algorithm.client.step, tuple((name, *dim) for name, dim in dims.items())
        if key not in self._compiled:
            self._compiled[key] = Compiled(batched, self.device)
        return self._compiled[key]

    def _stack_contexts(self, algorithm: Algorithm, jobs: list[Job], steps: list[int]) -> Context:
        """Return the context of a chunk: what differs between clients is stacked, the rest is shared."""
        each = [client_context(algorithm, job, k, self) for job, k in zip(jobs, steps, strict=True)]
        shared = each[0]
        return Context(
            round=shared.round,
            examples=torch.stack([c.examples for c in each]),
            steps=torch.stack([c.steps for c in each]),
            lr=shared.lr,
            key=torch.stack([c.key for c in each]),
            seed_set=shared.seed_set,
        )


CONTEXT_DIMS: Any = Context(round=None, examples=0, steps=0, lr=None, key=0, seed_set=None)  # type: ignore[arg-type]
"""The dimension of each entry of a chunk's context along which clients are stacked; None: all clients share it."""


def _first_clients(ctx: Context, n: int) -> Context:
    """Return the context of a chunk's first n clients."""
    return ctx._replace(examples=ctx.examples[:n], steps=ctx.steps[:n], key=ctx.key[:n])


class _StackedStream(NamedTuple):
    """One stream of a chunk: the rows of a common pool that each client's steps use."""

    pool: Examples
    rows: Tensor  # [n, K, B] int64, within a client's own data; padded with 0
    places: Tensor  # [n, K, B] int64, the same examples in the pool
    lengths: Tensor  # [n, K] how many of a step's rows are real; 0 after the client's last step
    keys: Tensor  # [n, K]
    expected: Tensor | None = None  # [n, K] the size of a Poisson batch on average; 0 after the client's last step
    draw: Callable[[int, int], Tensor | None] = lambda client, k: None  # the noise of a client's step k
    noisy: bool = False  # whether there is any

    @classmethod
    def stack(
        cls, name: str, algorithm: Algorithm, jobs: list[Job], steps: list[int], engine: Vectorised
    ) -> _StackedStream:
        """Plan the batches of one stream for every client of a chunk, and stack them."""
        parts = [job.data[name] for job in jobs]
        pool, looked_up = _common_pool(parts)
        planned = [batch_rows(algorithm, job, k)[name] for job, k in zip(jobs, steps, strict=True)]
        stream = algorithm.client.streams[name]
        width = max(1, *(len(rows) for client in planned for rows in client))  # Poisson batches may all be empty
        if engine.compile and stream.poisson:
            width = max(width, *(width_of_padding(stream, len(part)) for part in parts))
        filler = torch.zeros(width, dtype=torch.int64)
        rows = [pad_sequence([*client, filler], batch_first=True)[:-1] for client in planned]  # [K_i, B] each
        places = [lookup[own] for lookup, own in zip(looked_up, rows, strict=True)]
        lengths = [torch.tensor([len(batch) for batch in client], dtype=torch.int64) for client in planned]
        keys = [step_keys(algorithm, job, k)[name] for job, k in zip(jobs, steps, strict=True)]
        padded = cls(pool, *(pad_sequence(each, batch_first=True) for each in (rows, places, lengths, keys)))  # type: ignore[arg-type]
        sizes = [count_expected(stream, len(part)) for part in parts]
        sized = [torch.full([len(own)], e, dtype=engine.dtype) for e, own in zip(sizes, planned, strict=True) if e]
        return padded._replace(
            expected=pad_sequence(sized, batch_first=True) if sized else None,
            draw=lambda client, k: draw_noise(stream, jobs[client], name, k, engine),
            noisy=stream.noise > 0,
        )

    @property
    def dims(self) -> Any:
        """Return the dimension of each entry of a batch along which clients are stacked."""
        ragged = self.expected is not None or bool((self.lengths != self.rows.shape[2]).any())
        own = None if self.expected is None else 0
        noise = 0 if self.noisy else None
        return Batch(0, None if self.pool.y is None else 0, 0, 0 if ragged else None, 0, own, noise)  # type: ignore[arg-type]

    def batch(self, k: int, active: int, engine: Vectorised) -> Batch:
        """Return step k's batch of the first `active` clients: x, y [a, B, ...], rows and mask [a, B], keys [a]."""
        lengths = self.lengths[:active, k]
        width = self.rows.shape[2] if engine.compile else max(1, int(lengths.max()))
        drawn = [self.draw(client, k) for client in range(active)]
        noise = [x for x in drawn if x is not None]
        x, y = self.pool.batch(self.places[:active, k, :width].reshape(-1))
        mask = None if self.dims.mask is None else (torch.arange(width) < lengths[:, None]).to(engine.device)
        return Batch(
            as_input(x, engine).reshape(active, width, *x.shape[1:]),
            None if y is None else as_input(y, engine).reshape(active, width, *y.shape[1:]),
            self.rows[:active, k, :width].to(engine.device),
            mask,
            self.keys[:active, k].to(engine.device),
            None if self.expected is None else self.expected[:active, k].to(engine.device),
            torch.stack(noise) if noise else None,
        )

    def counts(self) -> list[float]:
        """Return how many examples each client processes."""
        each = self.lengths if self.expected is None else self.expected
        return [float(c) for c in each.sum(1)]


def _common_pool(parts: list[Examples]) -> tuple[Examples, list[Tensor]]:
    """Return one pool for all clients, and the positions of each client's examples in it, int64 [n_i]."""
    first = parts[0]
    if all(p.x is first.x and p.y is first.y for p in parts):
        return Examples(first.x, first.y), [torch.arange(len(p.x)) if p.rows is None else p.rows for p in parts]
    pool = pool_examples([Examples(*p.tensors()) for p in parts])
    return pool, list(torch.split(torch.arange(len(pool)), [len(p) for p in parts]))


def _gradient_by_either(f: Callable[[Tree], tuple[Tensor, Any]], params: Tree) -> tuple[Tree, Any]:
    """Differentiate by torch.func, or, for one client at a time, by the tape where torch.func cannot."""
    try:
        return gradient_by_func(f, params)
    except RuntimeError as error:
        if _is_out_of_memory(error) or _is_batched(params):
            raise
        return gradient_by_tape(f, params)


def _is_batched(params: Tree) -> bool:
    """Return whether these are parameters within a batched call, where the tape does not work."""
    try:
        next(iter(params.values())).detach().requires_grad_()
    except RuntimeError:
        return True
    return False


def _unbatchable_gradient(why: str) -> Differentiate:
    """Return the tape's gradient for a model that cannot be batched; in a batched call it raises the reason."""

    def differentiate(f: Callable[[Tree], tuple[Tensor, Any]], params: Tree) -> tuple[Tree, Any]:
        """Differentiate by the tape; in a batched call, raise the reason."""
        if _is_batched(params):
            raise RuntimeError(why)
        return gradient_by_tape(f, params)

    return differentiate


def _is_out_of_memory(error: Exception) -> bool:
    """Return whether PyTorch ran out of memory; on a CPU it raises a plain RuntimeError."""
    text = str(error)
    return isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in text or "out of memory" in text


def _round_up(n: int) -> int:
    """Return the least number from n on that is below 4, or 4 to 7 times a power of two: at most a quarter more.

    >>> [_round_up(n) for n in (1, 3, 7, 9, 17, 21, 29)]
    [1, 3, 7, 10, 20, 24, 32]
    """
    unit = 1 << max(n.bit_length() - 3, 0)
    return -(-n // unit) * unit


def _skip_finished(step: Step, first: str) -> Step:
    """Return a step that changes nothing if the client is finished: if no example of its first stream is real."""

    def step_unless_done(carry: Tree, batches: Batches, ctx: Context) -> tuple[Tree, Logs]:
        mask = batches[first].mask
        if mask is None:
            return step(carry, batches, ctx)
        expected = batches[first].expected  # a Poisson batch without an example is a step too
        working = mask.any() if expected is None else expected > 0
        before = tree.clone(carry)  # a step may write into its carry
        after, logs = step(carry, batches, ctx)
        kept = tree.map(lambda new, old: torch.where(working, new, old), after, before)
        return kept, {name: torch.where(working, value, 0.0) for name, value in logs.items()}

    return step_unless_done


def _cut_finished(carry: Tree, active: int, left: int, done: list[Tree]) -> tuple[Tree, int]:
    """Return the carries of the clients that go on and their number; append the others' to `done`."""
    done.append(tree.map(lambda c: c[left:active], carry))
    return tree.map(lambda c: c[:left], carry), left


def _concatenate(parts: list[Tree]) -> Tree:
    """Return the trees joined leaf by leaf along the first dimension."""
    return parts[0] if len(parts) == 1 else tree.map(lambda *xs: torch.cat(xs), *parts)


def _add_logs(logs: Logs, new: Logs, n: int) -> Logs:
    """Return each client's sums of logs [n]; finished clients add nothing."""
    padded = {name: torch.cat([value, value.new_zeros(n - len(value))]) for name, value in new.items()}
    return {name: logs[name] + value for name, value in padded.items()} if logs else padded


def _replies(jobs: list[Job], updates: Tree, states: Tree, logs: Logs, processed: list[float]) -> list[Reply]:
    """Return each client's reply, cut from the chunk's stacked results."""
    n = len(jobs)
    numbers = {name: value.tolist() for name, value in logs.items()}
    return [
        Reply(
            job.client,
            update,
            tree.clone(state),  # a view would keep the states of the whole chunk in memory
            {"examples": float(len(next(iter(job.data.values())))), "processed": count, "one": 1.0},
            {name: values[i] for name, values in numbers.items()},
        )
        for i, (job, update, state, count) in enumerate(
            zip(jobs, tree.unstack(updates, n), tree.unstack(states, n), processed, strict=True)
        )
    ]
