"""Make one update of many in a way that withstands some attackers: robust rules, and steps before them.

>>> from coterie.aggregation import aggregation
>>> robust = aggregation("trimmed_mean", pre=["nnm"], num_byzantine=2)
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from coterie.aggregation.registry import AGGREGATORS, PRE, aggregation
from coterie.core.lazy import export_lazily

if TYPE_CHECKING:
    from coterie.aggregation.bucketing import bucketing
    from coterie.aggregation.centred_clipping import centred_clipping
    from coterie.aggregation.clip import arc, clip
    from coterie.aggregation.geometric_median import geometric_median
    from coterie.aggregation.krum import krum, multi_krum
    from coterie.aggregation.mda import mda
    from coterie.aggregation.meamed import meamed
    from coterie.aggregation.median import median
    from coterie.aggregation.nnm import nnm
    from coterie.aggregation.trimmed_mean import trimmed_mean

__all__ = [
    "AGGREGATORS",
    "PRE",
    "aggregation",
    "arc",
    "bucketing",
    "centred_clipping",
    "clip",
    "geometric_median",
    "krum",
    "mda",
    "meamed",
    "median",
    "multi_krum",
    "nnm",
    "trimmed_mean",
]

export_lazily(__name__, {name: place for name, place in (AGGREGATORS.places | PRE.places).items() if name != "mean"})
