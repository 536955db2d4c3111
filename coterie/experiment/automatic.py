"""What "auto" means: which engine, how many clients at once, whether steps are compiled, and how many processes, as a
pure function of the work and of the machine. No timing decides, so that the same file does the same thing twice.

The figures behind it are rough: seconds of a local step from its floating-point operations, seconds of a compilation
from the number of layers. They were measured on one core with AVX-512 (`docs/speed.md`); being wrong by a factor of two
costs little.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd

from coterie.core import tree
from coterie.core.algorithm import Algorithm
from coterie.core.batching import batch_size, num_steps
from coterie.core.examples import Examples
from coterie.loop.plan import Plan
from coterie.models.recurrent import PeepholeLSTM

RATE = 50e9
"""Floating-point operations that one core does in a second of training, about."""
STEP = 3e-4
"""Seconds that a step takes beside them."""
GAIN = 0.3
"""The share of its time that a compiled step saves."""
COMPILATION, PER_LAYER = 5.0, 1.0
"""Seconds to compile a step: for any, and for each layer."""
SHARE = 16
"""A chunk of clients may take one part in so many of the memory."""
COPIES = 4
"""A client at work: its weights, their gradient, what they were before, and the update."""
PROCESS = 2**29
"""Bytes that a process takes beside its data."""
WORTH_A_TEAM = 60.0
"""Seconds of work from which more processes are started, each of which takes some seconds to begin."""


@dataclass(frozen=True)
class Machine:
    """What a choice may depend on.

    Attributes:
        cores: that this process may use.
        memory: in bytes, of the device if that has less.
        device: where torch would compute, "cuda" or "cpu".
        compiler: whether there is a C++ compiler.
    """

    cores: int
    memory: int
    device: str
    compiler: bool

    def __str__(self) -> str:
        compiler = "a C++ compiler" if self.compiler else "no C++ compiler"
        return f"{self.cores} cores, {self.memory / 2**30:.0f} GiB, {self.device}, {compiler}"


@dataclass(frozen=True)
class Work:
    """What a run consists of, about.

    Attributes:
        cohort: clients of a round.
        steps: local steps of the whole run, all clients together.
        flops: floating-point operations of a step.
        layers: of the models.
        nbytes: that a client at work takes. data: of the examples that every process holds.
        uncompilable: why its steps cannot be compiled, or empty.
        unbatchable: why clients cannot be batched, or empty.
    """

    cohort: int
    steps: int
    flops: float
    layers: int
    nbytes: int = 0
    data: int = 0
    uncompilable: str = ""
    unbatchable: str = ""

    @property
    def seconds(self) -> float:
        """Of one core for the whole run."""
        return self.steps * (STEP + self.flops / RATE)


@dataclass(frozen=True)
class Choice:
    """What runs the work, and in words why: in which order clients work, how their steps run.

    `chunk` is how many clients at once, None where they take turns.
    """

    name: Literal["sequential", "vectorised"]
    chunk: int | None
    compile: bool
    workers: int
    order: str
    steps: str


def choose(work: Work, machine: Machine) -> Choice:
    """The engine, compilation and number of processes that suit the work on this machine.

    >>> laptop = Machine(cores=2, memory=2**34, device="cpu", compiler=True)
    >>> choice = choose(Work(cohort=10, steps=1000, flops=1e7, layers=6), laptop)
    >>> choice.order, choice.steps
    ('one client after another (fastest on a CPU)', 'steps as they are (0 s of work in all)')
    """
    batched = machine.device != "cpu" and not work.unbatchable
    chunk = fitting(work, machine) if batched else None
    order = (
        f"up to {chunk} clients at once"
        if batched
        else f"one client after another ({work.unbatchable or 'fastest on a CPU'})"
    )
    compiled, why_compiled = _compiled(work, machine)
    seconds = work.seconds * (1 - GAIN if compiled else 1)
    team = machine.device == "cpu" and seconds >= WORTH_A_TEAM
    room = machine.memory // 2 // (PROCESS + work.data)
    workers = max(1, min(machine.cores, work.cohort, room)) if team else 1
    name: Literal["sequential", "vectorised"] = "vectorised" if batched else "sequential"
    return Choice(name, chunk, compiled, workers, order, f"steps {why_compiled}")


def fitting(work: Work, machine: Machine) -> int:
    """How many clients of a cohort may be at work at once: as many as fit the machine's memory.

    >>> laptop = Machine(cores=2, memory=2**34, device="cpu", compiler=True)
    >>> fitting(Work(cohort=1000, steps=1, flops=0.0, layers=6, nbytes=2**22), laptop)
    256
    """
    return max(1, min(work.cohort, machine.memory // SHARE // max(1, work.nbytes)))


def _compiled(work: Work, machine: Machine) -> tuple[bool, str]:
    """Whether steps are compiled, and why."""
    cost = COMPILATION + PER_LAYER * work.layers
    if machine.device != "cpu":
        return False, "as they are (no compilation on a GPU unless asked for)"
    if not machine.compiler:
        return False, "as they are (no C++ compiler)"
    if work.uncompilable:
        return False, f"as they are ({work.uncompilable})"
    if GAIN * work.seconds < 2 * cost:
        return False, f"as they are ({work.seconds:.0f} s of work in all)"
    return True, f"compiled ({work.seconds:.0f} s of work in all, about {cost:.0f} s to compile)"


def work_of(plan: Plan, models: Sequence[nn.Module], looked_at: int = 10) -> Work:
    """What a plan of these models consists of, judged by its first clients."""
    cohort = plan.cohort.count(len(plan.ids))
    found = [(plan.data(client), plan.architecture(client)) for client in plan.ids[:looked_at]]
    known = [(data, plan.algorithms[architecture]) for data, architecture in found if all(map(len, data.values()))]
    per_client = sum(_steps(algorithm, data) for data, algorithm in known) / max(len(known), 1)
    examples = sum(_examples(algorithm, data) for data, algorithm in known) / max(len(known), 1)
    in_a_step = examples / max(per_client, 1)
    flops, between = _forward(models, known[0][0]) if known else (0.0, 0)
    reasons = [task.unbatchable for task in plan.tasks.values()]
    uncompilable = [task.unpaddable for task in plan.tasks.values()]
    uncompilable += [_uncompilable(model, plan.algorithm) for model in models]
    return Work(
        cohort=cohort,
        steps=round(plan.rounds * cohort * per_client),
        flops=3 * flops * in_a_step,
        layers=sum(1 for model in models for module in model.modules() if not list(module.children())),
        nbytes=COPIES * max(map(tree.nbytes, plan.initial.values())) + round(2 * between * in_a_step),
        data=_held([data for data, _ in known]),
        uncompilable=next(filter(None, uncompilable), ""),
        unbatchable=(reasons[0] or "") if all(reasons) else "",
    )


def _steps(algorithm: Algorithm, data: Mapping[str, Examples]) -> int:
    name, stream = next(iter(algorithm.client.streams.items()))
    return num_steps(stream, len(data[name]))


def _examples(algorithm: Algorithm, data: Mapping[str, Examples]) -> int:
    """How many examples pass through a client's steps, of all streams."""
    steps = _steps(algorithm, data)
    return sum(
        (1 if s.once else steps) * batch_size(s, len(data[name])) for name, s in algorithm.client.streams.items()
    )


