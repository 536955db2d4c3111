"""The sources cifar10 and cifar100: small colour pictures, from the authors' "python version".

Those files are pickles, and a pickle may run any code. They are read by an unpickler that can make numpy arrays and
nothing else, so that a manipulated file is refused.
"""

from __future__ import annotations

import io
import pickle
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray

from coterie.core.errors import Mistake, reason
from coterie.core.examples import Examples
from coterie.core.toml_text import toml_text
from coterie.data.numpy_arrays import scale_pixels
from coterie.data.official_files import find_or_unpack
from coterie.data.source import Source

_URL = "https://www.cs.toronto.edu/~kriz/"
_CIFAR10_LABELS = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]
_REPLACE = "replace it, or delete it to have it fetched"


def cifar10() -> Source:
    """Load CIFAR-10: 50,000 + 10,000 pictures [3, 32, 32] of ten classes, from `$COTERIE_DATA/cifar10`.

    Raises:
        Mistake: a file is missing and cannot be fetched, or is damaged.

    Reference: Krizhevsky 2009, "Learning multiple layers of features from tiny images".
    """
    names = [*(f"data_batch_{k}" for k in range(1, 6)), "test_batch"]
    checksum = "md5:c58f30108f718f92721af3b95e74349a"
    archive = "cifar-10-python.tar.gz"
    paths = find_or_unpack("cifar10", archive, "cifar-10-batches-py", names, _URL + archive, checksum)
    return Source(
        "cifar10",
        _read_part(paths[:5], b"labels", 10),
        _read_part(paths[5:], b"labels", 10),
        10,
        label_names=_CIFAR10_LABELS,
    )


def cifar100() -> Source:
    """Load CIFAR-100: 50,000 + 10,000 pictures [3, 32, 32] of a hundred classes, from `$COTERIE_DATA/cifar100`.

    The labels are the hundred fine classes.

    Raises:
        Mistake: a file is missing and cannot be fetched, or is damaged.

    Reference: Krizhevsky 2009.
    """
    checksum = "md5:eb9058c3a382ffc7106e4002c42a8d85"
    archive = "cifar-100-python.tar.gz"
    names = ["train", "test", "meta"]
    train, test, meta = find_or_unpack("cifar100", archive, "cifar-100-python", names, _URL + archive, checksum)
    label_names = [name.decode() for name in _get_entry(meta, _unpickle(meta), b"fine_label_names")]
    parts = [_read_part([path], b"fine_labels", 100) for path in (train, test)]
    return Source("cifar100", parts[0], parts[1], 100, label_names=label_names)


def _read_part(paths: Sequence[Path], key: bytes, num_classes: int) -> Examples:
    """Read several batch files: x float32 [N, 3, 32, 32], and y int64 [N] from their entry `key`."""
    batches = [_read_batch(path, key, num_classes) for path in paths]
    x = scale_pixels(np.concatenate([pixels for pixels, _ in batches]))
    return Examples(x, torch.from_numpy(np.concatenate([labels for _, labels in batches])))


def _read_batch(path: Path, key: bytes, num_classes: int) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Read one batch file: pixels [N, 3, 32, 32], and labels [N] from its entry `key`; refuse another form."""
    content = _unpickle(path)
    pixels, given = np.asarray(_get_entry(path, content, b"data")), _get_entry(path, content, key)
    try:
        labels = np.asarray(given, dtype=np.int64)
    except (TypeError, ValueError) as error:
        raise Mistake(f"{path}: its labels are not whole numbers; {_REPLACE}") from error
    if pixels.dtype != np.uint8 or pixels.shape != (len(labels), 3072):
        raise Mistake(f"{path}: holds {pixels.dtype} {list(pixels.shape)} for {len(labels)} labels; {_REPLACE}")
    if len(labels) == 0 or labels.min() < 0 or labels.max() >= num_classes:
        raise Mistake(f"{path}: its labels are not 0 to {num_classes - 1}; {_REPLACE}")
    return pixels.reshape(-1, 3, 32, 32), labels  # a row is three planes of 32 x 32: red, green, blue


def _get_entry(path: Path, content: object, key: bytes) -> Any:
    if not isinstance(content, dict) or key not in content:
        raise Mistake(f"{path}: holds no {toml_text(key.decode())}; {_REPLACE}")
    return content[key]


def _unpickle(path: Path) -> object:
    """Return the content of a pickle that needs only what `_ArraysOnly` allows; refuse any other file."""
    try:
        return _ArraysOnly(io.BytesIO(path.read_bytes()), encoding="bytes").load()
    except Mistake as error:
        raise Mistake(f"{path}: {error}") from error
    except Exception as error:  # a damaged pickle may raise anything
        raise Mistake(f"{path}: is not a batch of pictures ({reason(error)}); {_REPLACE}") from error


def _latin1(text: str, encoding: str) -> bytes:
    """Encode text as bytes, which is how Python 3 stores bytes in an old pickle."""
    if encoding not in ("latin1", b"latin1"):
        raise Mistake(f"asks for the codec {toml_text(encoding)}, which a batch of pictures does not need")
    return text.encode("latin1")


# numpy keeps this function under a private name that has changed; an array tells where it is.
_reconstruct = cast(Callable[..., Any], np.empty(0).__reduce__()[0])
_ALLOWED: dict[tuple[str, str], Callable[..., Any]] = {
    ("numpy.core.multiarray", "_reconstruct"): _reconstruct,
    ("numpy._core.multiarray", "_reconstruct"): _reconstruct,
    ("numpy", "ndarray"): np.ndarray,
    ("numpy", "dtype"): np.dtype,
    ("_codecs", "encode"): _latin1,
}


class _ArraysOnly(pickle.Unpickler):
    """An unpickler of numbers, strings, lists, dicts and numpy arrays that refuses any other name."""

    def find_class(self, module: str, name: str) -> Any:
        """Return one of the few names that are allowed, and refuse any other."""
        if (module, name) not in _ALLOWED:
            raise Mistake(f"asks for {module}.{name}, which a batch of pictures does not need; {_REPLACE}")
        return _ALLOWED[module, name]
