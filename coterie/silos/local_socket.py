"""Bytes between two processes of one machine: a header and a body, never pickled, behind a secret.

NVFlare runs a job in a process of its own, which ends with the job. The process that trains, and the one that runs the
rounds, live longer; they listen here, and the job's process connects. The socket and the secret lie in a folder that
only this user can enter.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
import socket
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from multiprocessing import AuthenticationError
from multiprocessing.connection import Client, Connection, Listener
from pathlib import Path
from threading import Lock
from typing import Any

MAX_HEADER_BYTES = 1 << 20
FOLDER_VARIABLE = "COTERIE_SILO_SOCKET"
"""The environment variable by which a job's process finds the folder."""


class Closed(ConnectionError):
    """The other process has gone."""


@dataclass
class Line:
    """A connection to the other process.

    Args:
        connection: an authenticated connection.
        ended: whether `receive` has found that the other process is gone.
    """

    connection: Connection[bytes, bytes]
    ended: bool = False
    _sending: Lock = field(default_factory=Lock)

    def send(self, header: Mapping[str, Any], body: bytes = b"") -> None:
        """Send a header and a body; several threads may.

        Raises:
            Closed: the other process has gone.
        """
        try:
            with self._sending:
                self.connection.send_bytes(json.dumps(dict(header)).encode())
                self.connection.send_bytes(body)
        except (OSError, ValueError) as error:
            raise Closed("the other process has gone") from error

    def receive(self, max_bytes: int | None = None) -> tuple[dict[str, Any], bytes]:
        """Wait for a header and a body; one thread may.

        Raises:
            Closed: the other process has gone, or sent something else, or a body above `max_bytes`.
        """
        try:
            header = json.loads(self.connection.recv_bytes(MAX_HEADER_BYTES))
            body = self.connection.recv_bytes(max_bytes)
        except (OSError, EOFError, ValueError) as error:
            self.ended = True
            raise Closed("the other process has gone") from error
        if not isinstance(header, dict):
            raise Closed("the other process sent something else than a header")
        return header, body

    def close(self) -> None:
        """End the connection, also for a thread that waits in `receive`."""
        with suppress(OSError), socket.socket(fileno=os.dup(self.connection.fileno())) as twin:
            twin.shutdown(socket.SHUT_RDWR)  # closing alone would not wake the thread, nor tell the other process


class Meeting:
    """Where the job's process connects: a folder with a socket and a secret."""

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="coterie-"))  # for this user alone, and a short path as sockets need
        secret = secrets.token_bytes(32)
        (self.folder / "secret").write_bytes(secret)
        self._closed = False
        self._listener = Listener(str(self.folder / "socket"), "AF_UNIX", backlog=16, authkey=secret)

    def accept(self) -> Line:
        """Wait for the next connection that knows the secret.

        Raises:
            Closed: `close` was called.
        """
        while not self._closed:
            try:
                return Line(self._listener.accept())
            except (OSError, EOFError, AuthenticationError):  # a stranger, a caller that went away, or `close`
                continue
        raise Closed("closed")

    def close(self) -> None:
        """End every `accept` and remove the folder; harmless when called twice."""
        if self._closed:
            return
        self._closed = True
        with suppress(OSError), socket.socket(socket.AF_UNIX) as waker:  # a blocked `accept` only ends by a connection
            waker.connect(str(self.folder / "socket"))
        self._listener.close()
        shutil.rmtree(self.folder, ignore_errors=True)


def connect(folder: Path) -> Line:
    """Connect to the process that listens in a folder.

    Raises:
        Closed: none listens.
    """
    try:
        return Line(Client(str(folder / "socket"), "AF_UNIX", authkey=(folder / "secret").read_bytes()))
    except (OSError, EOFError) as error:
        raise Closed(f"no process listens in {folder}") from error
