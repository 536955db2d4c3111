"""A port that hands bytes on and counts them, between the silos and the coordinator."""

from __future__ import annotations

import asyncio
import threading
import time
from contextlib import suppress


class Wire:
    """Counts what passes between whoever dials `port` and what listens at `to`; TLS passes through as it is.

    Attributes:
        port: to dial.
        passed: (seconds since 1970, all bytes until then, both ways), as they came.
    """

    def __init__(self, port: int, to: int) -> None:
        self.port, self.to = port, to
        self.passed: list[tuple[float, int]] = [(time.time(), 0)]
        ready = threading.Event()
        threading.Thread(target=lambda: asyncio.run(self._serve(ready)), daemon=True).start()
        if not ready.wait(10.0):
            raise RuntimeError(f"nothing can listen at port {port}")

    def until(self, moment: float) -> int:
        """Return how many bytes had passed at a moment."""
        return max((total for when, total in self.passed if when <= moment), default=0)

    async def _serve(self, ready: threading.Event) -> None:
        server = await asyncio.start_server(self._connect, "127.0.0.1", self.port, limit=2**20)
        ready.set()
        async with server:
            await server.serve_forever()

    async def _connect(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            there, back = await asyncio.open_connection("127.0.0.1", self.to, limit=2**20)
        except OSError:  # nobody listens yet; who dials tries again
            writer.close()
            return
        await asyncio.gather(self._pass(reader, back), self._pass(there, writer))

    async def _pass(self, source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while part := await source.read(2**20):
                self.passed.append((time.time(), self.passed[-1][1] + len(part)))
                target.write(part)
                await target.drain()
        target.close()
