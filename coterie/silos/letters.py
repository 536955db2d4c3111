"""What the messages between a coordinator and a silo say, and how each end judges what the other one sends.

    coordinator asks                                     a silo answers
    work      the broadcast, and each client's start     each client's payload, weighting and logs, or why there is none
    measure   the model, or the server's state           sums and counts of each metric; measures of its clients' models
    save      the model, or the server's state           that its clients' models are in its folder
    ping      nothing                                    nothing: it is there
    sum-...   the steps of a secure sum                  see `coterie.silos.sum_letters`

A silo that cannot do what it is asked answers "failed", with the reason. Every answer names the SHA-256 of the request
that it answers, so an answer that comes late is known as such.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from coterie.core.algorithm import Weighting
from coterie.core.digests import digest
from coterie.core.packing import pack
from coterie.core.printable import printable
from coterie.core.tree import Tree
from coterie.loop.plan import Plan
from coterie.silos.message import (
    MAX_REASON_LENGTH,
    Message,
    Requests,
    Unusable,
    real_number,
    whole_number,
    write_message,
)

MAX_LOGS = 64
"""How many logs a client may send, and a silo how many metrics."""


@dataclass(frozen=True)
class Run:
    """What makes messages those of one run.

    Attributes:
        name: of the run. A run that starts from the beginning has a new one.
        experiment: the digest of what both ends must have alike; see `experiment_digest`.
    """

    name: str
    experiment: str

    def fields(self, kind: str, round: int) -> dict[str, Any]:
        """Return the first fields of a request."""
        return {"kind": kind, "run": self.name, "experiment": self.experiment, "round": round}

    def judge(self, message: Message) -> None:
        """Refuse a message of another run, or of one with another experiment.

        Raises:
            Unusable: it is one.
        """
        run = message.text("run")
        if run != self.name:
            raise Unusable(f"is of another run ({run[:50]} and not {self.name})")
        if message.text("experiment") != self.experiment:
            raise Unusable(
                "is of another experiment: the experiment file, the seed set, the rounds or the rng seed differ here"
            )


def experiment_digest(plan: Plan, text: str = "") -> str:
    """Return a digest of what the coordinator and every silo must have alike.

    It covers the rounds, the rng seed, the seed set, the type of numbers, how gradients of single examples are bounded
    and noised, and `text`, such as the experiment file.
    """
    seed_set = ""
    if plan.seed_set is not None:
        x, y = plan.seed_set.tensors()
        seed_set = digest(pack({"x": x} if y is None else {"x": x, "y": y}))
    facts: tuple[object, ...] = (text, plan.rounds, plan.rng_seed, str(plan.engine.dtype), seed_set)
    privacy = plan.example_privacy
    if privacy is not None:
        bound = (privacy.clip_norm, privacy.statistics_clip, privacy.statistics_share)
        facts = (*facts, *bound, privacy.noise_multiplier, privacy.epsilon, privacy.noise)
    return digest("\x1f".join(map(str, facts)).encode())


class Start(NamedTuple):
    """A client whose work or measure is wanted, and the round after which its state counts (0: its initial state)."""

    client: str
    round: int


def ask_work(
    run: Run,
    round: int,
    starts: Mapping[str, Sequence[Start]],
    broadcast: bytes,
    go_back: int,
    cohort: int | None = None,
) -> Mapping[str, bytes]:
    """Return silo -> the request for the work of its clients in a round.

    Args:
        run, round: of the request.
        starts: silo -> its clients that are asked.
        broadcast: packed.
        go_back: how many rounds back states are kept.
        cohort: how many clients the round asks of all silos, where they share the noise among them.
    """
    fields = {**run.fields("work", round), "go_back": go_back, **({} if cohort is None else {"cohort": cohort})}
    return Requests({site: {**fields, "clients": _list_starts(own)} for site, own in starts.items()}, [broadcast])


def ask_models(
    run: Run, kind: str, round: int, starts: Mapping[str, Sequence[Start]], state: bytes
) -> Mapping[str, bytes]:
    """Return silo -> the request to measure or save models: that in `state`, or what each client makes of it."""
    fields = run.fields(kind, round)
    return Requests({site: {**fields, "clients": _list_starts(own)} for site, own in starts.items()}, [state])


def _list_starts(starts: Sequence[Start]) -> list[dict[str, Any]]:
    return [start._asdict() for start in starts]


def read_starts(message: Message, hosted: Sequence[str], round: int) -> list[Start]:
    """Return the clients that a request names.

    Raises:
        Unusable: one is named twice, is not hosted here, or would start from a round to come.
    """
    listed = message.fields.get("clients")
    if not isinstance(listed, list) or len(listed) > len(hosted):
        raise Unusable("does not list clients of this silo")
    starts: list[Start] = []
    for entry in listed:
        client = entry.get("client") if isinstance(entry, dict) else None
        is_known = isinstance(client, str) and client in hosted
        if not is_known or any(start.client == client for start in starts):
            raise Unusable(f"asks for client {str(client)[:50]}, which is not one of this silo's, or asks twice")
        starts.append(Start(str(client), whole_number(entry.get("round"), "round", 0, round)))
    return starts


class Result(NamedTuple):
    """The work of one client.

    Attributes:
        client: whose.
        why: why there is none, or None.
        payload: the encoded update, packed.
        weighting, logs: as in a reply.
        stateful: whether the silo keeps a state of the client's after this round.
    """

    client: str
    why: str | None = None
    payload: bytes = b""
    weighting: Mapping[Weighting, float] = {}
    logs: Mapping[str, float] = {}
    stateful: bool = False


def answer_fields(run: Run, kind: str, request: bytes) -> dict[str, Any]:
    """Return the first fields of the answer to a request."""
    return {"kind": kind, "run": run.name, "experiment": run.experiment, "request": digest(request)}


def answer_work(run: Run, request: bytes, results: Sequence[Result]) -> bytes:
    """Return the answer with the work of a silo's clients."""
    entries: list[dict[str, Any]] = []
    for r in results:
        if r.why is None:
            numbers = {"weighting": dict(r.weighting), "logs": dict(r.logs), "stateful": r.stateful}
            entries.append({"client": r.client, **numbers})
        else:
            entries.append({"client": r.client, "why": r.why})
    payloads = [r.payload for r in results if r.why is None]
    return write_message({**answer_fields(run, "work", request), "replies": entries}, payloads)


