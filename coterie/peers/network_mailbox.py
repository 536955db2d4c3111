"""A mailbox on the network, in a store that has a process of its own, so that it survives every participant.

    python -m coterie.peers.network_mailbox PORT [--host ADDRESS]

The store listens on this machine alone unless it is told an address of a network. It does not check who writes to it or
how much, and loses its content when it ends. So give it an address inside a private network or a tunnel only.
"""

from __future__ import annotations

import argparse
import re
import socket
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from typing import Any

from torch import distributed

from coterie.core.errors import Mistake, reason
from coterie.core.packing import pack
from coterie.core.tree import Tree
from coterie.peers.mailbox import (
    ANY_FORM,
    MAX_NAME_BYTES,
    NO_NAME,
    ROUNDS_KEPT,
    Listed,
    Reader,
    read_name,
    spell,
    stand_in_name,
)
from coterie.peers.message import Form, Message, Unusable

LOOPBACK = "127.0.0.1"
"""The address at which only programs on this machine reach a store."""

MAX_MESSAGE_BYTES = 2**23
"""The longest value that the store takes."""


class Network:
    """A mailbox at HOST:PORT; see `coterie.peers.mailbox.Mailbox`.

    Args:
        host, port: the address of the store.
        participants: how many are waited for in the first round, and in the first after the store was started again.
        timeout: seconds to wait for an answer of the store.

    Raises:
        Mistake: no store answers, now or later.
    """

    def __init__(self, host: str, port: int, participants: int, timeout: float = 30.0) -> None:
        self.where, self.participants = f"{host}:{port}", participants
        with self._raise_mistakes():
            self._store = _store(host, port, is_master=False, timeout=timedelta(seconds=timeout))
        self._reader = Reader(self._list, self._load, participants)

    def put(self, round: int, participant: str, message: Tree) -> None:
        """Leave a message for everyone; see `Mailbox.put`.

        Raises:
            Mistake: the message is too long for a store, or none answers.
        """
        data = pack(message)
        if len(data) > MAX_MESSAGE_BYTES:
            raise Mistake(
                f"a message has {len(data)} bytes, and a mailbox on the network takes {MAX_MESSAGE_BYTES} at most: "
                'use a folder, fewer seed examples, or send_as = "float16" or "uint8"'
            )
        with self._raise_mistakes():
            self._store.set(_key(round, participant), data)
            self._store.append(str(round), spell(participant) + "\n")
            if round > self._newest():
                self._store.set("newest", str(round))
            self._store.delete_key(_key(round - ROUNDS_KEPT, participant))

    def get_all(self, round: int, deadline: float, form: Form = ANY_FORM) -> dict[str, Message]:
        """Wait for the messages of a round and return them; see `Mailbox.get_all`."""
        with self._raise_mistakes():
            return self._reader.wait_for_messages(round, deadline, form)

    def newest(self, form: Form = ANY_FORM) -> int:
        """Return the last round that has a message of this form; see `Mailbox.newest`."""
        with self._raise_mistakes():
            newest = self._newest()
            return newest if newest and self._reader.usable(newest, form) else 0

    def senders(self, round: int) -> set[str]:
        """Return the participants that have sent a message in a round; see `Mailbox.senders`."""
        with self._raise_mistakes():
            return set(self._list(round))

    def _newest(self) -> int:
        """Return the round that was last written down as the newest; 0 if something else stands there, or nothing."""
        text = self._get("newest")
        return int(text) if text and re.fullmatch(rb"[1-9][0-9]{0,8}", text) else 0

    def _list(self, round: int, until: float = float("inf")) -> dict[str, Listed]:
        """Return the names of a round; of each how often it stands there, since it is written with every message."""
        spelled = Counter((self._get(str(round)) or b"").splitlines())
        found: dict[str, Listed] = {}
        for each, times in spelled.items():
            text = each[: 2 * MAX_NAME_BYTES].decode("ascii", "backslashreplace")
            name = read_name(text)
            found[name or stand_in_name(text)] = (times,) if name else NO_NAME
        return found

    def _load(self, round: int, participant: str, form: Form) -> bytes | Unusable:
        """Return the bytes of a message, or why they are not there."""
        data = self._get(_key(round, participant))
        return Unusable("has a name in the mailbox, and no message") if data is None else data

    def _get(self, key: str) -> bytes | None:
        """Return what stands under a key; None if nothing does."""
        if not self._store.check([key]):
            return None
        try:
            return bytes(self._store.get(key))
        except distributed.DistStoreError:  # somebody has removed it since
            return None

    @contextmanager
    def _raise_mistakes(self) -> Iterator[None]:
        """Turn errors of a store that does not answer into a mistake."""
        try:
            yield
        except (RuntimeError, TypeError) as error:  # torch.distributed's, if nothing answers or the port is wrong
            raise Mistake(f"no mailbox answers at {self.where}; start one there and try again") from error


def serve(host: str, port: int) -> Any:
    """Start a store that listens at HOST:PORT alone; it lives as long as this process and the returned value.

    Args:
        host: an address of this machine; "0.0.0.0" or "::" for all of them.
        port: 0 for any that is free.

    Raises:
        OSError: it cannot listen there.
    """
    listener = socket.create_server((host, port), family=_family(host), backlog=128)
    listener.setblocking(True)
    number = listener.getsockname()[1]
    here = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
    return _store(here, number, is_master=True, wait_for_workers=False, master_listen_fd=listener.detach())


def _family(host: str) -> socket.AddressFamily:
    """Return the kind of address that a host has.

    Raises:
        OSError: it has none.
    """
    return socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)[0][0]


def _store(host: str, port: int, **options: Any) -> Any:
    """Return a client of the store at HOST:PORT, or the store itself with is_master=True."""
    tcp: Any = distributed
    return tcp.TCPStore(host, port, **options)


def _key(round: int, participant: str) -> str:
    return f"{round}/{spell(participant)}"


def main(arguments: list[str] | None = None) -> None:
    """Run a store until Ctrl-C."""
    parser = argparse.ArgumentParser(
        prog="python -m coterie.peers.network_mailbox", description="A mailbox on the network."
    )
    parser.add_argument("port", type=int, help="where it listens, such as 29500")
    parser.add_argument(
        "--host",
        default=LOOPBACK,
        help=f"the address of this machine that it listens at; {LOOPBACK}, this machine alone",
    )
    given = parser.parse_args(arguments)
    try:
        store = serve(given.host, given.port)
    except socket.gaierror:
        parser.error(f"{given.host} is not an address of this machine; name one, such as {LOOPBACK}")
    except (OSError, OverflowError) as error:
        parser.error(
            f"port {given.port} at {given.host} cannot be listened on ({reason(error)}); choose one from 1024 to 65535 "
            "that is free, and an address of this machine"
        )
    print(f"a mailbox listens at {given.host}, port {store.port}; Ctrl-C ends it", flush=True)
    with suppress(KeyboardInterrupt):
        while True:
            time.sleep(3600)


if __name__ == "__main__":
    main()
