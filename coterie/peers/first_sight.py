"""Keys without a roster: each participant leaves its public key in the mailbox, and trusts those that it finds there.

Whoever can write into the mailbox at that moment can put in a key of their own, so participants compare the digest of
what each has found by another way, such as a phone. From then on the keys are fixed.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from coterie.core.errors import Mistake, few
from coterie.peers.keys import PrivateKey, require_public
from coterie.peers.names import spell
from coterie.peers.objects import Objects
from coterie.peers.roster import Roster

MAX_KEY_BYTES = 200
"""Length of the longest public key."""


def exchange_keys(
    objects: Objects, names: Sequence[str], me: str, key: PrivateKey, deadline: float, say: Callable[[str], None]
) -> Roster:
    """Leave this participant's public key, and return the roster when all have left theirs.

    Raises:
        Mistake: not all have left one by the deadline, or another key lies in this participant's name.
    """
    objects.create(_name(me), key.public_key.encode())
    until, spoken = time.monotonic() + deadline, False
    while True:
        found = {name: _read_key(objects, name) for name in names}
        missing = [name for name, public_key in found.items() if public_key is None]
        if found[me] not in (None, key.public_key):
            raise Mistake(
                f"{objects.where}: another key lies there in the name of {me}; give each participant its own --id and "
                "each run a new mailbox, or agree on a roster"
            )
        if not missing:
            return Roster({name: public_key for name, public_key in found.items() if public_key is not None})
        if time.monotonic() >= until:
            raise Mistake(
                f"{few(missing, 10)} did not come within {deadline:g} seconds; start all participants at about one time"
            )
        if not spoken:
            say(f"waiting for the keys of {few(missing, 10)}")
        spoken = True
        time.sleep(0.1)


def _name(participant: str) -> str:
    return f"keys/{spell(participant)}"


def _read_key(objects: Objects, name: str) -> str | None:
    """Return the public key that lies in a participant's name, or None.

    Raises:
        Mistake: something else lies there.
    """
    data = objects.read(_name(name), MAX_KEY_BYTES)
    if data is None:
        return None
    text = data.decode("ascii", "replace") if isinstance(data, bytes) else data.why
    try:
        return require_public(text)
    except Mistake as mistake:
        raise Mistake(
            f"{objects.where}: what lies in the name of {name} is not a key; start in a new mailbox"
        ) from mistake
