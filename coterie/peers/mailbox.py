"""A mailbox: participants without a server leave their messages of a round in it, and read those of the others.

There are two verbs, `put` and `get_all`. A round is complete when everyone has sent a message who sent a usable one in
the round before, or at the deadline, which includes reading. If nobody sent one in the round before, it waits for
usable messages of all participants. So a participant that dies costs the others one deadline, and one that comes back
is waited for again after its first new message.

A message is a tree of tensors, and nothing else travels. Whoever can write into a mailbox can use any name. Keep
strangers out by the folder's permissions, or by the network of the store. What they leave there is judged before it is
used (`coterie.peers.message`).
"""

from __future__ import annotations

import os
import re
import stat
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Protocol, TypeAlias
from urllib.parse import quote, unquote
from uuid import uuid4

from coterie.core.errors import Mistake
from coterie.core.files import write_atomic
from coterie.core.packing import pack
from coterie.core.printable import printable
from coterie.core.tree import Tree
from coterie.peers.message import Form, Message, Unusable

ROUNDS_KEPT = 3
"""Messages of this many rounds stay, so that slow participants still find the last ones."""

MAX_NAMES = 1000
"""Names of one round that are looked at, or as many as there are participants if that is more."""

MAX_NAME_BYTES = 220
"""Length of the longest name, spelled as in the mailbox; with an ending it must be the name of a file."""

MIN_SECONDS = 0.05
"""Shortest deadline: what lies there already is read."""

MAX_ROUNDS_LOOKED_AT = 100
"""Rounds that are searched, from the last, for one that has a usable message."""

MAX_SEARCH_SECONDS = 10.0
"""Longest search for that round."""

ANY_FORM = Form()

_ROUND = re.compile(r"[1-9][0-9]{0,8}")
_SUFFIX = ".safetensors"


class Mailbox(Protocol):
    """The way in which participants exchange messages."""

    def put(self, round: int, participant: str, message: Tree) -> None:
        """Leave a message for everyone; it replaces an earlier one of the same round and participant."""

    def get_all(self, round: int, deadline: float, form: Form = ANY_FORM) -> dict[str, Message]:
        """Return the messages of `round` by participant, when it is complete or after `deadline` seconds.

        Args:
            round: its number.
            deadline: seconds to wait and read.
            form: what an honest message looks like. For one that looks otherwise, the reason is returned.
        """

    def newest(self, form: Form = ANY_FORM) -> int:
        """Return the last round that has a message of this form; 0 before the first."""

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
        self._reader = Reader(self._list, self._load, participants)
        try:
            path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise Mistake(f"{path}: cannot be made the mailbox's folder ({error.strerror})") from error

    def put(self, round: int, participant: str, message: Tree) -> None:
        """Leave a message for everyone; see `Mailbox.put`.

        Raises:
            Mistake: the folder cannot be written.
        """
        file = self.path / str(round) / f"{spell(participant)}{_SUFFIX}"
        try:
            _move_aside(file.parent, stat.S_ISDIR)
            file.parent.mkdir(exist_ok=True)
            _move_aside(file, stat.S_ISREG)
            write_atomic(file, pack(message))
        except OSError as error:
            raise Mistake(f"{file}: the message cannot be written ({error.strerror})") from error
        for old in self._rounds():
            if old <= round - ROUNDS_KEPT:
                _remove_file(self.path / str(old) / file.name)

    def get_all(self, round: int, deadline: float, form: Form = ANY_FORM) -> dict[str, Message]:
        """Wait for the messages of a round and return them; see `Mailbox.get_all`."""
        return self._reader.wait_for_messages(round, deadline, form)

    def newest(self, form: Form = ANY_FORM) -> int:
        """Return the last round that has a message of this form; see `Mailbox.newest`."""
        last = sorted(self._rounds(), reverse=True)[:MAX_ROUNDS_LOOKED_AT]
        until = time.monotonic() + MAX_SEARCH_SECONDS
        return next((round for round in last if self._reader.usable(round, form, until)), 0)

    def senders(self, round: int) -> set[str]:
        """Return the participants that have sent a message in a round; see `Mailbox.senders`."""
        return {name for name, entry in self._list(round, float("inf")).items() if not isinstance(entry, Unusable)}

    def _rounds(self) -> list[int]:
        """Return the rounds that have a folder.

        Raises:
            Mistake: the mailbox is gone.
        """
        try:
            with os.scandir(self.path) as entries:
                return [int(e.name) for e in entries if _ROUND.fullmatch(e.name) and e.is_dir(follow_symlinks=False)]
        except OSError as error:
            raise Mistake(f"{self.path}: the mailbox's folder cannot be read ({error.strerror})") from error

    def _list(self, round: int, until: float) -> dict[str, Listed]:
        """Return what lies in the folder of a round, by participant; of each file what changes with its content."""
        folder, found = self.path / str(round), dict[str, Listed]()
        try:
            if folder.is_symlink():
                return {}
            with os.scandir(folder) as entries:
                for entry in entries:
                    if not entry.name.startswith(".") and entry.name.endswith(_SUFFIX):
                        name = read_name(entry.name.removesuffix(_SUFFIX))
                        found[name or stand_in_name(entry.name)] = _look_at(entry) if name else NO_NAME
                    if len(found) > MAX_NAMES and time.monotonic() > until:
                        break
        except OSError:  # the folder is not there yet, or is something else
            pass
        return found

    def _load(self, round: int, participant: str, form: Form) -> bytes | Unusable:
        """Return the bytes of a message, or why they are not read."""
        return _read_regular(self.path / str(round) / f"{spell(participant)}{_SUFFIX}", form)


