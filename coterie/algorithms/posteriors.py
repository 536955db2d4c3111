"""Exchange predictions: compute a model's outputs on the seed set, send them, and learn from those of the peers.

Nothing else travels: no weights, no gradients, no private example. The server keeps the tables of the last round, and
every client keeps its own model, of any architecture. A table holds one client's predictions on the seed set.

Legend: S examples of the seed set, C classes, n clients of a round, M tables.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Literal, TypeAlias

import torch
from torch import Tensor

from coterie.algorithms.local import LocalSGD
from coterie.core.aggregators import Aggregator, Composite, Sum
from coterie.core.algorithm import Context, Federation, PrivatePart, RoundInfo
from coterie.core.errors import Mistake, require
from coterie.core.task import Batch, Metric, Task, masked_sums, mean_of_sums
from coterie.core.transforms import Transform, cast, eight_bits
from coterie.core.tree import Tree
from coterie.objectives.distillation import distillation

SendAs: TypeAlias = Literal["float32", "float16", "uint8"]
"""The type of the numbers that travel. uint8 has 256 steps from 0 to 1, so it can hold posteriors only."""

PeerWeights: TypeAlias = Literal["equal", "accuracy"]
"""How much each peer counts: all alike, or by how well it does on the seed set's labels."""

Weigh: TypeAlias = Callable[[Tensor], Tensor]
"""A table [S, ..., C] -> how much the client that sent it counts as a teacher [], 0 or more."""

LEAST_WEIGHT = 0.1
"""Where all peers together deserve less than this, they count for less than one whole teacher, and at 0 for nothing."""

MAX_FORWARD_EXAMPLES = 500
"""The largest number of seed examples in one forward."""


def seed_set_outputs(task: Task, weights: Tree, ctx: Context) -> Tensor:
    """Return a model's outputs on the seed set, in evaluation mode: logits [S, ..., C]."""
    assert ctx.seed_set is not None, "a federation without a seed set is refused earlier"
    parts = torch.split(ctx.seed_set.x, MAX_FORWARD_EXAMPLES)
    copies = (x.clone() for x in parts)  # a model may write into its input, and every client has this seed set
    return torch.cat([task.predict(weights["params"], weights["buffers"], x) for x in copies])


def table_codec(send_as: SendAs, probabilities: bool = True) -> Transform | None:
    """Return the codec that rounds a table before it travels; None where it travels unchanged.

    Raises:
        Mistake: there is no such type of number, or it cannot hold the table's numbers.
    """
    require("send_as", send_as, send_as in ("float32", "float16", "uint8"), '"float32", "float16" or "uint8"')
    require("send_as", send_as, probabilities or send_as != "uint8", '"float32" or "float16" where match = "logits"')
    return {"float32": None, "float16": cast(torch.float16), "uint8": eight_bits()}[send_as]


def table_problem(table: Tensor, rounding: float) -> str | None:
    """Return what is wrong with a table of posteriors [S, ..., C]; None if its rows are probabilities.

    Args:
        table: what arrived, decoded.
        rounding: how far the codec may have moved a number.
    """
    own = 8 * torch.finfo(table.dtype).eps  # of the softmax, and of the sum here
    if not bool(((table >= -rounding - own) & (table <= 1 + rounding + own)).all()):
        return "hold numbers outside 0 to 1, so they are no probabilities"
    if not bool(((table.sum(-1) - 1).abs() <= table.shape[-1] * rounding + 1e-4 + own).all()):
        return "have rows that do not sum to 1, so they are no probabilities"
    return None


def _distance_from_even(table: Tensor, broadcast: Tree) -> Tensor:
    """Return how far posteriors [S, ..., C] lie from 1/C."""
    return table - 1 / table.shape[-1]


def _nearest_posteriors(mean: Tensor, broadcast: Tree) -> Tensor:
    """Return posteriors [S, ..., C] from their noisy distance from 1/C: none below 0, and rows that sum to 1."""
    positive = (mean + 1 / mean.shape[-1]).clamp(min=1e-6)
    return positive / positive.sum(-1, keepdim=True)


