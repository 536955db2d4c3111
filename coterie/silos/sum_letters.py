"""What the messages of a secure sum say: keys and shares as text in the line, masked numbers as a packed tree.

    coordinator asks                                     a silo answers
    sum-keys     for which clients                       each client's public keys
    sum-shares   each client's neighbours and their keys what each client seals for each neighbour
    sum-work     the broadcast, starts, sealed shares    each client's masked numbers, or why there are none
    sum-unmask   who stayed and who is gone              the shares of each client that help to open the sum

Every one names the sum that it belongs to, which the coordinator draws for each try of a round.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from coterie.privacy.masking_client import Ask, Keys, Neighbour, Neighbours
from coterie.silos.message import Message, Unusable, whole_number

STEPS = ("sum-keys", "sum-shares", "sum-work", "sum-unmask")
"""The kinds of requests of a secure sum, in their order."""
MAX_SEALED_BYTES = 2**9
"""Of a key, a share, or what one client seals for another."""

Texts = Mapping[str, Mapping[str, str]]


def write_bytes(each: Mapping[str, Mapping[str, bytes]]) -> dict[str, dict[str, str]]:
    """Return client -> name -> bytes as hexadecimal text."""
    return {client: {name: data.hex() for name, data in own.items()} for client, own in each.items()}


def read_bytes(message: Message, field: str) -> dict[str, dict[str, bytes]]:
    """Return client -> name -> bytes of a field.

    Raises:
        Unusable: it holds something else.
    """
    return {client: {name: _bytes(text) for name, text in _dict(own).items()} for client, own in _field(message, field)}


def write_keys(keys: Mapping[str, Keys]) -> dict[str, dict[str, str]]:
    """Return clients' keys as text."""
    return write_bytes({client: own._asdict() for client, own in keys.items()})


def read_keys(message: Message) -> dict[str, Keys]:
    """Return clients' keys.

    Raises:
        Unusable: the message holds something else.
    """
    return {client: _keys(own) for client, own in _field(message, "keys")}


def write_neighbours(each: Mapping[str, Neighbours]) -> dict[str, Any]:
    """Return client -> its neighbours as plain values."""
    return {
        client: {
            "place": own.place,
            "needed": own.needed,
            "others": {name: {"place": o.place, **write_keys({"": o.keys})[""]} for name, o in own.others.items()},
        }
        for client, own in each.items()
    }


def read_neighbours(message: Message) -> dict[str, Neighbours]:
    """Return client -> its neighbours.

    Raises:
        Unusable: the message holds something else.
    """
    found = {}
    for client, own in _field(message, "neighbours"):
        others = {
            name: Neighbour(whole_number(_dict(o).get("place"), "place", 1, 2**31), _keys(o))
            for name, o in _dict(_dict(own).get("others")).items()
        }
        place, needed = (whole_number(own.get(name), name, 1, 2**31) for name in ("place", "needed"))
        found[client] = Neighbours(place, needed, others)
    return found


def write_asks(asks: Mapping[str, Ask]) -> dict[str, dict[str, list[str]]]:
    """Return client -> whose shares it is asked for, as plain values."""
    return {client: {"stayed": list(ask.stayed), "gone": list(ask.gone)} for client, ask in asks.items()}


def read_asks(message: Message) -> dict[str, Ask]:
    """Return client -> whose shares it is asked for.

    Raises:
        Unusable: the message holds something else.
    """
    found = {}
    for client, own in _field(message, "asks"):
        lists = [_dict(own).get(name) for name in ("stayed", "gone")]
        if not all(isinstance(each, list) and all(isinstance(name, str) for name in each) for each in lists):
            raise Unusable("does not say who stayed and who is gone")
        found[client] = Ask(*lists)  # type: ignore[arg-type]
    return found


def _field(message: Message, name: str) -> list[tuple[str, Any]]:
    """Return the items of a field that must be a dict."""
    return list(_dict(message.fields.get(name), name).items())


def _dict(value: Any, name: str = "a client") -> dict[str, Any]:
    if not isinstance(value, dict):
        raise Unusable(f"has no table under {name}")
    return value


def _keys(own: Any) -> Keys:
    return Keys(*(_bytes(_dict(own).get(name)) for name in Keys._fields))


def _bytes(text: Any) -> bytes:
    """Return the bytes of a hexadecimal text."""
    if not isinstance(text, str) or len(text) > 2 * MAX_SEALED_BYTES:
        raise Unusable("has no short text where a key or a share must be")
    try:
        return bytes.fromhex(text)
    except ValueError as error:
        raise Unusable("has a text that is not hexadecimal where a key or a share must be") from error
