"""How updates travel: the codec of a federation, and which parts of an algorithm's updates it may round."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch

from coterie.core.aggregators import Aggregator, Sum
from coterie.core.algorithm import Algorithm
from coterie.core.codecs.affine_bytes import uint8
from coterie.core.codecs.subtrees import on_subtrees
from coterie.core.codecs.top_k import top_k
from coterie.core.errors import Mistake, require
from coterie.core.kinds import PositiveFraction
from coterie.core.transforms import Transform, cast

DEFAULT_SHARE = 0.01


@dataclass(frozen=True)
class Communication:
    """How the parameters of an update travel; see `coterie.core.codecs`.

    Attributes:
        codec: "none"; "float16", two bytes a number; "uint8", one byte; "top_k", the largest numbers alone, and the
            others in later rounds.
        share: with "top_k", the share of the numbers that travels in a round; 0.01 unless given.

    Raises:
        Mistake: a value is out of its range, or `share` is given without "top_k".
    """

    codec: Literal["none", "float16", "uint8", "top_k"] = "none"
    share: PositiveFraction | None = None

    def __post_init__(self) -> None:
        names = ("none", "float16", "uint8", "top_k")
        require("codec", self.codec, self.codec in names, '"none", "float16", "uint8" or "top_k"')
        if self.codec == "top_k":
            object.__setattr__(self, "share", DEFAULT_SHARE if self.share is None else self.share)
            require("share", self.share, 0 < (self.share or 0) <= 1, "above 0 and at most 1")
        elif self.share is not None:
            raise Mistake('it belongs to `codec` = "top_k"; leave it out', key="share", value=self.share)

    def transform(
        self, algorithm: Algorithm, chosen: Aggregator, dtype: torch.dtype = torch.float32
    ) -> Transform | None:
        """Return the codec of an algorithm's updates; None where they travel unchanged, or where nothing travels.

        Args:
            algorithm: says which subtrees of an update may be rounded (`Traits.lossy`). Everything else travels
                unchanged.
            chosen: the aggregator that the user chose.
            dtype: the type of number of the updates.

        Raises:
            Mistake: no part of the updates may be rounded; or the codec is "top_k" and a part that it encodes is not
                averaged.
        """
        server = algorithm.server
        if self.codec == "none" or not server.weighting:
            return None
        paths = [path for path in algorithm.traits.lossy if path[0] in server.weighting]
        if not paths:
            parts = " and ".join(server.weighting)
            raise Mistake(
                f"this algorithm's updates hold {parts}, which no codec may round; leave it out (where tables of "
                "predictions travel, algorithm.send_as rounds them)",
                key="codec",
                value=self.codec,
            )
        if self.codec == "top_k" and any(server.aggregator(path[0], chosen) != Sum() for path in paths):
            raise Mistake(
                "a rule other than the mean would take the numbers that did not travel for 0; choose another codec, or "
                'aggregation.name = "mean"',
                key="codec",
                value=self.codec,
            )
        return on_subtrees(self._on_parameters(dtype), paths)

    def _on_parameters(self, dtype: torch.dtype) -> Transform:
        """Return the codec of a tree of parameters."""
        if self.codec == "float16":
            return cast(torch.float16, back=dtype)
        return uint8() if self.codec == "uint8" else top_k(self.share or DEFAULT_SHARE)