Version: TypeAlias = tuple[int, ...]
"""What changes with the content of a message."""

Listed: TypeAlias = Version | Unusable

NO_NAME = Unusable("is not a name that any participant writes")


class Reader:
    """Reads the messages of a round as they arrive, each once for as long as it stays the same.

    Args:
        list_round: (round, until when) -> what there is, by participant.
        load: (round, participant, form) -> its bytes, or why they are not read.
        participants: how many are waited for where nobody is known from the round before.
    """

    def __init__(
        self,
        list_round: Callable[[int, float], Mapping[str, Listed]],
        load: Callable[[int, str, Form], bytes | Unusable],
        participants: int,
    ) -> None:
        self.list_round, self.load, self.participants = list_round, load, participants
        self._read: dict[tuple[int, str], tuple[Version, Message]] = {}

    def wait_for_messages(self, round: int, deadline: float, form: Form, pause: float = 0.02) -> dict[str, Message]:
        """Return a round's messages when it is complete, or at the deadline; see `Mailbox.get_all`."""
        until = time.monotonic() + max(deadline, MIN_SECONDS)
        self._read = {key: value for key, value in self._read.items() if key[0] >= round - 1}
        while True:
            expected = self.usable(round - 1, form, until)
            here = self._messages(round, form, until, expected)
            complete = expected <= here.keys() if expected else len(_usable(here)) >= self.participants
            if complete or time.monotonic() >= until:
                return here
            time.sleep(min(pause, max(until - time.monotonic(), 0)))
            pause = min(1.5 * pause, 0.5)

    def usable(self, round: int, form: Form, until: float = float("inf")) -> set[str]:
        """Return the participants that have sent a message of this form in a round."""
        return _usable(self._messages(round, form, until))

    def _messages(self, round: int, form: Form, until: float, first: set[str] | None = None) -> dict[str, Message]:
        """Return the messages of a round that can be read by then, those of `first` before all others.

        Beyond `MAX_NAMES`, one entry stands for all further names.
        """
        read_before = {name: version for (of, name), (version, _) in self._read.items() if of == round}
        listed, early = {**read_before, **self.list_round(round, until)}, first or set()
        names = sorted(listed, key=lambda name: (name not in early, isinstance(listed[name], Unusable), name))
        limit, found = max(MAX_NAMES, self.participants), dict[str, Message]()
        for name in names[:limit]:
            message = self._message(round, name, listed[name], form, until)
            if message is not None:
                found[name] = message
        if len(names) > limit:
            found[f"{len(names) - limit} more names"] = Unusable(f"a round takes messages of {limit} names at most")
        return dict(sorted(found.items()))

    def _message(self, round: int, name: str, listed: Listed, form: Form, until: float) -> Message | None:
        """Return a message, which is read unless it is as it was; None if it is too late to read it."""
        if isinstance(listed, Unusable):
            return listed
        version, message = self._read.get((round, name), (None, None))
        if version != listed and time.monotonic() <= until:
            data = self.load(round, name, form)
            message = data if isinstance(data, Unusable) else form.read(data)
            self._read[round, name] = listed, message
        return message


