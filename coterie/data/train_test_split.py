"""A fixed test split for data that come without one.

Legend: N rows, M of them for testing.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from coterie.core.errors import Mistake

# The split belongs to the data set, not to the experiment: it never depends on the user's rng seed.
_FIXED_SEED = 20170420


def split_rows(strata: ArrayLike, test_fraction: float = 0.2) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return rows [N - M] to train on and rows [M] to test on, both ascending, and always the same.

    Each stratum (a class, or a client and class) gives its share of the M = round(test_fraction N) test rows, to the
    nearest row (largest remainders), and keeps at least one row for training.

    Args:
        strata: the stratum of each row [N], any sortable values.
        test_fraction: what part of the rows becomes the test set, above 0 and below 1.

    Raises:
        Mistake: `test_fraction` is not between 0 and 1, or leaves nothing to train on or to test on.
    """
    fraction = require_test_fraction(test_fraction)
    _, stratum = np.unique(np.asarray(strata), return_inverse=True)
    sizes = np.bincount(stratum)
    rng = np.random.default_rng(_FIXED_SEED)
    counts = _count_test_rows(sizes, fraction, rng)
    if counts.sum() == 0:
        raise Mistake(
            f"of {len(stratum)} examples none would be left to test on, as each class of each client keeps one to "
            "train on; raise it, or give more examples",
            key="test_fraction",
            value=test_fraction,
        )
    order = rng.permutation(len(stratum))
    order = order[np.argsort(stratum[order], kind="stable")]  # [N], by stratum, shuffled within each
    starts = np.concatenate([[0], np.cumsum(sizes)[:-1]])
    place = np.arange(len(order)) - np.repeat(starts, sizes)  # [N], each row's place within its stratum
    is_test = place < np.repeat(counts, sizes)
    return np.sort(order[~is_test]), np.sort(order[is_test])


def combine_strata(*columns: Sequence[object] | NDArray[np.generic]) -> NDArray[np.int64]:
    """Return one stratum number [N] for each row, from several columns [N] that are to be balanced together."""
    codes = np.stack([np.unique(np.asarray(c), return_inverse=True)[1] for c in columns], axis=1)  # [N, columns]
    return np.asarray(np.unique(codes, axis=0, return_inverse=True)[1].reshape(-1), dtype=np.int64)


def strata_by_client(
    labels: NDArray[np.int64], ids: Sequence[str] | None, test_fraction: float = 0.2
) -> NDArray[np.int64]:
    """Return the strata [N] of the users' own data: a class, or where there are client ids [N], a client's class.

    The classes of a client that are too small to give a row each to the test set form one stratum of that client, so
    that many clients with few examples still give their share.

    Raises:
        Mistake: `test_fraction` is not between 0 and 1.
    """
    if ids is None:
        return labels
    strata = combine_strata(labels, ids)
    small = np.bincount(strata)[strata] * require_test_fraction(test_fraction) < 1
    return combine_strata(np.where(small, -1, labels), ids)


def require_test_fraction(value: float) -> float:
    """Return `value` as a number above 0 and below 1, and refuse any other.

    Raises:
        Mistake: it is not such a number.
    """
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < 1:
        raise Mistake(key="test_fraction", value=value, allowed="a number above 0 and below 1")
    return float(value)


def _count_test_rows(sizes: NDArray[np.int64], fraction: float, rng: np.random.Generator) -> NDArray[np.int64]:
    """Return how many test rows each stratum gives, by largest remainders, with ties at random."""
    share = sizes * fraction
    counts: NDArray[np.int64] = np.minimum(np.floor(share).astype(np.int64), sizes - 1)
    missing = round(sizes.sum() * fraction) - int(counts.sum())
    by_remainder = np.lexsort((rng.random(len(sizes)), np.round(counts - share, 9)))
    for s in [s for s in by_remainder if counts[s] < sizes[s] - 1][: max(missing, 0)]:
        counts[s] += 1
    return counts
