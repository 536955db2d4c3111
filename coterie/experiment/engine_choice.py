"""What "auto" means: a pure function of the work and of the machine.

It chooses the engine, how many clients work at once, whether steps are compiled, and how many processes and threads
there are. No timing decides, so that the same file does the same thing twice.

Its constants are rough: the seconds of a local step from its floating-point operations, and the seconds of a
compilation from the number of layers. They were measured on one core with AVX-512 (`docs/speed.md`); being wrong by a
factor of two costs little.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

FLOPS_PER_SECOND = 50e9
"""Floating-point operations that one core does in a second of training, about."""
STEP_SECONDS = 3e-4
"""Seconds that a step takes besides its operations."""
COMPILED_GAIN = 0.3
"""The share of its time that a compiled step saves."""
COMPILATION_SECONDS, LAYER_SECONDS = 5.0, 1.0
"""Seconds to compile a step: for any step, and for each layer."""
CHUNK_MEMORY_DIVISOR = 16
"""A chunk of clients may take one part in this many of the memory."""
PROCESS_BYTES = 2**29
"""Bytes that a process takes besides its data."""
MIN_SHARED_SECONDS, MIN_COPIED_SECONDS = 60.0, 15.0
"""Seconds of work from which on more processes are started, which takes some seconds for each, or one for a copy."""
MIN_THREADED_FLOPS = 5e8
"""Floating-point operations of a step from which on several threads are faster than one. Where they are slower or as
fast, one thread leaves the other cores to others."""


@dataclass(frozen=True)
class Machine:
    """What a choice may depend on.

    Attributes:
        cores: how many this process may use.
        memory: in bytes, of the device if it has less.
        device: where torch would compute, "cuda" or "cpu".
        compiler: whether there is a C++ compiler.
        threads: with how many PyTorch computes unless it is told otherwise; None: as many as there are cores.
        threads_are_set: whether the user's environment says so, as OMP_NUM_THREADS does.
        copies: whether a further process starts as a copy of the first, which has everything loaded and shares it.
    """

    cores: int
    memory: int
    device: str
    compiler: bool
    threads: int | None = None
    threads_are_set: bool = False
    copies: bool = False

    def __str__(self) -> str:
        compiler = "a C++ compiler" if self.compiler else "no C++ compiler"
        return f"{self.cores} cores, {self.memory / 2**30:.0f} GiB, {self.device}, {compiler}"


@dataclass(frozen=True)
class Work:
    """About how much work a run is.

    Attributes:
        cohort: clients of a round.
        steps: local steps of the whole run, of all clients together.
        flops: floating-point operations of a step.
        layers: of the models.
        nbytes: bytes that a client at work takes.
        data: bytes of the examples that every process holds.
        order: bytes of the numbers of the examples in one client's batches of a round.
        uncompilable: why its steps cannot be compiled, or empty.
        unbatchable: why clients cannot be batched, or empty.
    """

    cohort: int
    steps: int
    flops: float
    layers: int
    nbytes: int = 0
    data: int = 0
    order: int = 0
    uncompilable: str = ""
    unbatchable: str = ""

    @property
    def seconds(self) -> float:
        """Seconds of one core for the whole run."""
        return self.steps * (STEP_SECONDS + self.flops / FLOPS_PER_SECOND)


@dataclass(frozen=True)
class EngineChoice:
    """What runs the work, and why.

    Attributes:
        chunk: how many clients work at once; None where they take turns.
        order: in words, in which order clients work, and why.
        steps: in words, how their steps run, and why.
        threads: of each process, where it is the only one.
    """

    name: Literal["sequential", "vectorised"]
    chunk: int | None
    compile: bool
    workers: int
    order: str
    steps: str
    threads: int = 1


def choose_engine(work: Work, machine: Machine) -> EngineChoice:
    """Return the engine, compilation and number of processes that suit the work on this machine.

    >>> laptop = Machine(cores=2, memory=2**34, device="cpu", compiler=True)
    >>> choice = choose_engine(Work(cohort=10, steps=1000, flops=1e7, layers=6), laptop)
    >>> choice.order, choice.steps
    ('one client after another (fastest on a CPU)', 'steps as they are (0 s of work in all)')
    """
    batched = machine.device != "cpu" and not work.unbatchable
    chunk = max_chunk(work, machine) if batched else None
    order = (
        f"up to {chunk} clients at once"
        if batched
        else f"one client after another ({work.unbatchable or 'fastest on a CPU'})"
    )
    compiled, why_compiled = _choose_compilation(work, machine)
    seconds = work.seconds * (1 - COMPILED_GAIN if compiled else 1)
    shared = machine.device == "cpu" and seconds >= (MIN_COPIED_SECONDS if machine.copies else MIN_SHARED_SECONDS)
    room = machine.memory // 2 // (PROCESS_BYTES + (0 if machine.copies else work.data))
    workers = max(1, min(machine.cores, work.cohort, room)) if shared else 1
    name: Literal["sequential", "vectorised"] = "vectorised" if batched else "sequential"
    return EngineChoice(name, chunk, compiled, workers, order, f"steps {why_compiled}", choose_threads(work, machine))


def choose_threads(work: Work, machine: Machine) -> int:
    """Return with how many threads a process computes that is the only one of its run.

    >>> laptop = Machine(cores=2, memory=2**34, device="cpu", compiler=True)
    >>> [choose_threads(Work(cohort=10, steps=1, flops=flops, layers=6), laptop) for flops in (3e6, 7e8)]
    [1, 2]
    """
    small = machine.device == "cpu" and work.flops < MIN_THREADED_FLOPS and not machine.threads_are_set
    return 1 if small else machine.threads or machine.cores


def max_chunk(work: Work, machine: Machine) -> int:
    """Return how many clients of a cohort can work at once in the machine's memory.

    >>> laptop = Machine(cores=2, memory=2**34, device="cpu", compiler=True)
    >>> max_chunk(Work(cohort=1000, steps=1, flops=0.0, layers=6, nbytes=2**22), laptop)
    256
    """
    return max(1, min(work.cohort, machine.memory // CHUNK_MEMORY_DIVISOR // max(1, work.nbytes)))


def format_seconds(seconds: float) -> str:
    """Return a time in words: seconds, or from two hours on a larger unit.

    >>> format_seconds(59.6), format_seconds(86400 * 3), format_seconds(4e11)
    ('60 s', 'about 3 days', 'about 12,675 years')
    """
    units = (("years", 31557600), ("days", 86400), ("hours", 3600))
    return next(
        (f"about {seconds / size:,.0f} {unit}" for unit, size in units if seconds >= 2 * size), f"{seconds:.0f} s"
    )


def _choose_compilation(work: Work, machine: Machine) -> tuple[bool, str]:
    """Return whether steps are compiled, and why."""
    cost = COMPILATION_SECONDS + LAYER_SECONDS * work.layers
    if machine.device != "cpu":
        return False, "as they are (no compilation on a GPU unless asked for)"
    if not machine.compiler:
        return False, "as they are (no C++ compiler)"
    if work.uncompilable:
        return False, f"as they are ({work.uncompilable})"
    if COMPILED_GAIN * work.seconds < 2 * cost:
        return False, f"as they are ({format_seconds(work.seconds)} of work in all)"
    return True, f"compiled ({format_seconds(work.seconds)} of work in all, about {cost:.0f} s to compile)"
