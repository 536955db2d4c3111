"""A test split by the content of each row, for a holder of data who knows nobody else's rows.

A row is for testing if the SHA-256 digest of its content, read as a fraction of 1, lies below `test_fraction`. So a row
lands on the same side always: after others have come or gone, in another order, in a copy of the file, and at whichever
silo. Rows with the same content land on one side, so no test row is also trained on.

Legend: N rows.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from coterie.core.errors import Mistake
from coterie.core.examples import Examples
from coterie.data.train_test_split import require_test_fraction

_BYTES = 8  # of a digest; more could not be told apart as a float


def split_by_digest(
    contents: Iterable[bytes], test_fraction: float = 0.2
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return rows to train on and rows to test on, both ascending.

    Args:
        contents: of each row [N].
        test_fraction: what part of the rows becomes the test set, about; above 0 and below 1.

    Raises:
        Mistake: `test_fraction` is out of range, or leaves nothing to train on or to test on.

    >>> split_by_digest([b"a", b"b", b"c", b"d", b"e"], 0.5)
    (array([0]), array([1, 2, 3, 4]))
    """
    bound = require_test_fraction(test_fraction) * 256.0**_BYTES
    is_test = np.array([int.from_bytes(hashlib.sha256(c).digest()[:_BYTES], "big") < bound for c in contents])
    if is_test.all() or not is_test.any():
        raise Mistake(
            f"{is_test.sum()} of {len(is_test)} rows would be for testing by the digest of their content; "
            f"{'lower' if is_test.any() else 'raise'} it, mark test rows in a column, or give more rows",
            key="test_fraction",
            value=test_fraction,
        )
    return np.flatnonzero(~is_test), np.flatnonzero(is_test)


def contents_of_columns(columns: Mapping[str, Sequence[object]]) -> list[bytes]:
    """Return the content of each row of a table, independent of the order of its columns."""
    names = sorted(columns)
    rows = zip(*(columns[name] for name in names), strict=True)
    return [
        "\x1f".join(f"{name}={str(cell).strip()}" for name, cell in zip(names, row, strict=True)).encode(
            errors="surrogatepass"
        )
        for row in rows
    ]


def contents_of_examples(examples: Examples) -> list[bytes]:
    """Return the content of each example: its numbers and its label."""
    x, y = (None if t is None else t.contiguous().numpy() for t in examples.tensors())
    assert x is not None
    return [x[k].tobytes() + (b"" if y is None else y[k].tobytes()) for k in range(len(x))]
