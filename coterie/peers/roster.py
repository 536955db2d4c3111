"""The roster: who takes part, and the public key of each. All participants hold the same one.

north = "ed25519:dGhpcyBpcyBub3QgYSBrZXkuLi4gMzIgYnl0ZXMhISE="
south = "ed25519:..."
"""

from __future__ import annotations

import json
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import tomlkit

from coterie.core.digests import digest
from coterie.core.errors import Mistake, reason
from coterie.peers.keys import require_public
from coterie.peers.names import spell

MAX_ROSTER_BYTES = 2**20


@dataclass(frozen=True)
class Roster:
    """Participant -> its public key.

    Raises:
        Mistake: nobody takes part, a name or a key cannot be one, or two names have one key.
    """

    keys: Mapping[str, str]

    def __post_init__(self) -> None:
        if not self.keys:
            raise Mistake("the roster is empty; it has a line for each participant, as `coterie peer-key` prints it")
        for name, key in self.keys.items():
            spell(name)
            require_public(key)
        if len(set(self.keys.values())) < len(self.keys):
            raise Mistake("two participants of the roster have the same key; let each make one of its own")

    @property
    def digest(self) -> str:
        """SHA-256 of the names and keys, in any order."""
        return digest(json.dumps(dict(self.keys), sort_keys=True).encode())

    def text(self) -> str:
        """Return the content of a roster file."""
        return "".join(roster_line(name, key) for name, key in self.keys.items())


def roster_line(name: str, public_key: str) -> str:
    """Return a participant's line of a roster.

    >>> roster_line("north", "ed25519:AAAA")
    'north = "ed25519:AAAA"\\n'
    """
    return tomlkit.dumps({name: public_key})


def read_roster(path: Path) -> Roster:
    """Read a roster file.

    Raises:
        Mistake: it cannot be read, or is none.
    """
    try:
        data = path.read_bytes()[: MAX_ROSTER_BYTES + 1]
        found = tomllib.loads(data.decode()) if len(data) <= MAX_ROSTER_BYTES else {}
    except OSError as error:
        raise Mistake(f"{path}: the roster cannot be read ({error.strerror})") from error
    except (ValueError, RecursionError) as error:
        raise Mistake(f"{path}: is not a roster ({reason(error)})") from error
    wrong = [name for name, key in found.items() if not isinstance(key, str)]
    if wrong:
        raise Mistake(
            f"{path}: {wrong[0]} must be a public key; a roster has lines such as those of `coterie peer-key`"
        )
    try:
        return Roster(found)
    except Mistake as mistake:
        raise Mistake(f"{path}: {mistake}") from mistake
