"""A line between two hosts that is slow, thin or cut, as lines between hospitals are.

    python -m tests.deploy.relay LISTEN TARGET [--delay SECONDS] [--rate BYTES_PER_SECOND] [--connect NAME]

LISTEN, TARGET and NAME are HOST:PORT. It hands on what TCP connections carry. `--connect` makes it a proxy that a silo
dials out through: it takes HTTP's CONNECT for that name alone, which stands for the target.

A line on its standard input changes it: `cut` ends every connection, `close` also refuses new ones, `open` takes them
again, `rate 1e6` and `delay 0.1` set the two. It ends with its standard input.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
from contextlib import suppress
from dataclasses import dataclass, field

CHUNK = 16384


@dataclass
class Relay:
    """A line to a target; `delay` in seconds, and `rate` in bytes a second, are of each direction."""

    target: tuple[str, int]
    delay: float = 0.0
    rate: float = float("inf")
    connect: str = ""
    is_open: bool = True
    writers: set[asyncio.StreamWriter] = field(default_factory=set)
    carried: int = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Take one connection."""
        if not self.is_open or (self.connect and not await self._agree(reader, writer)):
            writer.transport.abort()
            return
        with suppress(OSError):
            far_reader, far_writer = await asyncio.open_connection(*self.target)
            self.writers |= {writer, far_writer}
            await asyncio.gather(self._carry(reader, far_writer), self._carry(far_reader, writer))
            self.writers -= {writer, far_writer}
        writer.close()

    async def _agree(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        words = (await reader.readline()).decode().split()
        while (await reader.readline()).strip():
            pass
        if words[:2] != ["CONNECT", self.connect]:
            writer.write(b"HTTP/1.1 403 Forbidden\r\n\r\n")
            return False
        print("CONNECT", words[1], flush=True)
        writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
        return True

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Hand on one direction; what was read arrives `delay` later, in order, and no faster than `rate`."""
        line: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue(256)
        loop = asyncio.get_running_loop()

        async def deliver() -> None:
            with suppress(OSError):
                while True:
                    due, chunk = await line.get()
                    await asyncio.sleep(max(0.0, due - loop.time()))
                    writer.write(chunk)
                    await writer.drain()
                    if not chunk:
                        writer.close()
                        return
            writer.transport.abort()

        delivery = asyncio.create_task(deliver())
        with suppress(OSError):
            while chunk := await reader.read(CHUNK):
                self.carried += len(chunk)
                await asyncio.sleep(len(chunk) / self.rate)
                await line.put((loop.time() + self.delay, chunk))
        await line.put((loop.time() + self.delay, b""))
        await delivery

    def obey(self, command: str) -> None:
        """Follow a command; see the module."""
        verb, *rest = command.split()
        if verb in ("cut", "close"):
            print("cut", len(self.writers) // 2, flush=True)
            for writer in self.writers:
                writer.transport.abort()
        if verb in ("close", "open"):
            self.is_open = verb == "open"
        if verb in ("rate", "delay"):
            setattr(self, verb, float(rest[0]))


def _address(text: str) -> tuple[str, int]:
    host, port = text.rsplit(":", 1)
    return host, int(port)


async def main() -> None:
    """Serve until standard input is closed."""
    parser = argparse.ArgumentParser()
    parser.add_argument("listen", type=_address)
    parser.add_argument("target", type=_address)
    parser.add_argument("--delay", type=float, default=0.0)
    parser.add_argument("--rate", type=float, default=float("inf"))
    parser.add_argument("--connect", default="")
    given = parser.parse_args()
    relay = Relay(given.target, given.delay, given.rate, given.connect)
    async with await asyncio.start_server(relay.serve, *given.listen):
        print("ready", flush=True)
        while command := await asyncio.to_thread(sys.stdin.readline):
            relay.obey(command)
        print("carried", relay.carried, flush=True)


if __name__ == "__main__":
    asyncio.run(main())
