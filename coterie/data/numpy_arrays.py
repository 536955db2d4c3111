"""Convert numpy arrays of the user's own to tensors, and refuse those that cannot be inputs or labels.

Legend: N examples, C classes (or channels, after an N).
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from coterie.core.errors import Mistake

_CHANNELS = (1, 3, 4)
_MIN_UNLIKELY_LABEL = 1000

IGNORED_LABEL = -100
"""A label that counts for nothing, as in torch's cross-entropy."""


def scale_pixels(pixels: NDArray[np.uint8]) -> Tensor:
    """Return pixels 0 to 255, [N, H, W] or [N, C, H, W], as float32 [N, C, H, W] in [0, 1]."""
    x = torch.from_numpy(np.ascontiguousarray(pixels)).to(torch.float32).div_(255)
    return x.unsqueeze(1) if x.dim() == 3 else x


def inputs_from_array(name: str, x: NDArray[np.generic]) -> Tensor:
    """Return the user's array as inputs: pixels scaled, other whole numbers as tokens; refuse what is not finite.

    uint8 is taken for pixels and scaled to float32 in [0, 1]; other whole numbers stay whole, int64 (tokens); floats
    and truth values become float32. Then: [N] gets a feature axis, [N, 1]; floats [N, H, W] get a channel axis, [N, 1,
    H, W]; floats [N, H, W, C] with C = 1, 3 or 4, and another H, are taken for images with the channels last, and
    become [N, C, H, W].

    Args:
        name: the file and the array, for the message.
        x: [N, ...].

    Raises:
        Mistake: it holds something other than finite numbers, or nothing.
    """
    if x.ndim == 0 or x.size == 0:
        raise Mistake(f"{name}: has shape {list(x.shape)}, so it holds no examples; give [N, ...] with N of at least 1")
    if x.dtype.kind not in "biuf":
        raise Mistake(f"{name}: holds {x.dtype} values; only numbers can be learned from")
    if x.dtype.kind == "f":
        require_finite(name, x)
    if x.dtype.kind in "iu" and x.dtype != np.uint8:
        return torch.from_numpy(_to_int64(name, x))
    values = torch.from_numpy(np.ascontiguousarray(x, dtype=np.float32))
    return _arrange_axes(values.div_(255) if x.dtype == np.uint8 else values)


def _to_int64(name: str, whole: NDArray[np.generic]) -> NDArray[np.int64]:
    """Return whole numbers as int64, and refuse those beyond it, which would become negative."""
    if whole.dtype == np.uint64 and whole.size and int(whole.max()) > np.iinfo(np.int64).max:
        raise Mistake(f"{name}: holds {whole.max()}, a number beyond 64 bits with a sign; give smaller ones")
    return whole.astype(np.int64)


def require_finite(name: str, x: NDArray[np.generic]) -> None:
    """Refuse an array [N, ...] unless float32 can hold every number of it.

    Raises:
        Mistake: a number is NaN, infinite, or beyond 3.4e38; it says which.
    """
    with np.errstate(over="ignore"):
        bad = np.argwhere(~np.isfinite(x.astype(np.float32, copy=False)))
    if len(bad):
        value = x[tuple(bad[0])]
        raise Mistake(
            f"{name}: example {bad[0][0]} holds {value} (one of {len(bad)} such entries); "
            "every entry must be a finite number"
        )


def _arrange_axes(x: Tensor) -> Tensor:
    """Add a missing feature or channel axis, or move the channels of images from last to second; else return x."""
    if x.dim() == 1:
        return x.unsqueeze(1)
    if x.dim() == 3:
        return x.unsqueeze(1)
    if x.dim() == 4 and x.shape[3] in _CHANNELS and x.shape[1] not in _CHANNELS:
        return x.permute(0, 3, 1, 2).contiguous()
    return x


def labels_from_array(name: str, y: NDArray[np.generic], task: str | None = None) -> tuple[Tensor, int | None]:
    """Return labels of the user's own, and the number of classes C: int64 of the same shape; or float32, and None.

    Numbers to predict are float32: those of a regression, and floats that are not all whole. Of labels that are 0 or 1
    there is no C.

    C is one more than the largest label among training and test examples; some classes may have no training examples.
    In labels of more than one dimension, [N, ...], an entry of -100 counts for nothing.

    Args:
        name: the file and the array, for the message.
        y: [N] or [N, ...], whole numbers from 0; or numbers to predict.
        task: the kind of task, where the user has chosen one.

    Raises:
        Mistake: a label is not a whole number from 0 to C - 1, or C would far exceed the number of labels.
    """
    if y.dtype.kind in "biuf" and (task == "regression" or (y.dtype.kind == "f" and (y % 1 != 0).any())):
        require_finite(name, y)
        return torch.from_numpy(np.ascontiguousarray(y, dtype=np.float32)), None
    if task in ("binary", "multilabel") and y.dtype.kind in "biuf":
        require_finite(name, y)
        return torch.from_numpy(np.ascontiguousarray(y).astype(np.int64)), 2 if task == "binary" else None
    if y.dtype.kind not in "biu":
        hint = '; for numbers to predict choose the task "regression"' if y.dtype.kind == "f" else ""
        raise Mistake(f"{name}: holds {y.dtype} values; labels must be whole numbers 0 to C - 1{hint}")
    if y.ndim == 2 and y.shape[1] == 1:
        raise Mistake(f"{name}: has shape {list(y.shape)}; give one label for each example, [N]")
    labels = _to_int64(name, y)
    counted = labels if labels.ndim == 1 else labels[labels != IGNORED_LABEL]
    if counted.size == 0:
        raise Mistake(f"{name}: holds no labels, so the number of classes is unknown")
    least, largest = int(counted.min()), int(counted.max())
    if least < 0:
        raise Mistake(f"{name}: holds the label {least}; labels must be whole numbers 0 to C - 1")
    if largest >= max(_MIN_UNLIKELY_LABEL, 2 * counted.size):
        raise Mistake(
            f"{name}: holds the label {largest} among only {counted.size} labels; number the classes 0 to C - 1"
        )
    return torch.from_numpy(labels), largest + 1
