"""A letter: a message with its sender's signature over everything that it says, where and when included.

    coterie-peer 1          a line that says what this is
    north                   the sender, spelled as in the mailbox
    <base64>                its signature over the first two lines and all that follows
    {"kind": ..., ...}      one line of JSON: the run, the round, the kind, and facts such as the weighting
    <bytes>                 a packed tree, or nothing

The signature is verified before anything after it is parsed. A letter that says another run, round or kind than that of
the place where it lies was put there by somebody who copied it.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from coterie.core.digests import digest
from coterie.core.printable import printable
from coterie.peers.keys import PrivateKey, is_signed_by
from coterie.peers.message import MAX_REASON_LENGTH, Unusable
from coterie.peers.names import read_name, spell
from coterie.peers.roster import Roster

_FIRST = b"coterie-peer 1"

MAX_HEAD_BYTES = 2**20
"""How much longer than its tree a letter may be: a decision names every participant."""


@dataclass(frozen=True)
class Place:
    """Where a letter belongs: a run, a round and a kind of letter."""

    run: str
    round: int
    kind: str


@dataclass(frozen=True)
class Letter:
    """A letter whose signature is right.

    Attributes:
        sender: who has signed it.
        facts: what its line of JSON says beyond the place.
        body: the packed tree.
        digest: SHA-256 of all its bytes.
    """

    sender: str
    facts: Mapping[str, Any]
    body: bytes
    digest: str


def write_letter(key: PrivateKey, sender: str, place: Place, facts: Mapping[str, Any], body: bytes = b"") -> bytes:
    """Return the bytes of a signed letter; the same for the same content."""
    says = {"run": place.run, "round": place.round, "kind": place.kind, "facts": facts}
    head = _FIRST + b"\n" + spell(sender).encode() + b"\n"
    rest = json.dumps(says, sort_keys=True).encode() + b"\n" + body
    return head + base64.b64encode(key.sign(head + rest)) + b"\n" + rest


def read_letter(data: bytes, roster: Roster, place: Place, sender: str | None = None) -> Letter | Unusable:
    """Return the letter in these bytes, or why it is not one that belongs here.

    Args:
        data: what lies in the mailbox.
        roster: whose letters count.
        place: where it lies.
        sender: in whose name it lies; None where anyone of the roster may have written it.
    """
    parts = data.split(b"\n", 3)
    if len(parts) < 4 or parts[0] != _FIRST or len(parts[1]) > 1000 or len(parts[2]) > 100:
        return Unusable("is not a signed letter")
    name = read_name(parts[1].decode("ascii", "replace"))
    if name is None or name not in roster.keys:
        return Unusable("is signed by somebody who is not in the roster")
    if sender is not None and name != sender:
        return Unusable(f"is signed by {printable(name)}")
    try:
        signature = base64.b64decode(parts[2], validate=True)
    except ValueError:
        signature = b""
    if not is_signed_by(roster.keys[name], signature, b"\n".join([parts[0], parts[1], parts[3]])):
        return Unusable(f"does not have the signature of {printable(name)}")
    line, _, body = parts[3].partition(b"\n")
    return _check_place(name, line, body, place, digest(data))


def _check_place(name: str, line: bytes, body: bytes, place: Place, whole: str) -> Letter | Unusable:
    """Return the letter if its signed line says the place where it lies."""
    try:
        says = json.loads(line) if len(line) <= MAX_HEAD_BYTES else None
    except (ValueError, RecursionError):
        says = None
    if not isinstance(says, dict) or not isinstance(says.get("facts"), dict):
        return Unusable("has a first line that cannot be read")
    if says.get("run") != place.run:
        return Unusable("was written for another run")
    if says.get("round") != place.round or isinstance(says.get("round"), bool):
        return Unusable(f"was written for round {printable(str(says.get('round')))[:MAX_REASON_LENGTH]}")
    if says.get("kind") != place.kind:
        return Unusable("was written for another purpose")
    return Letter(name, says["facts"], body, whole)
