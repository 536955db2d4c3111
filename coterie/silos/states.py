"""The states of a silo's clients, on the silo's own disk, by the round that made them.

    states.json              client -> round -> the name and SHA-256 of a file, under a checksum of its own
    states/4f1c...-9-8ab3....safetensors

A coordinator says from which round's state a client starts. So the silo keeps older states too: an update that was
refused or came late leaves its client where it was, and a coordinator that has gone back to a checkpoint can ask again.
`states.json` is written last, by a rename: a silo that is killed at any instant has the old states or the new ones.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from coterie.core.digests import digest, seal_json, unseal_json
from coterie.core.errors import Mistake, reason
from coterie.core.files import remove_unfinished, write_atomic
from coterie.core.packing import pack, unpack
from coterie.core.tree import Tree


class States:
    """The states in one folder.

    Raises:
        Mistake: the list of states is damaged or cannot be read.
    """

    def __init__(self, folder: Path) -> None:
        self.folder, self._list = folder, folder / "states.json"
        self._entries: dict[str, dict[str, dict[str, str]]] = {}
        if self._list.exists():
            try:
                self._entries = unseal_json(self._list.read_bytes())["clients"]
            except (OSError, ValueError, KeyError) as error:
                raise Mistake(f"{self._list} is damaged ({reason(error)}): put back a copy of {folder}") from error
            remove_unfinished(folder)

    def rounds(self, client: str) -> list[int]:
        """Return the rounds of which a client's state is here."""
        return sorted(map(int, self._entries.get(client, {})))

    def get(self, client: str, round: int) -> Tree | None:
        """Return a client's state after a round; None for round 0, before which it has none.

        Raises:
            Mistake: it is not here, or damaged.
        """
        if round == 0:
            return None
        entry = self._entries.get(client, {}).get(str(round))
        if entry is None:
            known = ", ".join(map(str, self.rounds(client))) or "none"
            raise Mistake(
                f"the silo has no state of client {client} after round {round} (it has: {known}), so the client cannot "
                "continue from there"
            )
        try:
            data = (self.folder / entry["file"]).read_bytes()
        except OSError as error:
            raise Mistake(f"the state of client {client} cannot be read ({error.strerror or error})") from error
        if digest(data) != entry["sha256"]:
            raise Mistake(f"the state of client {client} after round {round} is damaged on the silo's disk")
        return unpack(data)

    def put(self, round: int, states: Mapping[str, Tree], starts: Mapping[str, int], go_back: int) -> None:
        """Keep the clients' states after `round`, and drop those that nobody asks for any more.

        Args:
            states: of the clients that keep any.
            starts: client -> the round whose state it started from, which stays.
            go_back: how many rounds a coordinator may go back; of what lies before, only the newest state stays.

        Raises:
            OSError: the disk is full or cannot be written; all earlier states remain.
        """
        entries = dict(self._entries)
        for client, state in states.items():
            data = pack(state)
            sha256 = digest(data)
            name = hashlib.blake2b(client.encode(), digest_size=16).hexdigest()
            file = f"states/{name}-{round}-{sha256[:16]}.safetensors"
            write_atomic(self.folder / file, data)
            mine = {**entries.get(client, {}), str(round): {"file": file, "sha256": sha256}}
            entries[client] = _without_old(mine, {starts[client], round}, round - go_back)
        self._commit(entries)

    def _commit(self, entries: dict[str, dict[str, dict[str, str]]]) -> None:
        """Write the list, then remove the files that are not in it."""
        body: dict[str, Any] = {"clients": entries}
        write_atomic(self._list, seal_json(body))
        self._entries = entries
        kept = {entry["file"] for mine in entries.values() for entry in mine.values()}
        for path in (self.folder / "states").glob("*.safetensors"):
            if path.relative_to(self.folder).as_posix() not in kept:
                path.unlink(missing_ok=True)


def _without_old(mine: Mapping[str, dict[str, str]], keep: set[int], oldest: int) -> dict[str, dict[str, str]]:
    """Return a client's entries without those before `oldest`, except the newest of these and those in `keep`."""
    before = [int(round) for round in mine if int(round) <= oldest]
    keep = keep | {max(before, default=0)}
    return {round: entry for round, entry in mine.items() if int(round) > oldest or int(round) in keep}