PRIVATE_POSTERIORS = PrivatePart(_distance_from_even, _nearest_posteriors)
"""Of a table of posteriors: a client that knows nothing says 1/C."""


def initial_client_state(local: LocalSGD, weights: Tree) -> Tree:
    """Return the state of a client that never took part: its model, its momentum if there is any, and round -1."""
    some = next(iter(weights["params"].values()))
    return {**weights, **local.optimizer.init(weights["params"]), "round": some.new_full((), -1.0)}


def client_state(carry: Tree, ctx: Context) -> Tree:
    """Return the state of a client after a round: its model, its momentum if there is any, and the round."""
    return {"params": carry["params"], "buffers": carry["buffers"], **carry["optimizer"], "round": ctx.round}


def evaluated_weights(server_state: Tree, client_state: Tree) -> Tree:
    """Return a client's own model."""
    return {"params": client_state["params"], "buffers": client_state["buffers"]}


def empty_table() -> Tensor:
    """Return a tensor without numbers [0], which stands for a table before the first round."""
    return torch.zeros(0)


def disagreement(outputs: Tensor, batch: Batch, carry: Tree, temperature: float) -> Tensor:
    """Return mean_{j != i} T^2 KL(p_j || softmax(outputs / T)) over a batch's examples []; see `Exchange.teachers`."""
    score = partial(distillation, temperature=temperature)
    total = outputs.new_zeros(())
    for m in range(len(carry["trust"])):
        sums, count = masked_sums(score, outputs, carry["tables"][m][batch.rows], batch.mask)
        total = total + carry["trust"][m] * mean_of_sums(sums, count)
    return total


def weigh_equally(table: Tensor) -> Tensor:
    """Return 1 [] for every table."""
    return table.new_ones(())


def weigh_by_accuracy(task: Task, ctx: Context) -> Weigh:
    """Return how far a table's accuracy on the seed set's labels lies above 1/C, that of guessing: 1 for all right.

    It is 0 for a table that does no better than guessing, such as that of a client that is sure of wrong answers.
    """
    assert ctx.seed_set is not None, "a federation without a seed set is refused earlier"
    y, accuracy = ctx.seed_set.y, task.metrics["accuracy"]
    assert not isinstance(accuracy, Metric), "accuracy is measured for each example"

    def weigh(table: Tensor) -> Tensor:
        hits, counts = accuracy(table, y)
        guessing = 1 / table.shape[-1]
        right: Tensor = hits.sum() / counts.sum()
        return ((right - guessing) / (1 - guessing)).clamp(min=0).to(table.dtype)

    return weigh


def require_labels(federation: Federation) -> None:
    """Refuse a seed set without labels, on which no peer could be weighed.

    Raises:
        Mistake: it has none.
    """
    if federation.seed_set is not None and federation.seed_set.y is None:
        raise Mistake(
            "peers are weighed by the labels of the seed set, and it has none; give it labels, or leave it out",
            key="peer_weights",
            value="accuracy",
        )


@dataclass(frozen=True)
class Exchange:
    """A way in which a client gets its peers' tables.

    Attributes:
        aggregation: how the clients' tables [S, C] of a round are aggregated.
        update: (aggregated tables, info) -> the server state, which is also broadcast.
        teachers: (broadcast, own table [S, C], the last round that the client took part in [], how a table is weighed)
            -> {"tables" [M, S, C], "trust" [M]}: the sum of trust times KL is the weighted mean KL from the peers.
            Without peers all trust is 0.
    """

    aggregation: Callable[[Aggregator], Aggregator]
    update: Callable[[Tensor, RoundInfo], Tree]
    teachers: Callable[[Tree, Tensor, Tensor, Weigh], Tree]

    def initial_state(self) -> Tree:
        """Return the server state before the first round."""
        return {"said": empty_table(), "count": _scalar(0), "round": _scalar(0)}


