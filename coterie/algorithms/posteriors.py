"""What algorithms that exchange predictions share: outputs on a seed set that everyone holds, and how they travel.

Nothing else travels: no weights, no gradients, no private example. The server keeps what the last round said, every
client its own model, of whatever architecture.

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
from coterie.core import tree
from coterie.core.aggregators import Aggregator, Composite, Sum
from coterie.core.algorithm import Context, RoundInfo
from coterie.core.errors import Mistake, require
from coterie.core.task import Batch, Task, masked_sums
from coterie.core.transforms import Transform, cast, eight_bits
from coterie.core.tree import Tree
from coterie.objectives.distillation import distillation

SendAs: TypeAlias = Literal["float32", "float16", "uint8"]
"""The numbers that travel: as they are, or rounded; uint8 has 256 steps from 0 to 1, which suits posteriors alone."""

AT_ONCE = 500
"""Examples of the seed set in one forward."""


def outputs(task: Task, weights: Tree, ctx: Context) -> Tensor:
    """What a model says about the seed set, in evaluation mode: logits [S, ..., C]."""
    assert ctx.seed_set is not None, "a federation without a seed set was refused before"
    parts = torch.split(ctx.seed_set.x, AT_ONCE)
    return torch.cat([task.predict(weights["params"], weights["buffers"], x) for x in parts])


def rounded(send_as: SendAs, probabilities: bool = True) -> Transform | None:
    """What is done to a table before it travels.

    Raises:
        Mistake: there is no such kind of number, or it cannot hold what the table holds.
    """
    require("send_as", send_as, send_as in ("float32", "float16", "uint8"), '"float32", "float16" or "uint8"')
    require("send_as", send_as, probabilities or send_as != "uint8", '"float32" or "float16" where match = "logits"')
    return {"float32": None, "float16": cast(torch.float16), "uint8": eight_bits()}[send_as]


def begins_with(local: LocalSGD, weights: Tree) -> Tree:
    """A client that never took part: its model, its momentum if there is any, and the last round it was part of."""
    momentum = {"momentum": tree.zeros_like(weights["params"])} if local.momentum else {}
    some = next(iter(weights["params"].values()))
    return {**weights, **momentum, "round": some.new_full((), -1.0)}


def kept(carry: Tree, ctx: Context) -> Tree:
    """The same after a round."""
    return {name: carry[name] for name in ("params", "buffers", "momentum") if name in carry} | {"round": ctx.round}


def own_model(state: Tree, client: Tree) -> Tree:
    """A client's model, which is its own."""
    return {"params": client["params"], "buffers": client["buffers"]}


def nothing_yet() -> Tensor:
    """In place of a table before there is one: no numbers [0], so that its shape says what it is."""
    return torch.zeros(0)


def disagreement(outputs: Tensor, batch: Batch, carry: Tree, temperature: float) -> Tensor:
    """mean_{j != i} T^2 KL(p_j || softmax(outputs / T)) over the batch's examples []; see `Exchange.teachers`."""
    score = partial(distillation, temperature=temperature)
    total = outputs.new_zeros(())
    for m in range(len(carry["trust"])):
        sums, count = masked_sums(score, outputs, carry["tables"][m][batch.rows], batch.mask)
        total = total + carry["trust"][m] * sums / count.clamp(min=1)
    return total


@dataclass(frozen=True)
class Exchange:
    """How a client learns what its peers say.

    Attributes:
        aggregation: what becomes of a round's tables [S, C], one per client.
        update: (what became of the tables, info) -> S, which is also what is sent down.
        teachers: (B, own table [S, C], the last round of which the client was part []) -> {"tables" [M, S, C], "trust"
            [M]}, such that the sum of trust times KL is the mean KL from the peers; all trust is 0 without any.
    """

    aggregation: Callable[[Aggregator], Aggregator]
    update: Callable[[Tensor, RoundInfo], Tree]
    teachers: Callable[[Tree, Tensor, Tensor], Tree]

    def init(self) -> Tree:
        """S before the first round."""
        return {"said": nothing_yet(), "count": _number(0), "round": _number(0)}


def exchange(kind: Literal["sum", "tables"]) -> Exchange:
    """ "sum": one table, P = sum_j p_j, whatever n is; "tables": n of them.

    Both ways a client takes its own share away. From P it can, since the gradient of a mean KL is that of the KL from
    the mean; and a sum can be taken in any order, by anyone, or under encryption.

    Raises:
        Mistake: there is no such way.
    """
    require("exchange", kind, kind in ("sum", "tables"), '"sum" or "tables"')
    return Exchange(_sum, _summed, _mean_of_peers) if kind == "sum" else Exchange(_side_by_side, _server, _each_peer)


def _sum(chosen: Aggregator) -> Aggregator:
    if chosen != Sum():
        raise Mistake(
            "aggregation.name: clients take their own share out of what all clients said, "
            'which only aggregation.name = "mean" allows'
        )
    return chosen


def _summed(mean: Tensor, info: RoundInfo) -> Tree:
    return _server(mean * info.reached, info)


def _mean_of_peers(sent: Tree, own: Tensor, last: Tensor) -> Tree:
    if not sent["said"].numel():
        return {"tables": torch.zeros_like(own)[None], "trust": torch.zeros_like(last)[None]}
    counted, others = _counts(sent, last)
    mean = (sent["said"] - counted * own) / others.clamp(min=1)  # [S, C]
    return {"tables": mean[None], "trust": (others > 0).to(own.dtype)[None]}


def _side_by_side(chosen: Aggregator) -> Aggregator:
    _sum(chosen)
    return Composite(lambda tables, combine: torch.stack(tables), Sum())  # type: ignore[arg-type, return-value]


def _each_peer(sent: Tree, own: Tensor, last: Tensor) -> Tree:
    """Every table with trust 1 / others, and the client's own once more to take it away."""
    if not sent["said"].numel():
        return _mean_of_peers(sent, own, last)
    counted, others = _counts(sent, last)
    each = (others > 0).to(own.dtype) / others.clamp(min=1)
    tables = torch.cat([sent["said"], own[None]])  # [n + 1, S, C]
    return {"tables": tables, "trust": torch.cat([each.expand(len(sent["said"])), -(each * counted)[None]])}


def _counts(sent: Tree, last: Tensor) -> tuple[Tensor, Tensor]:
    """Whether the client's own table is among those of the last round, 0 or 1 [], and how many others are []."""
    counted = (last == sent["round"]).to(last.dtype)
    return counted, sent["count"].to(last.dtype) - counted


def _server(said: Tensor, info: RoundInfo) -> Tree:
    return {"said": said, "count": _number(info.reached), "round": _number(info.round)}


def _number(value: float) -> Tensor:
    return torch.tensor(float(value))
