"""A federation in which no update counts: notice it, and say why and what to do.

Every client may be refused in every round, and evaluation still shows an accuracy: that of the initial weights.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from coterie.core import tree
from coterie.loop import evaluate
from coterie.loop.plan import Plan, Round

ROUNDS_UNTIL_WARNING = 3
"""How many rounds in a row reach no client before there is a warning."""
MAX_CLIENTS_LOOKED_AT = 8
"""How many refused clients' data are searched for numbers that are not finite."""

BROKEN_OUTPUTS = f"test_{evaluate.BROKEN}"
NOT_FINITE = "not finite"
TOO_FEW = "updates arrived"

_REMEDIES = {
    "dropped out": "lower the probability that a client drops out (faults.drop)",
    "missed the deadline": "lower the probability that a client is late (faults.straggle)",
    TOO_FEW: "ask more clients in a round (cohort), or let the aggregation expect fewer attackers",
    "the aggregate is": "lower the learning rate (lr), or choose an aggregation that withstands attackers",
    "the server's own": "lower the server's learning rate (server_lr)",
    "has no examples": "give the clients examples",
}
"""A part of a reason -> what to do about it."""


class RefusalWatch:
    """Looks at rounds; complains once of several in a row that reached nobody, and once of outputs not finite."""

    def __init__(self) -> None:
        self._in_vain: list[Round] = []  # the newest rounds, which reached nobody
        self._has_reached = self._has_complained = self._has_complained_of_outputs = False

    def complaints(self, round: Round) -> list[str]:
        """Take a complete round, and return what the user should know now, a sentence each."""
        return [*self._complaint_about_updates(round), *self._complaint_about_outputs(round)]

    def _complaint_about_updates(self, round: Round) -> Iterator[str]:
        if round.reached:
            self._in_vain.clear()
            self._has_reached = True
            return
        if self._has_complained:
            return
        self._in_vain.append(round)
        is_over = round.round == round.plan.rounds and not self._has_reached
        if len(self._in_vain) < ROUNDS_UNTIL_WARNING and not is_over:
            return
        first, last = self._in_vain[0].round, round.round
        when = f"round {last}" if first == last else f"rounds {first} to {last}"
        why = explain([entry for r in self._in_vain for entry in r.dropped], round.plan)
        self._has_complained = True
        self._in_vain.clear()
        yield f"no client's update was accepted in {when}, so nothing was trained there: {why}"

    def _complaint_about_outputs(self, round: Round) -> Iterator[str]:
        broken = round.measures.get(BROKEN_OUTPUTS)
        if broken and not self._has_complained_of_outputs:
            self._has_complained_of_outputs = True
            yield (
                f"after round {round.round} the model's outputs for {broken} test examples are not finite, which "
                "counts as wrong; lower the learning rate (lr), or look for such numbers in the test data"
            )


def failure(records: Sequence[Mapping[str, Any]], plan: Plan) -> str | None:
    """Return why a run trained nothing of use, as a sentence, from the records of its rounds; None if it did.

    It did not where no update counted, or where half of the outputs on the test data are not finite at the end.
    """
    if not records:
        return None
    if any(record["reached"] for record in records):
        return _failure_of_outputs(records, plan)
    why = explain([entry for record in records for entry in record["dropped"]], plan)
    when = "the only round" if len(records) == 1 else f"any of {len(records)} rounds"
    adds_noise = plan.guarantee is not None and plan.guarantee.where == "server"
    end = "the model has learnt from noise alone" if adds_noise else "the run ends with the weights that it began with"
    return f"no client's update was accepted in {when}, so {end}: {why}"


def _failure_of_outputs(records: Sequence[Mapping[str, Any]], plan: Plan) -> str | None:
    """Return that the outputs at the end are not finite, as a sentence; None if most of them are."""
    models = len(plan.ids) if plan.algorithm.traits.own_models else 1
    outputs, broken = models * len(plan.evaluation.test or ()), records[-1].get(BROKEN_OUTPUTS, 0)
    if not broken or 2 * broken < outputs:
        return None
    return f"{broken} of {outputs} outputs on the test data are not finite: lower the learning rate (lr) and run again"


def explain(dropped: Sequence[Mapping[str, str]], plan: Plan) -> str:
    """Return the commonest reason for which clients were dropped, how often it occurs, and what to do about it.

    Args:
        dropped: {"client", "why"} of each, as in `Round.dropped`.
        plan: of the run. Clients' data are looked at where the reason may lie there.
    """
    if not dropped:
        if plan.cohort.sampling == "poisson":
            return "the draws asked nobody; ask more clients on average (cohort)"
        return "no client could be asked; see which clients are available"
    kinds = Counter(_kind(entry["why"]) for entry in dropped)
    kind, number = kinds.most_common(1)[0]
    of_kind = [entry for entry in dropped if _kind(entry["why"]) == kind]
    words = f"{of_kind[0]['why']} (so for {number} of {len(dropped)})" if len(dropped) > 1 else of_kind[0]["why"]
    return f"{words}; {_remedy(kind, of_kind, plan)}"


def _kind(why: str) -> str:
    """Return the part of a reason that its remedy depends on."""
    return next((part for part in (*_REMEDIES, NOT_FINITE) if part in why), "")


def _remedy(kind: str, dropped: Sequence[Mapping[str, str]], plan: Plan) -> str:
    """Return what to do about reasons of one kind."""
    if kind in _REMEDIES:
        return _REMEDIES[kind]
    if plan.faults.corrupt > 0:
        return "lower the probability that a client sends garbage (faults.corrupt)"
    if kind != NOT_FINITE:
        return "the records say why for every client (dropped)"
    here = plan.workplace is None and plan.either_guarantee is None  # otherwise elsewhere, or nothing to tell of
    client = _client_with_broken_data(dict.fromkeys(entry["client"] for entry in dropped), plan) if here else None
    if client is not None:
        return f"the data of client {client} hold numbers that are not finite: fill or remove them before training"
    return "lower the learning rate (lr)"


def _client_with_broken_data(clients: Iterable[str], plan: Plan) -> str | None:
    """Return the first of some clients whose examples hold a number that is not finite; None if there is none."""
    for client in list(clients)[:MAX_CLIENTS_LOOKED_AT]:
        x, y = plan.clients[client].tensors()
        if not tree.is_finite({"x": x} if y is None else {"x": x, "y": y}):
            return client
    return None