def _usable(messages: Mapping[str, Message]) -> set[str]:
    """Return the names of those messages that can be used."""
    return {name for name, message in messages.items() if not isinstance(message, Unusable)}


def spell(name: str) -> str:
    """Return how a participant's name is spelled in a mailbox.

    Raises:
        Mistake: it is too long, empty, or not text.

    >>> spell("../St. Mary's")
    '%2E%2E%2FSt%2E%20Mary%27s'
    """
    try:
        spelled = quote(name, safe="").replace(".", "%2E")
    except UnicodeEncodeError:
        spelled = ""
    if not 0 < len(spelled) <= MAX_NAME_BYTES:
        raise Mistake(
            f"a participant cannot be called {printable(name)[:80]}: choose a shorter name, of letters and digits"
        )
    return spelled


def read_name(spelled: str) -> str | None:
    """Return the name that is spelled so in a mailbox; None if no participant spells one so.

    >>> read_name("St%2E%20Mary%27s"), read_name("%ff")
    ("St. Mary's", None)
    """
    name = unquote(spelled)
    try:
        return name if spell(name) == spelled else None
    except Mistake:
        return None


def stand_in_name(spelled: str) -> str:
    """Return what stands for a name that no participant spells so; no participant has it as a name."""
    return f"{printable(spelled)} (misspelled)"


def _look_at(entry: os.DirEntry[str]) -> Listed:
    """Return what changes with the content of a regular file; what is something else cannot be used."""
    try:
        found = entry.stat(follow_symlinks=False)
    except OSError as error:
        return Unusable(f"cannot be looked at ({error.strerror})")
    if not stat.S_ISREG(found.st_mode):
        return Unusable("is not a regular file")
    return found.st_ino, found.st_size, found.st_mtime_ns


def _read_regular(path: Path, form: Form) -> bytes | Unusable:
    """Return the bytes of a regular file that is as long as an honest message, without following a link or waiting."""
    flags = sum(getattr(os, name, 0) for name in ("O_NOFOLLOW", "O_NONBLOCK", "O_NOCTTY", "O_CLOEXEC", "O_BINARY"))
    try:
        with open(os.open(path, os.O_RDONLY | flags), "rb") as file:  # noqa: PTH123 - of a descriptor
            found = os.fstat(file.fileno())
            if not stat.S_ISREG(found.st_mode):
                return Unusable("is not a regular file")
            wrong = form.length_problem(found.st_size)
            return Unusable(wrong) if wrong else file.read(form.max_bytes + 1)
    except OSError as error:
        return Unusable(f"cannot be read ({error.strerror})")


def _move_aside(path: Path, is_right: Callable[[int], bool]) -> None:
    """Rename what lies where a message or a round's folder belongs and is something else, such as a link."""
    try:
        kind = path.lstat().st_mode
    except FileNotFoundError:
        return
    if not is_right(kind):
        path.rename(path.with_name(f".moved-{uuid4().hex}"))


def _remove_file(path: Path) -> None:
    """Remove a file, if there is one."""
    try:
        path.unlink(missing_ok=True)
    except OSError:  # somebody has put something else there
        return
