"""Participants with keys, in threads of one process, for tests of the signed mailbox."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import pytest

from coterie import Plan, Round
from coterie.peers.agreed_rounds import take_part
from coterie.peers.keys import PrivateKey, make_key
from coterie.peers.objects import Objects, open_objects
from coterie.peers.pace import Pace
from coterie.peers.roster import Roster
from coterie.peers.signed_mailbox import SignedMailbox

pytest.importorskip("cryptography")

RUN = {"experiment": "e" * 64}
FAST = Pace(deadline=20.0, start_deadline=20.0, turn=0.05)


COMPUTE = threading.Lock()
"""Held by the thread that computes: modules cannot be made or called in two threads at once."""


class Box(SignedMailbox):
    """A mailbox at which one thread waits while another computes."""

    def pause(self, seconds: float) -> None:
        COMPUTE.release()
        super().pause(seconds)
        COMPUTE.acquire()


class Hospital:
    """The keys and the mailbox of some participants."""

    def __init__(self, folder: Path, names: Iterable[str], url: str | None = None) -> None:
        self.url = url or str(folder / "box")
        self.keys: dict[str, PrivateKey] = {name: make_key(folder / "keys" / f"{name}.key") for name in names}
        self.roster = Roster({name: key.public_key for name, key in self.keys.items()})

    def box(self, name: str, objects: Objects | None = None, run: Mapping[str, str] = RUN) -> SignedMailbox:
        return Box(objects or open_objects(self.url), self.roster, name, self.keys[name], run, patience=5)


def together(
    hospital: Hospital, plans: Mapping[str, Plan], pace: Pace = FAST, **options: Any
) -> dict[str, list[Round]]:
    """Each participant's rounds; the participants meet in the mailbox alone."""
    boxes = {name: hospital.box(name) for name in plans}
    return in_threads({name: lambda n=name: list(take_part(plans[n], boxes[n], pace, **options)) for name in plans})


def in_threads(work: Mapping[str, Callable[[], Any]]) -> dict[str, Any]:
    """Do some work in a thread each, and return the results; the first exception is raised again."""
    ends: dict[str, Any] = {}
    failures: list[BaseException] = []

    def do(name: str) -> None:
        try:
            with COMPUTE:
                ends[name] = work[name]()
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=do, args=(name,), daemon=True) for name in work]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    if failures:
        raise failures[0]
    return ends
