"""The [engine] table: "auto" resolved from the work and the machine, and the engine that it then describes."""

from __future__ import annotations

import os
from dataclasses import replace
from typing import NamedTuple

import torch

from coterie.core import engine as core
from coterie.core.errors import Mistake, mistakes_in
from coterie.core.machine import memory_bytes
from coterie.core.threads import are_threads_chosen, threads_by_default
from coterie.engines.compiled import cpp_compiler
from coterie.engines.mixed_precision import check_precision
from coterie.engines.sequential import Sequential
from coterie.engines.vectorised import Vectorised
from coterie.experiment.engine_choice import EngineChoice, Machine, Work, choose_engine, max_chunk
from coterie.experiment.tables import Engine
from coterie.processes.copies import are_copies_likely

DTYPES = {"float32": torch.float32, "float64": torch.float64}


def this_machine() -> Machine:
    """Return the machine that this process runs on."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    device = "cuda" if torch.cuda.is_available() else "cpu"
    return Machine(
        cores,
        memory_bytes(),
        device,
        compiler=cpp_compiler() is not None,
        threads=threads_by_default(),
        threads_are_set=are_threads_chosen(),
        copies=are_copies_likely(),
    )


class ResolvedEngine(NamedTuple):
    """[engine] with nothing left open, and what was chosen why; empty where nothing was chosen."""

    engine: Engine
    why: str


def resolve_engine(engine: Engine, machine: Machine, work: Work) -> ResolvedEngine:
    """Replace every "auto" of [engine], from the work and the machine alone; see `coterie.experiment.engine_choice`.

    >>> laptop = Machine(cores=2, memory=2**34, device="cpu", compiler=True)
    >>> engine = resolve_engine(Engine(), laptop, Work(cohort=10, steps=1000, flops=1e7, layers=6)).engine
    >>> engine.name, engine.device, engine.chunk, engine.compile, engine.workers, engine.threads
    ('sequential', 'cpu', None, False, 1, 1)
    """
    machine = replace(machine, device=_device_name(engine, machine))
    choice = choose_engine(work, machine)
    name = engine.name
    if name == "auto":
        name = choice.name if engine.chunk is None else "vectorised"
    chunk = engine.chunk or (max_chunk(work, machine) if name == "vectorised" else None)
    compiled = choice.compile if engine.compile == "auto" else engine.compile
    workers = choice.workers if engine.workers == "auto" else engine.workers
    threads = (choice.threads if workers == 1 else 1) if engine.threads == "auto" else engine.threads
    resolved = Engine(name, machine.device, engine.dtype, engine.precision, chunk, compiled, workers, threads)
    return ResolvedEngine(resolved, _explain(engine, choice, workers, threads))


def _explain(settings: Engine, choice: EngineChoice, workers: int, threads: int) -> str:
    """Return what was chosen, and why; what the file asks for needs no reason."""
    chosen = [choice.order] if settings.name == "auto" and settings.chunk is None else []
    chosen += [choice.steps] if settings.compile == "auto" else []
    chosen += [f"{workers} processes" if workers > 1 else "one process"] if settings.workers == "auto" else []
    if settings.threads == "auto":
        each = " each" if workers > 1 else ""
        chosen += [f"{threads} threads{each}" if threads > 1 else f"one thread{each}"]
    return ", ".join(chosen)


def check_engine(engine: Engine, machine: Machine) -> None:
    """Refuse an [engine] that this machine cannot run.

    Raises:
        Mistake: there is no such device here, or not one for each process, or a key has no meaning for the engine.
    """
    _check_devices(replace(engine, device=_device_name(engine, machine)))
    if engine.chunk is not None and engine.name == "sequential":
        raise Mistake(
            f'the engine "{engine.name}" does not take it; only "vectorised" does',
            key="chunk",
            value=engine.chunk,
            table="engine",
        )
    device = find_device(_device_name(engine, machine))
    with mistakes_in("engine"):
        check_precision(engine.precision, DTYPES[engine.dtype], device)


def make_engine(engine: Engine) -> core.Engine:
    """Return the engine that a resolved [engine] describes."""
    device, dtype = torch.device(engine.device), DTYPES[engine.dtype]
    if engine.name == "vectorised":
        return Vectorised(device, dtype, engine.chunk, engine.compile is True, engine.precision)
    return Sequential(device, dtype, engine.compile is True, engine.precision)


def _check_devices(engine: Engine) -> None:
    """Refuse several processes on a GPU unless each can have one of its own.

    Raises:
        Mistake: there are too few GPUs.
    """
    if engine.workers in ("auto", 1) or engine.device == "cpu":
        return
    here = int(os.environ.get("LOCAL_WORLD_SIZE", engine.workers))  # of a launcher's processes, those on this machine
    found = torch.cuda.device_count() if engine.device == "cuda" else 1
    if here > found:
        raise Mistake(
            f'each process needs a device of its own, and `device` = "{engine.device}" is {found or "none"} on this '
            "machine",
            key="workers",
            value=engine.workers,
            table="engine",
        )


def _device_name(engine: Engine, machine: Machine) -> str:
    return machine.device if engine.device == "auto" else engine.device


def find_device(name: str) -> torch.device:
    """Return the device that engine.device names.

    Raises:
        Mistake: there is no such device here.
    """
    try:
        device = torch.device(name)
        torch.zeros(1, device=device).item()  # which "meta", a device without numbers, refuses
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        why = str(error).splitlines()[0]
        raise Mistake(
            f'cannot be used here ({why}); "cpu" always can', key="device", value=name, table="engine"
        ) from error
    return device
