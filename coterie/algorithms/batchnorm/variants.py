"""The two sets of FBN's defaults, and which of them a choice of options means. Imports no PyTorch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from coterie.core.errors import require

DEFAULTS: dict[str, dict[str, Any]] = {
    "recommended": {
        "gradient": "constant",
        "server": "muon",
        "statistics_momentum": 0.3,
        "warm_start": "own",
        "centre": True,
        "server_clip_norm": 1.0,
        "server_momentum": 0.9,
    },
    "paper": {
        "gradient": "constant",
        "server": "sgd",
        "statistics_momentum": 0.1,
        "warm_start": 0,
        "centre": False,
        "server_clip_norm": "none",
        "server_momentum": 0.0,
    },
}
"""variant -> the options that it sets, unless they are given."""

PAPERS_OWN = ("gradient", "statistics_momentum", "warm_start")
"""Options of which one that is given, without a variant, means the paper's. They are older than `variant` is."""


def complete_variant(given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options with the variant, and with its defaults for those that are not given or None.

    Raises:
        Mistake: there is no such variant.

    >>> complete_variant({"lr": 0.1})["warm_start"], complete_variant({"statistics_momentum": 0.5})["warm_start"]
    ('own', 0)
    """
    chosen = {name: value for name, value in given.items() if value is not None}
    is_papers = any(name in chosen for name in PAPERS_OWN)
    variant = chosen.get("variant", "paper" if is_papers else "recommended")
    require("variant", variant, variant in DEFAULTS, '"recommended" or "paper"')
    return {**given, **DEFAULTS[variant], **chosen, "variant": variant}
