"""A second device for tests on a machine that has none: tensors that say where they are and compute on the CPU.

A tensor there is a wrapper around one of the CPU. What a GPU refuses is refused here: an operation on tensors of both
devices (single numbers of the CPU aside, in elementwise operations), and to read a tensor's memory from the host, as
`.numpy()` does. What it accepts gives the CPU's numbers. So a test sees whether work is done where it should be.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_map

NAME = "second"
aten = torch.ops.aten
MOVES = {aten._to_copy.default, aten.copy_.default}
TAKES_ROWS_OF_THE_HOST = {aten.index.Tensor, aten.index_put_.default, aten.index_put.default}
"""These accept row numbers of the CPU."""


class OnDevice(Tensor):
    """A tensor of the second device, around one of the CPU."""

    inner: Tensor

    @staticmethod
    def __new__(cls, inner: Tensor) -> OnDevice:
        made = torch.Tensor._make_wrapper_subclass(  # type: ignore[attr-defined]
            cls, inner.shape, inner.stride(), inner.storage_offset(), dtype=inner.dtype, device=f"{NAME}:0"
        )
        made.inner = inner
        return made

    def __repr__(self, **options: Any) -> str:
        return f"OnDevice({self.inner!r})"

    def tolist(self) -> Any:
        return self.cpu().tolist()

    @classmethod
    def __torch_dispatch__(cls, f: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return run(f, args, kwargs or {})


class Dispatch(TorchDispatchMode):
    """Sees also the calls that only name the device, such as `torch.zeros(3, device="second")`."""

    def __torch_dispatch__(self, f: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return run(f, args, kwargs or {})


def run(f: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    """Run one operation on the CPU, as the device where its tensors are or that it names."""
    given = [x for x in tree_flatten((args, kwargs))[0] if isinstance(x, Tensor)]
    there = any(isinstance(x, OnDevice) for x in given)
    named = kwargs.get("device")
    target = there if named is None else torch.device(named).type == NAME
    if f is aten.copy_.default:  # the only operation that writes from one device to another
        target = isinstance(args[0], OnDevice)
    if there and f not in MOVES:
        _check_one_device(f, args, given)
    options = {name: value for name, value in kwargs.items() if name != "pin_memory"}
    if named is not None:
        options["device"] = torch.device("cpu")
    result = f(*tree_map(_unwrap, args), **tree_map(_unwrap, options))
    back = {id(x.inner): x for x in given if isinstance(x, OnDevice)}
    return tree_map(lambda x: _wrap(x, back) if target and isinstance(x, Tensor) else x, result)


def _check_one_device(f: Any, args: Any, given: list[Tensor]) -> None:
    """Raise what a GPU does where an operation gets tensors of both devices."""
    if f in TAKES_ROWS_OF_THE_HOST and isinstance(args[0], OnDevice):
        return
    elementwise = torch.Tag.pointwise in f.tags and f not in (aten.addcmul.default, aten.addcdiv.default)
    hosts = [x for x in given if not isinstance(x, OnDevice)]
    if any(x.dim() or not elementwise for x in hosts):
        raise RuntimeError(f"Expected all tensors to be on the same device, but {f} got some of {NAME} and some of cpu")


def _unwrap(x: Any) -> Any:
    return x.inner if isinstance(x, OnDevice) else x


def _wrap(x: Tensor, back: dict[int, OnDevice]) -> OnDevice:
    """Return a result on the device: an argument that was written into, or a new tensor."""
    return back[id(x)] if id(x) in back else OnDevice(x)


@contextmanager
def second_device() -> Iterator[torch.device]:
    """Let there be such a device in this block."""
    set_up()
    lifts = torch._C._only_lift_cpu_tensors()
    torch._C._set_only_lift_cpu_tensors(True)  # `torch.tensor(1.0, device=...)` is made on the CPU, then moved
    overwrites = torch.__future__.get_overwrite_module_params_on_conversion()
    torch.__future__.set_overwrite_module_params_on_conversion(True)  # a plain parameter cannot become a wrapper
    try:
        with Dispatch():
            yield torch.device(NAME, 0)
    finally:
        torch.__future__.set_overwrite_module_params_on_conversion(overwrites)
        torch._C._set_only_lift_cpu_tensors(lifts)


@functools.cache
def set_up() -> None:
    """Make PyTorch accept the device's name, for the rest of the process."""
    torch.utils.backend_registration._setup_privateuseone_for_python_backend(NAME)
