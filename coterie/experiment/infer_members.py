"""Attack the model of a finished run: which examples were part of its training?

Legend: M examples, S shadow models.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
from torch import Tensor

from coterie.core import rng
from coterie.core.errors import Mistake, require
from coterie.core.examples import Examples, pool_examples
from coterie.core.tree import Tree
from coterie.experiment.finished_run import FinishedRun
from coterie.experiment.invert_updates import Progress
from coterie.loop import evaluate
from coterie.loop.evaluate import Evaluation
from coterie.loop.federate import federate
from coterie.probes import draw_subset
from coterie.probes.membership import judge_membership, log_odds, offline_scores

MAX_CLIENT_ROWS = 100
"""Of how many clients the table has a row."""


@dataclass(frozen=True)
class MembershipOptions:
    """How members are inferred.

    Attributes:
        examples: how many training examples, and how many test examples, at most.
        shadows: how many shadow models are trained, each a run like the attacked one on half of each client's examples;
            an even number. 0: only the attack by the loss.

    Raises:
        Mistake: a value is out of its range.
    """

    examples: int = 1000
    shadows: int = 0

    def __post_init__(self) -> None:
        require("examples", self.examples, self.examples >= 2, "2 or more")
        require("shadows", self.shadows, self.shadows >= 0 and self.shadows % 2 == 0, "an even number, 0 or more")


@dataclass(frozen=True)
class Judged:
    """The examples whose membership is inferred.

    Attributes:
        members: training examples [M]. owner: the client of each. place: of each, in its client's data.
        others: test examples.
    """

    members: Examples
    owner: Sequence[str]
    place: Sequence[int]
    others: Examples


def infer_members(run: FinishedRun, options: MembershipOptions, progress: Progress) -> list[dict[str, Any]]:
    """Return how well members are told from others, for each attack, as plain values.

    Raises:
        Mistake: the run has no test examples, which stand for others, or a client cannot be halved for shadow models.
    """
    judged = _choose_examples(run, options.examples)
    losses = _losses(run, run.end, judged)
    found = [{"attack": "loss", **_describe(-losses, judged)}]
    if options.shadows:
        kind = run.experiment.inputs.task
        phi = log_odds if kind is None else torch.neg
        shadow_losses, out = _train_shadows(run, judged, options.shadows, progress)
        scores = offline_scores(phi(losses), phi(shadow_losses), out)
        found.append({"attack": "lira", "shadows": options.shadows, **_describe(scores, judged)})
    return found


def _choose_examples(run: FinishedRun, number: int) -> Judged:
    """Draw training examples of all clients, and as many test examples."""
    test, clients, rng_seed = (
        run.experiment.source.test,
        run.experiment.clients_to_describe(),
        run.experiment.plan.rng_seed,
    )
    if test is None:
        raise Mistake(
            f"{run.folder}: its source has no test examples, which stand for those that were not trained on; choose "
            "--attack inversion"
        )
    held = {client: examples for client, examples in clients.items() if len(examples)}
    owner = [(client, place) for client, examples in held.items() for place in range(len(examples))]
    order = torch.randperm(len(owner), generator=rng.generator(rng_seed, "members"))[:number].sort().values
    chosen = [owner[k] for k in order.tolist()]
    members = pool_examples(held.values()).take(order)
    return Judged(members, [c for c, _ in chosen], [k for _, k in chosen], draw_subset(test, number, rng_seed))


def _losses(run: FinishedRun, weights: Tree, judged: Judged) -> Tensor:
    """Return the loss of each member and then of each other example [M + M'], the mean over its labels."""
    (task,), engine = run.experiment.plan.tasks.values(), run.experiment.plan.engine
    parts = []
    for examples in (judged.members, judged.others):
        sums, counts = evaluate.scores(task, weights, examples, engine).each["loss"]
        parts.append(sums.double() / counts.double().clamp(min=1e-12))
    return torch.cat(parts).nan_to_num(nan=1e30, posinf=1e30)


def _describe(scores: Tensor, judged: Judged) -> dict[str, Any]:
    """Return the measures over all clients and of each, for the scores of members and then of others."""
    number = len(judged.members)
    members, others = scores[:number], scores[number:]
    each = []
    for client in list(dict.fromkeys(judged.owner))[:MAX_CLIENT_ROWS]:
        own = members[torch.tensor([owner == client for owner in judged.owner])]
        found = judge_membership(own, others)
        each.append({"id": client, "members": found.members, "auc": found.auc, "interval": found.interval})
    return {**asdict(judge_membership(members, others)), "clients": each}


def _train_shadows(run: FinishedRun, judged: Judged, number: int, progress: Progress) -> tuple[Tensor, Tensor]:
    """Return shadow models' losses [S, M + M'], and which of them were trained without which example, bool.

    Shadow models come in pairs, on two halves of each client's examples, so every member is unknown to half of them.
    """
    plan = run.experiment.plan
    small = [client for client in plan.ids if len(plan.clients[client]) < 2]
    if small:
        raise Mistake(
            f"client {small[0]} holds fewer than 2 examples, which cannot be halved", key="shadows", value=number
        )
    losses, out = [], []
    for k in progress(range(number)):
        halves = {client: _half(plan.rng_seed, k, client, len(plan.clients[client])) for client in plan.ids}
        own: Mapping[str, Examples] = {client: plan.clients[client].take(rows) for client, rows in halves.items()}
        shadow = replace(
            plan,
            clients=own,
            rng_seed=rng.number(plan.rng_seed, "shadow", k),
            secret=f"{plan.secret}, shadow {k}",  # with the same noise, shadow models would differ too little
            evaluation=Evaluation(),
        )
        (last,) = deque(federate(shadow), maxlen=1)
        weights = plan.evaluated_weights(last.state, last.store, plan.ids[0])
        losses.append(_losses(run, weights, judged))
        sets = {client: set(rows.tolist()) for client, rows in halves.items()}
        without = [place not in sets[client] for client, place in zip(judged.owner, judged.place, strict=True)]
        out.append(torch.tensor(without + [True] * len(judged.others)))
    return torch.stack(losses), torch.stack(out)


def _half(rng_seed: int, k: int, client: str, n: int) -> Tensor:
    """Return the rows that the k-th shadow model has of a client's n examples: one half of a pair's two."""
    order = torch.randperm(n, generator=rng.generator(rng_seed, "shadow", k // 2, client))
    return (order[: n // 2] if k % 2 == 0 else order[n // 2 :]).sort().values
