"""A silo's part in secure sums: it masks what its clients send, and helps to open sums.

The messages stand in `coterie.silos.sum_letters`. The keys of a sum are in memory alone. A silo that is started again
has none for the sums before, and its clients count as gone there. Where a run's plan hides updates, the silo answers no
request for updates in the clear.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from coterie.core.algorithm import Weighting
from coterie.core.digests import digest
from coterie.core.engine import Reply
from coterie.core.packing import pack
from coterie.core.tree import Tree
from coterie.loop.jobs import Assignment
from coterie.loop.plan import Plan
from coterie.loop.secure_round import Layouts
from coterie.loop.secure_work import mask_reply
from coterie.loop.template import Templates
from coterie.privacy.masking_client import MaskingClient
from coterie.silos.letters import Result, Run, answer_fields
from coterie.silos.message import Message, Unusable, real_number, write_message
from coterie.silos.sum_letters import (
    read_asks,
    read_bytes,
    read_neighbours,
    write_bytes,
    write_keys,
)


class SumAtSilo:
    """The clients of a silo in the sum that runs now.

    Args:
        run: whose messages they are.
        hosted: the silo's clients.
    """

    def __init__(self, run: Run, hosted: Sequence[str]) -> None:
        self.run, self.hosted = run, hosted
        self._purpose, self._clients = "", dict[str, MaskingClient]()
        self._answers = dict[str, bytes]()  # request -> answer, so that one that comes again changes nothing
        self._templates = Templates()

    def answer(self, kind: str, message: Message, request: bytes) -> bytes:
        """Return the answer to a request that needs no work.

        Raises:
            Unusable: it cannot be used, or does not protect a client.
        """
        known = self._answers.get(digest(request))
        if known is not None:
            return known
        fields = answer_fields(self.run, kind, request)
        if kind == "sum-keys":
            self._begin(message)
            keys = {name: client.advertise() for name, client in self._clients.items()}
            answer = write_message({**fields, "keys": write_keys(keys)})
        elif kind == "sum-shares":
            self._require(message)
            found = read_neighbours(message)
            sealed = {name: self._client(name).share_keys(neighbours) for name, neighbours in found.items()}
            answer = write_message({**fields, "sealed": write_bytes(sealed)})
        else:
            self._require(message)
            shares = {name: self._client(name).unmask(ask) for name, ask in read_asks(message).items()}
            answer = write_message({**fields, "shares": write_bytes(shares)})
        self._answers[digest(request)] = answer
        return answer

    def _begin(self, message: Message) -> None:
        """Make the keys of a new sum, and forget those of the last one."""
        purpose, wanted = message.text("purpose"), message.fields.get("names")
        if not isinstance(wanted, list) or not all(name in self.hosted for name in wanted) or not wanted:
            raise Unusable("does not list clients of this silo")
        if purpose != self._purpose:
            self._purpose, self._clients, self._answers = purpose, {}, {}
        for name in wanted:
            self._clients.setdefault(name, MaskingClient(name, purpose))

    def _require(self, message: Message) -> None:
        if message.text("purpose") != self._purpose or not self._purpose:
            raise Unusable("belongs to a secure sum of which this silo has no keys: it was started again meanwhile")

    def _client(self, name: str) -> MaskingClient:
        if name not in self._clients:
            raise Unusable(f"asks for {name[:50]}, which has no keys in this secure sum")
        return self._clients[name]

    def masking(self, plan: Plan, message: Message, broadcast: Tree) -> Callable[[Assignment, Reply], Result]:
        """Return a function: a client's work and its reply -> the result as it travels, masked.

        Args:
            plan: in this round.
            message: the request.
            broadcast: of the round.

        Raises:
            Unusable: the request cannot be used.
        """
        self._require(message)
        sealed = read_bytes(message, "sealed")
        cohort, largest = message.whole("cohort", 1, 2**31), _read_largest(message)
        layouts = Layouts(plan, largest, self._templates.of_round(plan, broadcast), cohort)

        def mask(work: Assignment, reply: Reply) -> Result:
            client, own = self._client(reply.client), sealed.get(reply.client, {})
            masked = mask_reply(plan, layouts.of(work), work, reply, client, own)
            if isinstance(masked, str):
                return Result(reply.client, masked)
            names = dict.fromkeys(masked.logs, 0.0)
            return Result(reply.client, None, pack(masked.update), {}, names, any(reply.state.values()))

        return mask


def _read_largest(message: Message) -> dict[Weighting, float]:
    """Return the number that no client's weight exceeds, for each kind.

    Raises:
        Unusable: the message holds something else.
    """
    given = message.fields.get("largest")
    if not isinstance(given, dict) or given.keys() != {"examples", "processed", "one"}:
        raise Unusable("does not give the three largest weights")
    largest: dict[Weighting, float] = {kind: real_number(given[kind], kind) for kind in given}
    if min(largest.values()) <= 0:
        raise Unusable("gives a largest weight that is not above 0")
    return largest
