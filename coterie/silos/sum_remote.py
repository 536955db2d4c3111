"""The coordinator's part in the secure sum of a round: it takes keys, shares and masked numbers between silos.

A round waits until as many clients have sent keys as must stay until the end. From then on it goes through its steps
once: who does not answer is gone, and with too few left the round changes nothing.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import torch

from coterie.core import tree
from coterie.core.engine import Reply
from coterie.core.errors import Mistake
from coterie.core.packing import pack
from coterie.core.tree import Tree
from coterie.loop.jobs import Assignment, clients_to_ask
from coterie.loop.plan import Plan
from coterie.loop.secure_round import quorum
from coterie.loop.secure_work import RowLayouts, Server
from coterie.loop.store import Store
from coterie.loop.tally import Tally
from coterie.loop.template import Templates
from coterie.privacy.masking_client import LEAST_CLIENTS, Ask, Keys
from coterie.silos.exchange import Exchange
from coterie.silos.letters import MAX_LOGS, Start, read_results
from coterie.silos.message import Message, Requests, Unusable
from coterie.silos.remote_round import FRAMING_BYTES, RemoteRound
from coterie.silos.sum_letters import read_bytes, read_keys, write_asks, write_bytes, write_neighbours

SHARE_TEXT_BYTES = 2**9
"""Of the text of what one client sends for another, with its name."""


class Waiting(NamedTuple):
    """How a round waits for silos: by `pause(seconds)`, and how often while they all say that they cannot work."""

    pause: Callable[[float], None]
    first_seconds: float
    longest_seconds: float
    tries: int


class RemoteSecureWork:
    """The silos as a `coterie.loop.secure_work.SecureWork`, in one round.

    Args:
        plan: the coordinator's, in this round.
        number, broadcast, store, tally: of the round.
        exchange: with the silos.
        hosts: client -> its silo.
        go_back: see `RemoteWork`.
        waiting: for silos before the sum begins.
    """

    def __init__(
        self,
        plan: Plan,
        number: int,
        broadcast: Tree,
        store: Store,
        tally: Tally,
        exchange: Exchange,
        hosts: Mapping[str, str],
        go_back: int,
        waiting: Waiting,
    ) -> None:
        self.plan, self.number, self.tally, self.exchange, self.hosts = plan, number, tally, exchange, hosts
        self.purpose = f"{exchange.run.name}/{number}/{secrets.token_hex(8)}"
        self.costs: Mapping[str, int] = clients_to_ask(plan, number, broadcast, tally)
        self._versions, self._go_back, self._waiting = store.versions(), go_back, waiting
        self._broadcast = pack(broadcast)
        self._round = RemoteRound(plan, number, self.costs, Templates().of_round(plan, broadcast))
        self._why: dict[str, str] = {}  # client -> why it is gone
        self._failed: set[str] = set()  # clients whose silo says that it cannot work

    def replies(self, server: Server, layouts: RowLayouts) -> Iterator[tuple[Assignment, Reply]]:
        """Take the first three steps; see `coterie.loop.secure_work.SecureWork`."""
        try:
            neighbours = server.neighbours(self._wait_for_keys())
            named = write_neighbours(neighbours)
            sealed = self._collect("sum-shares", list(neighbours), "neighbours", named, "sealed", len(neighbours))
            delivered = server.deliver(sealed)
            yield from self._ask_work(delivered, layouts)
        finally:
            self.tally.silent += [
                {"client": client, "why": why} for client, why in self._why.items() if client in self.costs
            ]

    def unmask(self, asks: Mapping[str, Ask]) -> dict[str, dict[str, bytes]]:
        """Return the shares that arrive; see `coterie.loop.secure_work.SecureWork`."""
        most = max(len(ask.stayed) + len(ask.gone) for ask in asks.values())
        return self._collect("sum-unmask", list(asks), "asks", write_asks(asks), "shares", most)

    def _wait_for_keys(self) -> dict[str, Keys]:
        """Return clients' keys, in the order of the cohort, once there are enough.

        Raises:
            Mistake: the silos say again and again that they cannot work.
        """
        needed = max(quorum(self.plan, len(self.tally.cohort)), LEAST_CLIENTS)
        keys, tries, seconds = dict[str, Keys](), 0, self._waiting.first_seconds
        while True:
            self.exchange.renew()
            missing = [client for client in self.costs if client not in keys]
            keys |= self._ask_keys(missing, is_first=seconds == self._waiting.first_seconds)
            if len(keys) >= min(needed, len(self.costs)):
                return {client: keys[client] for client in self.costs if client in keys}
            tries += self._why.keys() <= self._failed
            who = "; ".join(f"{client}: {why}" for client, why in list(self._why.items())[:3])
            count = f"round {self.number}: {len(keys)} clients have sent keys, and a secure sum needs {needed} ({who})"
            if tries == self._waiting.tries:
                raise Mistake(f"{count}; mend that, and continue with --resume: all earlier rounds are kept")
            self.exchange.say(f"{count}; asking again until there are enough")
            self._waiting.pause(seconds)
            seconds = min(2 * seconds, self._waiting.longest_seconds)

    def _ask_keys(self, clients: Sequence[str], is_first: bool) -> dict[str, Keys]:
        """Return the keys of those who send them. Silos that are left out are asked again after the first time."""
        there = []
        for client in clients:
            absence = self.exchange.absence(self.hosts[client])
            if absence is None or (not is_first and self.hosts[client] in self.exchange.left_out):
                there.append(client)
            else:
                self._why[client] = absence
        own = self._by_silo(there)
        fields = {site: {"names": names} for site, names in own.items()}
        found = dict[str, Keys]()
        for names, message in self._ask("sum-keys", own, fields, (), SHARE_TEXT_BYTES):
            sent = self._read(names, lambda message=message: read_keys(message))  # type: ignore[misc]
            found |= {name: sent[name] for name in names if name in sent}
        for client in found:
            self._why.pop(client, None)
            self._failed.discard(client)
        return found

    def _collect(
        self, kind: str, clients: Sequence[str], field: str, content: Mapping[str, Any], answer: str, each: int
    ) -> dict[str, dict[str, bytes]]:
        """Ask clients for what they send to others; return client -> name -> bytes.

        Args:
            kind: of the request.
            clients: who is asked.
            field: the name of `content`, client -> plain values, in the request.
            content: what each client is sent.
            answer: the name of what they send.
            each: for how many others one client sends something, at most.
        """
        own = self._by_silo(clients)
        fields = {site: {field: {name: content[name] for name in names}} for site, names in own.items()}
        found = dict[str, dict[str, bytes]]()
        for names, message in self._ask(kind, own, fields, (), each * SHARE_TEXT_BYTES):
            sent = self._read(names, lambda message=message: read_bytes(message, answer))  # type: ignore[misc]
            found |= {name: sent[name] for name in names if name in sent}
        return found

    def _ask_work(
        self, delivered: Mapping[str, Mapping[str, bytes]], layouts: RowLayouts
    ) -> Iterator[tuple[Assignment, Reply]]:
        """Ask for the work of the clients that have shared their keys; yield what arrives, as it comes."""
        own = self._by_silo(list(delivered))
        starts = {site: [Start(name, self._versions.get(name, 0)) for name in names] for site, names in own.items()}
        fields = {
            site: {
                "clients": [start._asdict() for start in starts[site]],
                "go_back": self._go_back,
                "sealed": write_bytes({name: delivered[name] for name in names}),
                "cohort": len(self.tally.cohort),
                "largest": dict(layouts.largest),
            }
            for site, names in own.items()
        }
        honest = layouts.honest_payload(
            self._round.work_of(next(iter(delivered))), logs=MAX_LOGS
        )  # alike for all clients
        most = tree.nbytes(honest) + FRAMING_BYTES
        for names, message in self._ask("sum-work", own, fields, (self._broadcast,), most):
            site = self.hosts[names[0]]
            results = self._read(names, lambda m=message, s=site: read_results(m, starts[s], masked=True))  # type: ignore[misc]
            k = 0
            for result in results or ():
                if result.why is not None:
                    self._why[result.client] = result.why
                    continue
                payload = self._read([result.client], lambda m=message, k=k: m.tree(k))  # type: ignore[misc]
                k += 1
                if payload:
                    kept = {"at_silo": torch.tensor(self.number)} if result.stateful else {}
                    state = {"algorithm": {}, "up": {}, "kept": kept}
                    yield self._round.work_of(result.client), Reply(result.client, payload, state, {}, result.logs)

    def _by_silo(self, clients: Sequence[str]) -> dict[str, list[str]]:
        """Return silo -> those of the clients that it hosts, in order."""
        own: dict[str, list[str]] = {}
        for client in clients:
            own.setdefault(self.hosts[client], []).append(client)
        return own

    def _ask(
        self, kind: str, own: Mapping[str, list[str]], fields: Mapping[str, Any], parts: Sequence[bytes], each: int
    ) -> Iterator[tuple[list[str], Message]]:
        """Ask silos; yield (the clients that were asked about, the answer), and note why there is none."""
        first = {**self.exchange.run.fields(kind, self.number), "purpose": self.purpose}
        messages = Requests({site: {**first, **more} for site, more in fields.items()}, parts)
        bounds = {site: FRAMING_BYTES + len(names) * (each + SHARE_TEXT_BYTES) for site, names in own.items()}
        for site, outcome in self.exchange.ask(messages, self.number, bounds):
            if isinstance(outcome, Message):
                yield own[site], outcome
                continue
            self._why |= dict.fromkeys(own[site], outcome.why)
            if getattr(outcome, "own_word", False):
                self._failed |= set(own[site])
            else:
                self._failed -= set(own[site])

    def _read(self, clients: Sequence[str], read: Callable[[], Any]) -> Any:
        """Return what is read of an answer; nothing, with the reason noted, where it cannot be used."""
        try:
            return read()
        except Unusable as error:
            self._why |= dict.fromkeys(clients, f"the answer of {self.hosts[clients[0]]} {error}")
            return {}
