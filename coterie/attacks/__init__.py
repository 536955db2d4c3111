"""Attacks, to measure how well a federation withstands them.

>>> from coterie.attacks import attack
>>> two_liars = attack("sign_flip", num_clients=2, on="statistics")
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from coterie.attacks.registry import ATTACKS, attack
from coterie.core.lazy import export_lazily

if TYPE_CHECKING:
    from coterie.attacks.labels import label_flip
    from coterie.attacks.updates import alie, gaussian, ipm, large_values, mimic, sign_flip

__all__ = [
    "ATTACKS",
    "alie",
    "attack",
    "gaussian",
    "ipm",
    "label_flip",
    "large_values",
    "mimic",
    "sign_flip",
]

export_lazily(__name__, ATTACKS.places)
