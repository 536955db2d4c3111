"""A mailbox: where participants without a server leave what they say in a round, and find what the others said.

Two verbs, `put` and `get_all`. Nobody waits for one who is gone: a round is complete when all who spoke in the round
before have spoken, or, where nobody did, all who take part; or at the deadline. So a participant that dies costs the
others one deadline, and one that comes back is waited for again after the first round in which it spoke.

A message is a tree of tensors, and is all that crosses. Whoever can write into a mailbox can speak in any name: let the
folder's permissions, or the network that the store is in, keep strangers out.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Protocol
from urllib.parse import quote, unquote

from safetensors import SafetensorError

from coterie.core.errors import Mistake
from coterie.core.files import write_atomic
from coterie.core.packing import pack, unpack
from coterie.core.tree import Tree

KEPT = 3
"""Rounds whose messages stay: those who lag behind still find the last ones."""


class Mailbox(Protocol):
    """How participants exchange messages."""

    def put(self, round: int, participant: str, message: Tree) -> None:
        """Leave a message for everyone; a second one in the same round and name replaces the first."""

    def get_all(self, round: int, deadline: float) -> dict[str, Tree]:
        """What has been said in `round`, by participant, when it is complete or after `deadline` seconds. A message
        that cannot be read is not there.
        """

    def newest(self) -> int:
        """The last round in which anyone has spoken; 0 before the first."""

    def spoke(self, round: int) -> set[str]:
        """Who has spoken in a round so far."""


class Folder:
    """A mailbox in a folder that all participants share: ROUND/PARTICIPANT.safetensors, each written at once.

    Args:
        path: the folder; it is made where it is absent.
        participants: how many are waited for in the first round, and in the first after everything was lost.

    Raises:
        Mistake: the folder cannot be made.
    """

    def __init__(self, path: Path, participants: int) -> None:
        self.path, self.participants = path, participants
        try:
            path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise Mistake(f"{path}: cannot be made the mailbox's folder ({error.strerror})") from error

    def put(self, round: int, participant: str, message: Tree) -> None:
        """See `Mailbox`."""
        (self.path / str(round)).mkdir(exist_ok=True)
        write_atomic(self._file(round, participant), pack(message))
        for old in self._rounds():
            if old <= round - KEPT:
                self._file(old, participant).unlink(missing_ok=True)

    def get_all(self, round: int, deadline: float) -> dict[str, Tree]:
        """See `Mailbox`."""
        waited(lambda: self.spoke(round), lambda: self.spoke(round - 1), self.participants, deadline)
        found = {who: _read(self._file(round, who)) for who in sorted(self.spoke(round))}
        return {who: message for who, message in found.items() if message is not None}

    def newest(self) -> int:
        """See `Mailbox`."""
        return max((round for round in self._rounds() if self.spoke(round)), default=0)

    def spoke(self, round: int) -> set[str]:
        """See `Mailbox`."""
        return {unquote(file.stem) for file in (self.path / str(round)).glob("[!.]*.safetensors")}

    def _rounds(self) -> list[int]:
        return [int(folder.name) for folder in self.path.iterdir() if folder.name.isdigit()]

    def _file(self, round: int, participant: str) -> Path:
        return self.path / str(round) / f"{quote(participant, safe='').replace('.', '%2E')}.safetensors"


def _read(file: Path) -> Tree | None:
    try:
        return understood(file.read_bytes())
    except OSError:
        return None


def understood(data: bytes) -> Tree | None:
    """The message in these bytes; None where there is none."""
    try:
        return unpack(data)
    except (SafetensorError, ValueError, KeyError, TypeError):
        return None


def waited(
    spoke: Callable[[], set[str]],
    before: Callable[[], set[str]],
    participants: int,
    deadline: float,
    pause: float = 0.02,
) -> None:
    """Wait until all who spoke in the round before have spoken, or where nobody did `participants`, or the deadline."""
    until = time.monotonic() + deadline
    while time.monotonic() < until:
        here, expected = spoke(), before()
        if expected <= here if expected else len(here) >= participants:
            return
        time.sleep(min(pause, max(until - time.monotonic(), 0)))
        pause = min(1.5 * pause, 0.5)