def answer_failed(run: Run, request: bytes, why: str) -> bytes:
    """Return the answer of a silo that cannot do what it was asked."""
    return write_message({**answer_fields(run, "failed", request), "why": why[:MAX_REASON_LENGTH]})


def read_results(message: Message, starts: Sequence[Start], masked: bool = False) -> list[Result]:
    """Return the work that a silo sent for exactly these clients, in this order; payloads are not read yet.

    Where payloads are masked, weights are within them.

    Raises:
        Unusable: it answers for other clients, or its form is wrong.
    """
    listed = message.fields.get("replies")
    wanted = [start.client for start in starts]
    given = [e.get("client") if isinstance(e, dict) else None for e in listed] if isinstance(listed, list) else []
    if given != wanted:
        named = ", ".join(str(name)[:50] for name in given[:3]) or "nobody"
        raise Unusable(f"answers for {named}, and was asked for {', '.join(wanted[:3])}")
    results, k = [], 0
    for entry in listed or ():
        if "why" in entry:
            why = printable(str(entry["why"])[:MAX_REASON_LENGTH])
            results.append(Result(entry["client"], why=why or "gives no reason"))
            continue
        if k >= len(message.parts):
            raise Unusable("holds fewer payloads than clients")
        weighting = _numbers(entry.get("weighting"), "weighting")
        if weighting.keys() != (set() if masked else {"examples", "processed", "one"}):
            raise Unusable("does not give the three weights examples, processed and one")
        logs = _numbers(entry.get("logs"), "logs", finite=False)  # of training that diverged
        stateful = entry.get("stateful")
        if not isinstance(stateful, bool):
            raise Unusable("does not say whether a state is kept")
        results.append(Result(entry["client"], None, message.parts[k], weighting, logs, stateful))  # type: ignore[arg-type]
        k += 1
    if k != len(message.parts):
        raise Unusable("holds more payloads than clients")
    return results


def weighting_problem(weighting: Mapping[Weighting, float], examples: int, most_processed: int) -> str | None:
    """Return what is wrong with a client's weights, given what is known of it, or None."""
    if weighting["examples"] != examples:
        return f"says that it has {weighting['examples']:g} examples, and it has {examples}"
    if weighting["one"] != 1 or not 0 < weighting["processed"] <= most_processed:
        return "gives itself a weight that its examples cannot have"
    return None


def _numbers(value: Any, name: str, finite: bool = True) -> dict[str, float]:
    """Return a dict of numbers, of few and short names.

    Raises:
        Unusable: it is something else.
    """
    if not isinstance(value, dict) or len(value) > MAX_LOGS or any(len(key) > MAX_LOGS for key in value):
        raise Unusable(f"has no few numbers under {name}")
    return {printable(key): real_number(number, name, finite) for key, number in value.items()}


def server_tree(plan: Plan, state: Tree) -> Tree:
    """Return what a silo needs to evaluate models after a round.

    It is the one model's weights, or the server's state where every client has a model of its own.
    """
    if plan.algorithm.traits.own_models:
        return state
    return plan.algorithm.server.evaluated_weights(state, plan.client_state_from(plan.ids[0], None)["algorithm"])
