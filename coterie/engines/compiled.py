"""Compile a step into one program that writes the new carry over the old one.

A step is traced once for each combination of shapes of its arguments (`make_fx`), and TorchInductor compiles the trace.
The engine knows those shapes and owns the carry, so nothing has to be checked, looked up or allocated between two
steps. If compiling fails or would take too long, the step runs uncompiled, and the log says why.
"""

from __future__ import annotations

import logging
import os
import shutil
import sys
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.fx import GraphModule

from coterie.core import tree
from coterie.core.algorithm import Batches, Context, Logs
from coterie.core.task import Batch
from coterie.core.tree import Tree
from coterie.engines.fused import fuse_updates
from coterie.models.memory_layout import channels_last

log = logging.getLogger(__name__)

Step = Callable[[Tree, Batches, Context], tuple[Tree, Logs]]
Program = Callable[[Sequence[Tensor], Sequence[Tensor], Sequence[Tensor]], Logs]
"""(leaves of the carry, written over; tensors of the batches; tensors of the context) -> logs."""

INDUCTOR_OPTIONS = {"size_asserts": False, "alignment_asserts": False}
"""Do not check sizes and alignment at each call, since the engine knows them."""

MAX_OPERATIONS = 6000
"""The longest trace that is compiled; compiling takes some 20 ms per operation."""


class Compiled:
    """A step that is compiled at its first call with each combination of shapes."""

    def __init__(self, step: Step, device: torch.device) -> None:
        self.step = step
        self._programs: dict[Any, Program | None] = {}
        self._carry: Tree = {}
        self._leaves: list[Tensor] = []
        self._context: Context | None = None
        self._facts: list[Tensor] = []
        self._shape: Any = None
        self._failure = _obstacle(device)
        if self._failure:
            log.warning("steps run uncompiled: %s", self._failure)

    def __call__(self, carry: Tree, batches: Batches, ctx: Context) -> tuple[Tree, Logs]:
        """Run the step. If there is a program, the given carry is written over and returned."""
        if carry is not self._carry or ctx is not self._context:
            self._carry, self._leaves, self._context, self._facts = (
                carry,
                tree.leaves(carry),
                ctx,
                _context_tensors(ctx),
            )
            self._shape = tuple(map(_layout, (*self._leaves, *self._facts)))
        tensors = _batch_tensors(batches)
        key = (self._shape, tuple(batches), tuple(map(_layout, tensors)))
        if key not in self._programs:
            self._programs[key] = self._make_program(carry, batches, ctx)
        program = self._programs[key]
        return (carry, program(self._leaves, tensors, self._facts)) if program else self.step(carry, batches, ctx)

    def _make_program(self, carry: Tree, batches: Batches, ctx: Context) -> Program | None:
        """Return a program for arguments of these shapes, tried on a copy of them; None if they cannot be compiled."""
        if self._failure:
            return None
        log.info("compiling a local step for batches of this size; this takes seconds to minutes, once")
        try:
            program = _compile(self.step, carry, batches, ctx)
            program(tree.leaves(tree.clone(carry)), _batch_tensors(batches), _context_tensors(ctx))
        except Exception as error:  # compilers fail in many ways; the plain step raises the user's own mistakes
            self._failure = str(error).splitlines()[0] if str(error) else type(error).__name__
            log.warning("steps run uncompiled: %s", self._failure)
            return None
        return program


def _obstacle(device: torch.device) -> str:
    """Return why nothing can be compiled for this device, or an empty text."""
    if device.type != "cpu" or cpp_compiler() is not None:
        return ""
    return (
        f"torch.compile needs a C++ compiler, and {_compiler_name()} is not there (install it, or name another in CXX)"
    )


def cpp_compiler() -> str | None:
    """Return the path of the C++ compiler that TorchInductor uses on a CPU, or None."""
    return shutil.which(_compiler_name())  # PyTorch's own function takes seconds to import


def _compiler_name() -> str:
    """Return the name in the environment variable CXX, or the platform's usual C++ compiler."""
    return os.environ.get("CXX", {"darwin": "clang++", "win32": "cl"}.get(sys.platform, "g++"))


def _layout(x: Tensor) -> Any:
    """Return what a program depends on in a tensor: its shape, strides and type."""
    return x.shape, x.stride(), x.dtype


def _batch_tensors(batches: Batches) -> list[Tensor]:
    """Return the tensors of batches, contiguous, so that slices of longer tables have the same strides."""
    return [x.contiguous() for batch in batches.values() for x in batch if x is not None]


def _context_tensors(ctx: Context) -> list[Tensor]:
    """Return the tensors of a context."""
    return [x for x in (*ctx._replace(seed_set=None), *(ctx.seed_set or ())) if x is not None]