def _forward(models: Sequence[nn.Module], data: Mapping[str, Examples]) -> tuple[float, int]:
    """Floating-point operations of one example's forward pass, and bytes of what its layers give: the mean over the
    models, and the most.
    """
    x, _ = next(iter(data.values())).batch(torch.arange(1))
    each = [_one_forward(model, x) for model in models]
    return sum(flops for flops, _ in each) / len(each), max(size for _, size in each)


def _one_forward(model: nn.Module, x: Tensor) -> tuple[float, int]:
    """Operations of the products with its matrices and kernels, and bytes. PyTorch's own counter is more exact, but
    takes a second to import.
    """
    training, flops, sizes = model.training, [0.0], [0]

    def note(module: nn.Module, inputs: object, output: Any) -> None:
        out = output[0] if isinstance(output, tuple) else output
        if isinstance(out, Tensor) and out.numel():
            sizes.append(out.numel() * out.element_size())
            flops.append(2.0 * _entries(module) * out.numel() / out.shape[1 if isinstance(module, _ConvNd) else -1])

    like = next((p for p in model.parameters() if p.is_floating_point()), None)
    x = x.to(like.device, like.dtype) if like is not None and x.is_floating_point() else x
    hooks = [module.register_forward_hook(note) for module in model.modules() if not _contains(module)]
    try:
        with torch.no_grad():
            model.eval()(x)
    finally:
        model.train(training)
        for hook in hooks:
            hook.remove()
    return sum(flops), sum(sizes)


def _contains(module: nn.Module) -> bool:
    """Whether it is made of layers, with no matrix of its own."""
    return next(module.children(), None) is not None and not _entries(module)


def _entries(module: nn.Module) -> int:
    """Numbers in the matrices and kernels of a layer, each of which meets every position once."""
    own = [] if isinstance(module, nn.Embedding | nn.EmbeddingBag) else module.parameters(recurse=False)
    return sum(p.numel() for p in own if p.dim() > 1)


def _held(data: Sequence[Mapping[str, Examples]]) -> int:
    """Bytes of these clients' examples, a pool that they share counted once."""
    pools = {id(t): t for held in data for examples in held.values() for t in (examples.x, examples.y) if t is not None}
    return sum(t.numel() * t.element_size() for t in pools.values())


def _uncompilable(model: nn.Module, algorithm: Algorithm) -> str:
    """Why steps cannot be compiled, or empty."""
    if any(isinstance(module, (nn.RNNBase, PeepholeLSTM)) for module in model.modules()):
        return "a recurrent layer would make a very long program"
    full = next(iter(algorithm.client.streams.values())).batch_size == "full"
    return "full batches differ in length" if full else ""
