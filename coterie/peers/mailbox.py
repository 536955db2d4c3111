"""A mailbox: participants without a server leave their messages of a round in it, and read those of the others.

There are two verbs, `put` and `get_all`. A round is complete when everyone who sent a message in the round before has
sent one, or at the deadline. If nobody sent one in the round before, it waits for all participants. So a participant
that dies costs the others one deadline, and one that comes back is waited for again after its first new message.

A message is a tree of tensors, and nothing else travels. Whoever can write into a mailbox can use any name. Keep
strangers out by the folder's permissions, or by the network of the store.
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

ROUNDS_KEPT = 3
"""Messages of this many rounds stay, so that slow participants still find the last ones."""


class Mailbox(Protocol):
    """The way in which participants exchange messages."""

    def put(self, round: int, participant: str, message: Tree) -> None:
        """Leave a message for everyone; it replaces an earlier one of the same round and participant."""

    def get_all(self, round: int, deadline: float) -> dict[str, Tree]:
        """Return the messages of `round` by participant, when it is complete or after `deadline` seconds.

        Messages that cannot be read are left out.
        """

    def newest(self) -> int:
        """Return the last round that has a message; 0 before the first."""

    def senders(self, round: int) -> set[str]:
        """Return the participants that have sent a message in a round so far."""


class Folder:
    """A mailbox in a folder that all participants share: ROUND/PARTICIPANT.safetensors, each written atomically.

    Args:
        path: the folder; it is made if it does not exist.
        participants: how many are waited for in the first round, and in the first after all messages were lost.

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
        """Leave a message for everyone; see `Mailbox.put`."""
        (self.path / str(round)).mkdir(exist_ok=True)
        write_atomic(self._file(round, participant), pack(message))
        for old in self._rounds():
            if old <= round - ROUNDS_KEPT:
                self._file(old, participant).unlink(missing_ok=True)

    def get_all(self, round: int, deadline: float) -> dict[str, Tree]:
        """Wait for the messages of a round and return them; see `Mailbox.get_all`."""
        wait_for_messages(lambda: self.senders(round), lambda: self.senders(round - 1), self.participants, deadline)
        messages = {sender: _read(self._file(round, sender)) for sender in sorted(self.senders(round))}
        return {sender: message for sender, message in messages.items() if message is not None}

    def newest(self) -> int:
        """Return the last round that has a message; see `Mailbox.newest`."""
        return max((round for round in self._rounds() if self.senders(round)), default=0)

    def senders(self, round: int) -> set[str]:
        """Return the participants that have sent a message in a round; see `Mailbox.senders`."""
        return {unquote(file.stem) for file in (self.path / str(round)).glob("[!.]*.safetensors")}

    def _rounds(self) -> list[int]:
        """Return the rounds that have a folder."""
        return [int(folder.name) for folder in self.path.iterdir() if folder.name.isdigit()]

    def _file(self, round: int, participant: str) -> Path:
        """Return the path of a participant's message."""
        return self.path / str(round) / f"{quote(participant, safe='').replace('.', '%2E')}.safetensors"


def _read(file: Path) -> Tree | None:
    try:
        return unpack_message(file.read_bytes())
    except OSError:
        return None


def unpack_message(data: bytes) -> Tree | None:
    """Return the message in these bytes, or None if there is none."""
    try:
        return unpack(data)
    except (SafetensorError, ValueError, KeyError, TypeError):
        return None


def wait_for_messages(
    senders: Callable[[], set[str]],
    senders_before: Callable[[], set[str]],
    participants: int,
    deadline: float,
    pause: float = 0.02,
) -> None:
    """Wait until everyone who sent a message in the round before has sent one, or until the deadline.

    If nobody sent one in the round before, wait for this many `participants`.
    """
    until = time.monotonic() + deadline
    while time.monotonic() < until:
        here, expected = senders(), senders_before()
        if expected <= here if expected else len(here) >= participants:
            return
        time.sleep(min(pause, max(until - time.monotonic(), 0)))
        pause = min(1.5 * pause, 0.5)
