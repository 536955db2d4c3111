"""The loss of one model on fixed examples, as a function of its weights."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from coterie.core import rng, tree
from coterie.core.engine import Engine, as_input
from coterie.core.examples import Examples
from coterie.core.normaliser import statistic_names
from coterie.core.task import Task
from coterie.core.tree import Tree
from coterie.loop import evaluate


@dataclass(frozen=True)
class Surface:
    """The loss of a model on fixed examples, as a function of its weights.

    The model is in evaluation mode: no dropout, no augmentation, and BatchNorm normalises by statistics that are part
    of the weights.

    Attributes:
        examples: the loss is the mean over them.
        measure: weights -> the same weights with BatchNorm's statistics measured again for them; see
            `coterie.models.batchnorm_statistics`. None: the statistics stay unchanged.
        batch: examples in one forward.
    """

    task: Task
    engine: Engine
    examples: Examples
    measure: Callable[[Tree], Tree] | None = None
    batch: int = 500

    def prepare(self, weights: Tree) -> Tree:
        """Return the weights with BatchNorm's statistics measured again, or else with variances below 0 set to 0.

        A variance may be below 0 at places that lie beyond two models.
        """
        if self.measure is not None:
            return self.measure(weights)
        variances = {statistic_names(layer)[1] for layer in self.task.batch_norms}
        buffers = {name: b.clamp(min=0) if name in variances else b for name, b in weights["buffers"].items()}
        return {**weights, "buffers": buffers}

    def at(self, weights: Tree) -> dict[str, float]:
        """Return the loss and the metrics by name, each a mean over the examples, at these weights after `prepare`."""
        scores = evaluate.scores(self.task, self.prepare(weights), self.examples, self.engine, self.batch)
        return evaluate.mean(scores)

    def sums(self, weights: Tree) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield the sum of the loss over each batch, and the count that turns it into a mean, [] each.

        They have a gradient where the weights require one. The weights are not prepared.
        """
        for rows in torch.split(torch.arange(len(self.examples)), self.batch):
            x, y = self.examples.batch(rows)
            outputs = self.task.predict(weights["params"], weights["buffers"], as_input(x, self.engine))
            sums, counts = self.task.loss(outputs, None if y is None else as_input(y, self.engine))
            yield sums.sum(), counts.sum()

    def gradient(self, weights: Tree) -> tuple[float, Tree]:
        """Return the loss, and its gradient with respect to parameters and float buffers (BatchNorm's statistics)."""
        with torch.enable_grad():
            variables = tree.map(lambda x: x.detach().requires_grad_(), tree.floats(weights))
            leaves = tree.leaves(variables)
            total, examples, grads = 0.0, 0.0, [torch.zeros_like(leaf) for leaf in leaves]
            for loss, count in self.sums(tree.merge(weights, variables)):
                parts = torch.autograd.grad(loss, leaves, allow_unused=True, materialize_grads=True)
                grads = [g + part for g, part in zip(grads, parts, strict=True)]
                total, examples = total + float(loss.detach()), examples + float(count)
        means = iter(g / examples for g in grads)
        return total / examples, tree.map(lambda _: next(means), variables)


def draw_subset(examples: Examples, number: int, rng_seed: int) -> Examples:
    """Draw a number of examples by the rng seed alone, and keep their order; all examples where there are no more."""
    if number >= len(examples):
        return examples
    order = torch.randperm(len(examples), generator=rng.generator(rng_seed, "probe"))
    return examples.take(order[:number].sort().values)
