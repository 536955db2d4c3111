"""A carrier in one process: silos are functions. It can misbehave as networks and strangers do, for tests."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from coterie.silos.carrier import Answer, Failure

Fault = Callable[[bytes], Sequence[bytes | Failure]]
"""What becomes of an answer on its way: it may come once, altered, several times, not at all, or as a failure."""


class InProcess:
    """Silos in this process.

    Attributes:
        silos: name -> its answer.
        faults: (round, silo) -> what becomes of the silo's work in that round.
        gone: silos that are not connected now; a test may change it.
        requests: (silo, kind) of all that was asked, in order.
    """

    def __init__(self, silos: Mapping[str, Answer], faults: Mapping[tuple[int, str], Fault] | None = None) -> None:
        self.silos, self.faults = dict(silos), dict(faults or {})
        self.gone: set[str] = set()
        self.requests: list[tuple[str, str]] = []
        self._late: list[tuple[str, bytes]] = []

    def sites(self) -> list[str]:
        """Return the silos that are not gone."""
        return [site for site in self.silos if site not in self.gone]

    def ask(self, messages: Mapping[str, bytes], deadline: float) -> Iterator[tuple[str, bytes | Failure]]:
        """Let each silo answer, the last one first, after those whose message is short: no order can be relied on."""
        late, self._late = self._late, []
        yield from late
        kinds = {site: _fields(message) for site, message in messages.items()}
        backwards = list(kinds)[::-1]
        for site in sorted(backwards, key=lambda site: kinds[site]["kind"] != "ping"):
            message, fields = messages[site], kinds[site]
            self.requests.append((site, fields["kind"]))
            if site in self.gone:
                yield site, Failure("is not connected")
                continue
            answer = self.silos[site](message)
            fault = self.faults.get((fields["round"], site)) if fields["kind"] == "work" else None
            if fault is late_answer:
                self._late.append((site, answer))
            for what in (answer,) if fault is None else fault(answer):
                yield site, what

    def renew(self) -> None:
        """Do nothing: `gone` says who is connected."""

    def close(self) -> None:
        """Do nothing."""


def _fields(message: bytes) -> dict[str, Any]:
    fields: dict[str, Any] = json.loads(message[: message.index(b"\n")])
    return fields


def late_answer(answer: bytes) -> list[bytes | Failure]:
    """Give no answer now; `InProcess` brings it in its next exchange."""
    return []
