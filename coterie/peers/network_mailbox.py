"""A mailbox on the network, in a store that has a process of its own, so that it survives every participant.

    python -m coterie.peers.network_mailbox PORT

The store does not check who writes to it, and loses its content when it ends. Keep it inside a private network.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from functools import partial
from typing import Any
from urllib.parse import quote, unquote

from torch import distributed

from coterie.core.errors import Mistake
from coterie.core.packing import pack
from coterie.core.tree import Tree
from coterie.peers.mailbox import ROUNDS_KEPT, unpack_message, wait_for_messages


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

    def put(self, round: int, participant: str, message: Tree) -> None:
        """Leave a message for everyone; see `Mailbox.put`."""
        with self._raise_mistakes():
            self._store.set(_key(round, participant), pack(message))
            self._store.append(str(round), quote(participant, safe="") + "\n")
            if round > self._newest():
                self._store.set("newest", str(round))
            self._store.delete_key(_key(round - ROUNDS_KEPT, participant))

    def get_all(self, round: int, deadline: float) -> dict[str, Tree]:
        """Wait for the messages of a round and return them; see `Mailbox.get_all`."""
        with self._raise_mistakes():
            now, before = partial(self._senders, round), partial(self._senders, round - 1)
            wait_for_messages(now, before, self.participants, deadline)
            messages = {sender: self._message(_key(round, sender)) for sender in sorted(now())}
        return {sender: message for sender, message in messages.items() if message is not None}

    def newest(self) -> int:
        """Return the last round that has a message; see `Mailbox.newest`."""
        with self._raise_mistakes():
            return self._newest()

    def senders(self, round: int) -> set[str]:
        """Return the participants that have sent a message in a round; see `Mailbox.senders`."""
        with self._raise_mistakes():
            return self._senders(round)

    def _newest(self) -> int:
        return int(self._store.get("newest")) if self._store.check(["newest"]) else 0

    def _senders(self, round: int) -> set[str]:
        names = self._store.get(str(round)).decode().splitlines() if self._store.check([str(round)]) else []
        return {unquote(name) for name in names}

    def _message(self, key: str) -> Tree | None:
        return unpack_message(self._store.get(key)) if self._store.check([key]) else None

    @contextmanager
    def _raise_mistakes(self) -> Iterator[None]:
        """Turn errors of a store that does not answer into a mistake."""
        try:
            yield
        except (RuntimeError, TypeError) as error:  # torch.distributed's, if nothing answers or the port is wrong
            raise Mistake(f"no mailbox answers at {self.where}; start one there and try again") from error


def serve(host: str, port: int) -> Any:
    """Start a store at HOST:PORT; it lives as long as this process and the returned value."""
    return _store(host, port, is_master=True, wait_for_workers=False)


def _store(host: str, port: int, **options: Any) -> Any:
    """Return a client of the store at HOST:PORT, or the store itself with is_master=True."""
    tcp: Any = distributed
    return tcp.TCPStore(host, port, **options)


def _key(round: int, participant: str) -> str:
    return f"{round}/{quote(participant, safe='')}"


def main(arguments: list[str] | None = None) -> None:
    """Run a store until Ctrl-C."""
    parser = argparse.ArgumentParser(
        prog="python -m coterie.peers.network_mailbox", description="A mailbox on the network."
    )
    parser.add_argument("port", type=int, help="where it listens, such as 29500")
    port = parser.parse_args(arguments).port
    try:
        store = serve("0.0.0.0", port)
    except (RuntimeError, TypeError):  # what torch.distributed raises for a port that is taken, or a wrong one
        parser.error(f"port {port} cannot be listened on; choose one from 1024 to 65535 that is free")
    print(f"a mailbox listens on port {store.port}; Ctrl-C ends it", flush=True)
    with suppress(KeyboardInterrupt):
        while True:
            time.sleep(3600)


if __name__ == "__main__":
    main()
