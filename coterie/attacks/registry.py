"""Attacks by name. The names can be read without PyTorch."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Literal

from coterie.core.errors import Mistake
from coterie.core.kinds import Count
from coterie.core.registry import Registry

if TYPE_CHECKING:
    from coterie.loop.attack import Attack

UPDATE_ATTACKS = {
    "alie": "coterie.attacks.updates:alie",
    "gaussian": "coterie.attacks.updates:gaussian",
    "ipm": "coterie.attacks.updates:ipm",
    "large_values": "coterie.attacks.updates:large_values",
    "mimic": "coterie.attacks.updates:mimic",
    "sign_flip": "coterie.attacks.updates:sign_flip",
}
"""Attacks that replace updates."""

DATA_ATTACKS = {"label_flip": "coterie.attacks.labels:label_flip"}
"""Attacks that change training data."""

ATTACKS = Registry("name", UPDATE_ATTACKS | DATA_ATTACKS)
"""Every attack by name, as a function of its parameters."""


def attack(
    name: str, num_clients: Count, on: Literal["update", "parameters", "statistics"] = "update", **parameters: object
) -> Attack:
    """Return the attack of this name by `num_clients` of the clients, on the part `on` of their updates.

    Args:
        name: a key of `ATTACKS`.
        num_clients: how many clients attack; the same ones in every round, drawn from the rng seed.
        on: what is forged: the whole update ("update"), all of it except statistics of normalisation layers
            ("parameters"), or only these ("statistics").
        **parameters: the attack's own.

    Raises:
        Mistake: a name or a parameter is unknown or out of range.
    """
    from coterie.loop.attack import Attack

    function = ATTACKS.find(name)
    taken = inspect.signature(function).parameters
    for key, value in parameters.items():
        if key not in taken:
            raise Mistake(f"{name} does not take it; it takes {', '.join(taken) or 'nothing'}", key=key, value=value)
    if name not in DATA_ATTACKS:
        return Attack(num_clients, forge=function(**parameters), on=on)
    if on != "update":
        raise Mistake(f"{name} changes data, not updates; leave it out", key="on", value=on)
    return Attack(num_clients, poison=function(**parameters), on=on)
