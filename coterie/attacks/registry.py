"""Attacks by the names that [attack] takes."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from difflib import get_close_matches

from coterie.attacks.labels import label_flip
from coterie.attacks.updates import alie, gaussian, ipm, large_values, mimic, sign_flip
from coterie.core.errors import Mistake
from coterie.loop.attack import Attack, Forge, Part, Poison

FORGED: Mapping[str, Callable[..., Forge]] = {
    "alie": alie,
    "gaussian": gaussian,
    "ipm": ipm,
    "large_values": large_values,
    "mimic": mimic,
    "sign_flip": sign_flip,
}
"""Attacks on what is sent."""

POISONED: Mapping[str, Callable[..., Poison]] = {"label_flip": label_flip}
"""Attacks on what is trained on."""

ATTACKS: Mapping[str, Callable[..., Forge | Poison]] = {**FORGED, **POISONED}
"""Every attack by name, as a function of its parameters."""


def attack(name: str, num_clients: int, on: Part = "update", **parameters: object) -> Attack:
    """An attack by some of the clients.

    Args:
        name: a key of `ATTACKS`.
        num_clients: how many clients attack; the same ones in every round, drawn from the rng seed.
        on: what is forged: all that is sent ("update"), all but statistics of normalisation layers ("parameters"), or
            only those ("statistics").
        **parameters: the attack's own.

    Raises:
        Mistake: a name or a parameter is unknown or out of range.
    """
    if name not in ATTACKS:
        close = get_close_matches(name, ATTACKS, n=1)
        hint = f" (did you mean {close[0]}?)" if close else ""
        raise Mistake(f"attack.name = {name}: it is unknown{hint}; choose from {', '.join(sorted(ATTACKS))}")
    taken = inspect.signature(ATTACKS[name]).parameters
    for key, value in parameters.items():
        if key not in taken:
            raise Mistake(
                f"attack.{key} = {value}: {name} takes no such parameter; it takes {', '.join(taken) or 'none'}"
            )
    if name in POISONED and on != "update":
        raise Mistake(f'attack.on = "{on}": {name} changes data, not what is sent; leave it out')
    if name in POISONED:
        return Attack(num_clients, poison=POISONED[name](**parameters), on=on)
    return Attack(num_clients, forge=FORGED[name](**parameters), on=on)