def _compile(step: Step, carry: Tree, batches: Batches, ctx: Context) -> Program:
    """Return the step, compiled for arguments of these shapes.

    Raises:
        RuntimeError: the trace is too long to be compiled in reasonable time.
    """
    from torch._guards import TracingContext, tracing
    from torch._inductor import compile as compiled
    from torch._subclasses import FakeTensorMode
    from torch.fx.experimental.symbolic_shapes import ShapeEnv

    leaves, tensors, facts = tree.leaves(carry), _batch_tensors(batches), _context_tensors(ctx)
    trace, names = _trace(step, carry, batches, ctx, tensors)
    if len(trace.graph.nodes) > MAX_OPERATIONS:
        raise RuntimeError(f"a step of {len(trace.graph.nodes)} operations would take too long to compile")
    images = _image_positions(trace, tensors)
    if images:
        tensors = _to_channels_last(tensors, images)
        trace, names = _trace(step, carry, batches, ctx, tensors)
    fuse_updates(trace, [node for node in trace.graph.nodes if node.op == "placeholder"][: len(leaves)])
    mode = FakeTensorMode(shape_env=ShapeEnv())  # TorchInductor's cache on disk asks for one
    with tracing(TracingContext(mode)):  # real tensors would be taken for examples of any size
        given: list[Any] = [mode.from_tensor(x, static_shapes=True) for x in (*leaves, *tensors, *facts)]
        fast = compiled(trace, given, options=INDUCTOR_OPTIONS)

    def program(carry: Sequence[Tensor], batch: Sequence[Tensor], facts: Sequence[Tensor]) -> Logs:
        """Run the compiled step: write the new carry over the old one, and return the logs."""
        return dict(zip(names, fast(*carry, *_to_channels_last(batch, images), *facts), strict=True))

    return program


def _trace(
    step: Step, carry: Tree, batches: Batches, ctx: Context, tensors: Sequence[Tensor]
) -> tuple[GraphModule, list[str]]:
    """Return the step as a graph that writes the new carry over the old one, and the names of its logs.

    The graph's arguments are the leaves of the carry, and the tensors of batches and context.
    """
    from torch.fx.experimental.proxy_tensor import make_fx

    leaves = tree.leaves(carry)
    end = len(leaves) + len(tensors)
    names: list[str] = []

    def flat(*arguments: Tensor) -> list[Tensor]:
        """Run the step on the tensors alone: write the new carry over the old one, and return the logs."""
        old = arguments[: len(leaves)]
        new, logs = step(
            _fill_carry(carry, old),
            _fill_batches(batches, arguments[len(leaves) : end]),
            _fill_context(ctx, arguments[end:]),
        )
        if tree.structure(new) != tree.structure(carry):
            raise RuntimeError("a step that adds to its carry, or takes from it, cannot be compiled")
        after = [x.clone() for x in tree.leaves(tree.map(lambda _, x: x, carry, new))]  # before anything is overwritten
        for x, y in zip(old, after, strict=True):
            x.copy_(y)
        names[:] = logs
        return list(logs.values())

    exact = {torch.ops.aten.add.Tensor: _add}
    traced = make_fx(flat, decomposition_table=exact, tracing_mode="fake", _allow_non_fake_inputs=True)
    return traced(*leaves, *tensors, *_context_tensors(ctx)), names


def _add(x: Tensor, y: Tensor, *, alpha: float = 1) -> Any:
    """Compute x + alpha y as two operations: TorchInductor forgets alpha if one of them is a matrix product."""
    return NotImplemented if alpha == 1 else x + y * alpha


def _image_positions(trace: GraphModule, tensors: Sequence[Tensor]) -> frozenset[int]:
    """Return the positions of images that convolutions on a CPU read faster with channels last.

    What follows from them then has channels last too.
    """
    convolves = any(node.target is torch.ops.aten.convolution.default for node in trace.graph.nodes)
    on_cpu = (k for k, x in enumerate(tensors) if x.dim() == 4 and x.is_floating_point() and x.device.type == "cpu")
    return frozenset(on_cpu if convolves else ())


def _to_channels_last(tensors: Sequence[Tensor], images: frozenset[int]) -> list[Tensor]:
    """Return the tensors, those at the positions `images` with channels last."""
    return [channels_last(x) if k in images else x for k, x in enumerate(tensors)]


def _fill_carry(carry: Tree, leaves: Sequence[Tensor]) -> Tree:
    """Return a carry of the same structure with these leaves."""
    rest = iter(leaves)
    return tree.map(lambda _: next(rest), carry)


def _fill_batches(batches: Batches, tensors: Sequence[Tensor]) -> Batches:
    """Return batches of the same structure with these tensors."""
    rest = iter(tensors)
    return {name: Batch._make(None if x is None else next(rest) for x in batch) for name, batch in batches.items()}


def _fill_context(ctx: Context, tensors: Sequence[Tensor]) -> Context:
    """Return a context of the same structure with these tensors."""
    rest = iter(tensors)
    facts: dict[str, Tensor] = {name: next(rest) for name in ctx._fields if name != "seed_set"}
    seed_set = None if ctx.seed_set is None else Batch._make(None if x is None else next(rest) for x in ctx.seed_set)
    return Context(**facts, seed_set=seed_set)
