"""The clients that a round asks."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Literal, TypeAlias

from coterie.core import rng
from coterie.core.errors import Mistake, require
from coterie.core.kinds import Count, Fraction

Available: TypeAlias = Callable[[int, str], bool]
"""(round, client) -> whether the client can be asked in this round."""


@dataclass(frozen=True)
class Cohort:
    """How many clients a round asks: a fraction of the population, a size, or everyone if neither is given.

    A fraction C of N clients is max(C N, 1), rounded down, so C = 0 is one client (McMahan et al. 2017, Algorithm 1).

    Attributes:
        fraction, size: how many, one of the two.
        sampling: "uniform": so many, every choice with the same probability. "poisson": each client by a draw of its
            own, with the probability C, or size / N; so many are asked on average, and sometimes none.

    Raises:
        Mistake: both are given, or one is out of range.
    """

    fraction: Fraction | None = None
    size: Count | None = None
    sampling: Literal["uniform", "poisson"] = "uniform"

    def __post_init__(self) -> None:
        require("sampling", self.sampling, self.sampling in ("uniform", "poisson"), '"uniform" or "poisson"')
        if self.sampling == "poisson":
            require("fraction", self.fraction, self.fraction != 0, 'above 0 with `sampling` = "poisson"')
        if self.fraction is not None and self.size is not None:
            raise Mistake("`fraction` and `size` are both given; keep one of them")
        inside = self.fraction is None or 0 <= self.fraction <= 1
        require("fraction", self.fraction, inside, "between 0 and 1 (0 is one client)")
        require("size", self.size, self.size is None or self.size >= 1, "1 or more")

    def count(self, population: int) -> int:
        """Return how many clients a round asks, out of `population`; with "poisson", on average and rounded.

        Raises:
            Mistake: the size exceeds the population.
        """
        if self.size is not None:
            if self.size > population:
                sentence = f"there are {population} clients; lower it to {population} or less"
                raise Mistake(sentence, key="size", value=self.size)
            return self.size
        # 0.29 * 100 is 28.999999999999996 in floating point; it means 29
        return population if self.fraction is None else max(math.floor(self.fraction * population + 1e-9), 1)

    def probability(self, population: int) -> float:
        """Return the probability with which a client is asked, out of `population`.

        Raises:
            Mistake: the size exceeds the population.
        """
        if self.sampling == "poisson" and self.fraction is not None:
            return float(self.fraction)
        return self.count(population) / population

    def draw(
        self, ids: Sequence[str], rng_seed: int | str, round: int, available: Available | None = None
    ) -> list[str]:
        """Return the clients of a round, each once, in the order of `ids`; fewer if fewer are available.

        The cost depends on the cohort, not on the population, unless few are available or `sampling` is "poisson".
        """
        if self.sampling == "poisson":
            q, source = self.probability(len(ids)), rng.python_generator(rng_seed, round, "cohort")
            drawn = [client for client in ids if source.random() < q]  # a draw each, whoever is available
            return [client for client in drawn if available is None or available(round, client)]
        wanted = self.count(len(ids))
        if wanted == len(ids) and available is None:
            return list(ids)
        order = rng.shuffle(len(ids), rng.python_generator(rng_seed, round, "cohort"))
        able = (i for i in order if available is None or available(round, ids[i]))
        return [ids[i] for i in sorted(islice(able, wanted))]
