"""A mailbox on the network, in a store that a process of its own keeps, so that no participant's death takes it away.

    python -m coterie.peers.network_mailbox PORT

The store asks nobody who they are, and what it holds is gone when it ends: keep it inside a private network.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from typing import Any
from urllib.parse import quote, unquote

from torch import distributed

from coterie.core.errors import Mistake
from coterie.core.packing import pack
from coterie.core.tree import Tree
from coterie.peers.mailbox import KEPT, understood, waited


class Network:
    """A mailbox at HOST:PORT; see `coterie.peers.mailbox.Mailbox`.

    Args:
        host, port: where the store is.
        participants: how many are waited for in the first round, and in the first after the store was started again.
        timeout: seconds after which a store that does not answer is taken for gone.

    Raises:
        Mistake: no store answers, there or later.
    """

    def __init__(self, host: str, port: int, participants: int, timeout: float = 30.0) -> None:
        self.where, self.participants = f"{host}:{port}", participants
        with self._reached():
            self._store = _store(host, port, is_master=False, timeout=timedelta(seconds=timeout))

    def put(self, round: int, participant: str, message: Tree) -> None:
        """See `Mailbox`."""
        with self._reached():
            self._store.set(_key(round, participant), pack(message))
            self._store.append(str(round), quote(participant, safe="") + "\n")
            if round > self._newest():
                self._store.set("newest", str(round))
            self._store.delete_key(_key(round - KEPT, participant))

    def get_all(self, round: int, deadline: float) -> dict[str, Tree]:
        """See `Mailbox`."""
        with self._reached():
            waited(lambda: self._spoke(round), lambda: self._spoke(round - 1), self.participants, deadline)
            found = {who: self._message(_key(round, who)) for who in sorted(self._spoke(round))}
        return {who: message for who, message in found.items() if message is not None}

    def newest(self) -> int:
        """See `Mailbox`."""
        with self._reached():
            return self._newest()

    def spoke(self, round: int) -> set[str]:
        """See `Mailbox`."""
        with self._reached():
            return self._spoke(round)

    def _newest(self) -> int:
        return int(self._store.get("newest")) if self._store.check(["newest"]) else 0

    def _spoke(self, round: int) -> set[str]:
        names = self._store.get(str(round)).decode().splitlines() if self._store.check([str(round)]) else []
        return {unquote(name) for name in names}

    def _message(self, key: str) -> Tree | None:
        return understood(self._store.get(key)) if self._store.check([key]) else None

    @contextmanager
    def _reached(self) -> Iterator[None]:
        try:
            yield
        except (RuntimeError, TypeError) as error:  # what torch.distributed raises where nobody answers, or is no port
            raise Mistake(f"no mailbox answers at {self.where}; start one there and try again") from error


def serve(host: str, port: int) -> Any:
    """Keep a store at HOST:PORT for as long as the process, and the value that is returned, live."""
    return _store(host, port, is_master=True, wait_for_workers=False)


def _store(host: str, port: int, **options: Any) -> Any:
    tcp: Any = distributed
    return tcp.TCPStore(host, port, **options)


def _key(round: int, participant: str) -> str:
    return f"{round}/{quote(participant, safe='')}"


def main(arguments: list[str] | None = None) -> None:
    """Keep a store until Ctrl-C."""
    parser = argparse.ArgumentParser(
        prog="python -m coterie.peers.network_mailbox", description="A mailbox on the network."
    )
    parser.add_argument("port", type=int, help="where it listens, such as 29500")
    port = parser.parse_args(arguments).port
    try:
        kept = serve("0.0.0.0", port)
    except (RuntimeError, TypeError):  # what torch.distributed raises where the port is taken, or is no port
        parser.error(f"port {port} cannot be listened on; choose one from 1024 to 65535 that is free")
    print(f"a mailbox listens on port {kept.port}; Ctrl-C ends it", flush=True)
    with suppress(KeyboardInterrupt):
        while True:
            time.sleep(3600)


if __name__ == "__main__":
    main()
