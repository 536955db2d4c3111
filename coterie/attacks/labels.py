"""Attacks that change the data on which attackers train."""

from __future__ import annotations

from coterie.core.errors import Mistake
from coterie.core.examples import Examples
from coterie.loop.attack import Poison


def label_flip() -> Poison:
    """Return the attack that trains honestly on labels C - 1 - y instead of y.

    Raises:
        Mistake: in the first round, if examples have no class labels.

    Tolpegin, Truex, Gursoy, Liu: Data Poisoning Attacks Against Federated Learning Systems, ESORICS 2020; the flip of
    all classes as in Allouah et al., AISTATS 2023.
    """

    def flip_labels(examples: Examples, num_classes: int | None) -> Examples:
        x, y = examples.tensors()
        if y is None or num_classes is None or y.is_floating_point():
            raise Mistake("these examples have no class labels to flip", key="name", value="label_flip")
        return Examples(x, num_classes - 1 - y)

    return flip_labels
