"""The steps of a pre-training as one compiled program, which writes the new weights over the old ones.

The program computes what `coterie.pretrain.fps.Trainer` computes step by step, to rounding. It saves the time between
operations: on one thread of a CPU, a step of ResNet-20 with BatchNorm takes about two thirds of the time. Compiling
takes minutes, so a short training is faster without.
"""

from __future__ import annotations

import torch
from torch import Tensor

from coterie.algorithms.self_supervised import PREDICTOR, Method, Views
from coterie.core import tree
from coterie.core.algorithm import Batches, Context, Logs
from coterie.core.task import Batch
from coterie.core.tree import Tree
from coterie.engines.compiled import Compiled


class CompiledSteps:
    """The steps of one training. It owns the weights that it trains.

    Attributes:
        carry: {"params", "buffers", "velocity"}, which each step writes over. Take clones of what is kept.
    """

    def __init__(
        self, method: Method, momentum: float, weight_decay: float, predictor_lr: float, device: torch.device
    ) -> None:
        self._method, self._momentum, self._weight_decay = method, momentum, weight_decay
        self._predictor_lr, self._run = predictor_lr, Compiled(self._step, device)
        self.carry: Tree = {}

    def begin(self, weights: Tree, velocity: Tree) -> None:
        """Go on from copies of these weights, {"params", "buffers"}, and of this velocity."""
        self.carry = tree.clone({**weights, "velocity": velocity})

    def advance(self, views: Views, key: Tensor, lr: float) -> Logs:
        """Take one step on views [B, ...] at this learning rate, and return its logs."""
        rows = torch.arange(len(views[0]), device=views[0].device)
        batches = {name: Batch(x, None, rows, None, key) for name, x in zip(("first", "second"), views, strict=True)}
        zero = torch.zeros((), device=key.device)
        ctx = Context(zero, zero, zero, torch.tensor(lr, device=key.device), key, None)
        self.carry, logs = self._run(self.carry, batches, ctx)
        return logs

    def _step(self, carry: Tree, batches: Batches, ctx: Context) -> tuple[Tree, Logs]:
        """Return the carry after v <- momentum v + (gradient + weight_decay w), w <- w - lr v, and the logs."""
        params, (first, second) = carry["params"], batches.values()
        grads, buffers, logs = self._method.gradient(params, carry["buffers"], (first.x, second.x), None, first.key)
        velocity = tree.add(tree.add(grads, params, self._weight_decay), carry["velocity"], self._momentum)
        stepped = {
            name: p - (self._predictor_lr if name.startswith(PREDICTOR) else ctx.lr) * velocity[name]
            for name, p in params.items()
        }
        return {"params": stepped, "buffers": buffers, "velocity": velocity}, logs