def exchange(kind: Literal["sum", "tables"]) -> Exchange:
    """Return how tables are exchanged: as one table P = sum_j p_j ("sum"), or as n tables ("tables").

    In both ways a client subtracts its own table. It can do so with P, since the gradient of a mean KL is that of the
    KL from the mean. A sum can be computed in any order, by anyone, or under encryption.

    Raises:
        Mistake: `kind` is neither of the two.
    """
    require("exchange", kind, kind in ("sum", "tables"), '"sum" or "tables"')
    return (
        Exchange(_require_mean, _sum_tables, _mean_of_peers)
        if kind == "sum"
        else Exchange(_stack_tables, _server_state, _each_peer)
    )


def _require_mean(chosen: Aggregator) -> Aggregator:
    """Return the user's aggregator unchanged; refuse any except the mean."""
    if chosen != Sum():
        raise Mistake(
            "aggregation.name: clients subtract their own table from the sum of all tables, "
            'which only aggregation.name = "mean" allows'
        )
    return chosen


def _sum_tables(mean: Tensor, info: RoundInfo) -> Tree:
    """Return the server state that holds the sum of the clients' tables, given their mean.

    A noisy mean of bounded tables does not hold a client's own table exactly, and what is left of it after subtracting
    that may be no probabilities. So no table is said to be in it, and clients learn from the mean as it is.
    """
    state = _server_state(mean * info.reached, info)
    return state | ({"round": _scalar(_NOT_SUBTRACTED)} if info.noisy else {})


def _mean_of_peers(broadcast: Tree, own: Tensor, last: Tensor, weigh: Weigh = weigh_equally) -> Tree:
    """Return the mean of the other clients' tables, with trust 1, or with trust 0 if there are none.

    A sum hides who said what, so all peers count alike, whatever `weigh` says.
    """
    if not broadcast["said"].numel():
        return {"tables": torch.zeros_like(own)[None], "trust": torch.zeros_like(last)[None]}
    counted, others = _counts(broadcast, last)
    mean = (broadcast["said"] - counted * own) / others.clamp(min=1)  # [S, C]
    return {"tables": mean[None], "trust": (others > 0).to(own.dtype)[None]}


def _stack_tables(chosen: Aggregator) -> Aggregator:
    """Return an aggregator that stacks the clients' tables to [n, S, C]; refuse any choice except the mean."""
    _require_mean(chosen)
    return Composite(lambda tables, combine: torch.stack(tables), Sum())  # type: ignore[arg-type, return-value]


def _each_peer(broadcast: Tree, own: Tensor, last: Tensor, weigh: Weigh) -> Tree:
    """Return every table with its share of the others' weight as trust, and the own table with negative trust.

    The own table stands among the others', and takes its share away again.
    """
    if not broadcast["said"].numel():
        return _mean_of_peers(broadcast, own, last)
    counted, _ = _counts(broadcast, last)
    weights = torch.stack([weigh(table) for table in broadcast["said"]])  # [n]
    own_weight = counted * weigh(own)
    others = weights.sum() - own_weight
    share = (others > 0).to(own.dtype) / others.clamp(min=LEAST_WEIGHT)
    tables = torch.cat([broadcast["said"], own[None]])  # [n + 1, S, C]
    return {"tables": tables, "trust": torch.cat([weights * share, -(own_weight * share)[None]])}


_NOT_SUBTRACTED = -2
"""As the round of a sum: no client took part in it, not even one that never did, whose last round is -1."""


def _counts(broadcast: Tree, last: Tensor) -> tuple[Tensor, Tensor]:
    """Return 1 if the client's own table is among those of the last round, else 0 [], and the number of others []."""
    counted = (last == broadcast["round"]).to(last.dtype)
    return counted, broadcast["count"].to(last.dtype) - counted


def _server_state(tables: Tensor, info: RoundInfo) -> Tree:
    """Return the server state after a round: these tables, the number of clients, and the round."""
    return {"said": tables, "count": _scalar(info.reached), "round": _scalar(info.round)}


def _scalar(value: float) -> Tensor:
    return torch.tensor(float(value))
