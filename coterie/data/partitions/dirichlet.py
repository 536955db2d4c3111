"""The partition dirichlet: random label proportions, which a small `alpha` makes uneven."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from coterie.core.errors import Mistake
from coterie.core.kinds import Count, Positive
from coterie.data.argument_checks import require_concentration, require_count, require_enough_examples
from coterie.data.partitions.partition import NumberedPartition, Rows

# A draw costs more with many classes and many clients, so such a split gets fewer draws: a few seconds at the worst.
_MAX_DRAWS = 10_000
_MIN_DRAWS = 20
_MAX_DRAWN_NUMBERS = 20_000_000


def dirichlet(alpha: Positive, min_examples: Count = 1) -> NumberedPartition:
    """Deal each class to the clients in proportions drawn from Dirichlet(alpha, ..., alpha).

    For each class c with n_c examples: p_c ~ Dirichlet(alpha 1_N); the class, shuffled, is cut at
    round(n_c cumsum(p_c)). The proportions are drawn again until every client has `min_examples`, a limited number of
    times.

    Departure: Hsu et al. draw one distribution over classes for each client; with finite classes that cannot use every
    example once. The proportions here are per class over clients, as in Yurochkin et al.

    Args:
        alpha: concentration, above 0.
        min_examples: the least number of examples of a client, 1 or more.

    Raises:
        Mistake: an argument is out of range; or when it deals, no draw gave every client `min_examples`.

    References: Hsu, Qi, Brown 2019 (arXiv 1909.06335), section 3; Yurochkin et al. 2019 (arXiv 1905.12022), section 4.
    """
    arguments = {
        "alpha": require_concentration(alpha),
        "min_examples": require_count("min_examples", min_examples),
    }
    return NumberedPartition("dirichlet", _split_by_proportions, arguments, by_label=True)


def _split_by_proportions(
    labels: NDArray[np.int64], num_clients: int, rng: np.random.Generator, alpha: float, min_examples: int
) -> list[Rows]:
    """Return each client's rows: of every class a share, drawn from Dirichlet(alpha, ..., alpha)."""
    require_enough_examples(len(labels), num_clients, min_examples, "min_examples")
    classes = [np.flatnonzero(labels == c) for c in np.unique(labels)]
    cuts = _draw_cuts([len(c) for c in classes], num_clients, rng, alpha, min_examples)  # [C, N + 1]
    shuffled = [rng.permutation(c) for c in classes]
    return [
        np.sort(np.concatenate([c[cut[k] : cut[k + 1]] for c, cut in zip(shuffled, cuts, strict=True)]))
        for k in range(num_clients)
    ]


def _draw_cuts(
    sizes: list[int], num_clients: int, rng: np.random.Generator, alpha: float, min_examples: int
) -> NDArray[np.int64]:
    """Draw where each class is cut [C, N + 1], such that every client has `min_examples`."""
    draws = max(_MIN_DRAWS, min(_MAX_DRAWS, _MAX_DRAWN_NUMBERS // (len(sizes) * num_clients)))
    for _ in range(draws):
        shares = draw_proportions(rng, alpha, num_clients, len(sizes))  # [C, N]
        ends = np.rint(np.cumsum(shares, axis=1) * np.array(sizes)[:, None]).astype(np.int64)
        ends[:, -1] = sizes  # what rounding of the sum left over
        cuts = np.concatenate([np.zeros_like(ends[:, :1]), np.minimum(ends, ends[:, -1:])], axis=1)
        if np.diff(cuts).sum(axis=0).min() >= min_examples:
            return cuts
    raise Mistake(
        f"none of {draws} draws gave each of `num_clients` = {num_clients} clients at least "
        f"`min_examples` = {min_examples}; raise `alpha`, or lower `num_clients` or `min_examples`",
        key="alpha",
        value=alpha,
    )


def draw_proportions(rng: np.random.Generator, alpha: float, num_clients: int, draws: int) -> NDArray[np.float64]:
    """Draw rows from Dirichlet(alpha, ..., alpha) over the clients [draws, N]; each row is finite and sums to 1."""
    # Outside these bounds float64 gives 0 / 0, and a split is in any case one client per class, or even.
    alpha = min(max(alpha, 1e-6), 1e6)
    return rng.dirichlet(np.full(num_clients, alpha), size=draws)
