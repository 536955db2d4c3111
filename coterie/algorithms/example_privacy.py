"""Example-level differential privacy: an algorithm sees clients' own examples through noised gradients alone.

    task        takes the gradient of a batch by `coterie.privacy.per_example`
    streams     of the client's own data: Poisson batches that come with noise
    step        gets these batches *sealed*, with their noise: only the task's gradient rule can open them, each once

A client's own examples reach an algorithm in no other place than the batches of `step`. So whatever clients send, keep
or take into a later round follows from noised gradients, from the seed set, which all clients share, and from what is
public here: how many examples a client has, and which rounds it took part in. An algorithm that looks at a sealed batch
is refused. Its logs, such as the training loss, are thrown away.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, NoReturn

from torch import Tensor

from coterie.core.algorithm import Algorithm, Batches, ClientHalf, Context, Logs, Stream
from coterie.core.batching import batch_size, num_steps
from coterie.core.errors import Mistake
from coterie.core.task import Batch, Task
from coterie.core.tree import Tree
from coterie.privacy.per_example import ExampleLevel, noise_numbers

SEALED = (
    "this algorithm looks at clients' examples themselves, where only the gradients of single examples, clipped and "
    "noised, may be seen; choose another, such as fedavg"
)


TWICE = (
    "this algorithm takes two gradients of one batch, whose noise hides one: the difference of both would have none; "
    "give each gradient a batch of its own, or choose another algorithm, such as fedavg"
)


class Sealed:
    """A tensor that only a gradient rule can open, once."""

    def __init__(self, content: Tensor) -> None:
        self._content, self._is_open = content, False

    def __getattr__(self, name: str) -> NoReturn:
        raise _refusal(SEALED)

    def __getitem__(self, index: object) -> NoReturn:
        raise _refusal(SEALED)

    def __len__(self) -> NoReturn:
        raise _refusal(SEALED)

    @classmethod
    def __torch_function__(cls, func: object, types: object, args: object = (), kwargs: object = None) -> NoReturn:
        raise _refusal(SEALED)


class SealedRule:
    """A gradient rule that opens sealed batches; see `coterie.core.task.GradientRule`.

    A batch that was never sealed holds no client's own examples: it comes from the seed set. Its gradient is plain.
    """

    def __init__(self, rule: ExampleLevel) -> None:
        self.rule, self.numbers = rule, rule.numbers

    def __call__(self, task: Task, params: Tree, buffers: Tree, batch: Batch) -> tuple[Tree, Tree, dict[str, Tensor]]:
        """Return the noised gradient of a sealed batch, or the plain one of a batch of the seed set."""
        if not isinstance(batch.x, Sealed):
            return replace(task, gradient_rule=None).gradient(params, buffers, batch)
        return self.rule(task, params, buffers, _open(batch))

    def measure(self, task: Task, params: Tree, buffers: Tree, batch: Batch) -> tuple[Tree, dict[str, Tensor]]:
        """Return the buffers with noised statistics; see `ExampleLevel.measure`."""
        return self.rule.measure(task, params, buffers, _open(batch))


def protect_task(task: Task, weights: Tree, **rule: Any) -> Task:
    """Return the task with a gradient rule that hides each example.

    Args:
        task: any.
        weights: its initial weights, which say how many numbers of noise a step takes.
        **rule: the other arguments of `coterie.privacy.per_example.ExampleLevel`.

    Raises:
        Mistake: an argument is out of range, or the model mixes examples, or it changes buffers that would travel.
    """
    if task.unsupported_batch_norms or task.unpaddable:
        why = task.unpaddable or f"the BatchNorm layer {task.unsupported_batch_norms[0]} mixes the examples of a batch"
        raise _refusal(f"{why}, so no gradient is one example's own; choose a model with GroupNorm or LayerNorm")
    if task.moving_buffers:
        raise _refusal(
            f"the model's buffer {task.moving_buffers[0]} depends on the examples that it sees, and would be sent "
            "without noise; choose a model without it"
        )
    return replace(task, gradient_rule=SealedRule(ExampleLevel(numbers=noise_numbers(task, weights), **rule)))


def protect_algorithm(algorithm: Algorithm, task: Task) -> Algorithm:
    """Return an algorithm that was bound to a protected task, its clients' own streams sealed.

    Raises:
        Mistake: examples touch one another's gradients, or it learns from comparisons of examples.
    """
    if not algorithm.traits.predicts:
        raise _refusal("this algorithm compares views of examples, so its loss is not a mean over examples")
    if task.batch_norms and not algorithm.traits.given_statistics:
        raise _refusal(
            "BatchNorm mixes the examples of a batch, so no gradient is one example's own; choose a model with "
            'GroupNorm or LayerNorm, or fbn with gradient = "constant" and warm_start = 0'
        )
    assert task.gradient_rule is not None, "the task is protected first"
    return _seal(algorithm, task.gradient_rule.numbers, {})


def _seal(algorithm: Algorithm, numbers: int, done: dict[int, tuple[ClientHalf, ClientHalf]]) -> Algorithm:
    """Return the algorithm with its clients' own streams sealed, in every stage.

    Args:
        algorithm: bound to a protected task.
        numbers: of noise in a step.
        done: the client halves that were sealed already, so that a step which is compiled once stays the same one.
    """
    client, stage = algorithm.client, algorithm.stage
    if id(client) not in done:
        done[id(client)] = client, _seal_client(client, numbers)
    return replace(
        algorithm,
        client=done[id(client)][1],
        stage=None if stage is None else lambda round: _seal(stage(round), numbers, done),
    )


def _seal_client(client: ClientHalf, numbers: int) -> ClientHalf:
    """Return a client half whose own streams are Poisson batches with noise, sealed before a step sees them."""
    own = {name for name, stream in client.streams.items() if stream.source == "private"}

    def step(carry: Tree, batches: Batches, ctx: Context) -> tuple[Tree, Logs]:
        sealed = {name: _close(batch) if name in own else batch for name, batch in batches.items()}
        return client.step(carry, sealed, ctx)[0], {}

    streams = {
        name: replace(stream, poisson=True, noise=numbers) if name in own else stream
        for name, stream in client.streams.items()
    }
    return replace(client, step=step, streams=streams)


def queries(streams: Mapping[str, Stream], n: int) -> dict[float, int]:
    """Return what a round of these streams asks of a client's n examples: sampling probability -> number of steps."""
    first = next(iter(streams.values()))
    found: dict[float, int] = {}
    for stream in streams.values():
        if stream.source == "private" and n:
            share = batch_size(stream, n) / n
            found[share] = found.get(share, 0) + (1 if stream.once else num_steps(first, n))
    return found


_HIDDEN = ("x", "y", "rows", "mask", "noise")


def _close(batch: Batch) -> Batch:
    """Return a batch that only a `SealedRule` can open."""
    hidden: dict[str, Any] = {name: getattr(batch, name) for name in _HIDDEN}
    sealed: dict[str, Any] = {name: None if part is None else Sealed(part) for name, part in hidden.items()}
    return batch._replace(**sealed)


def _open(batch: Batch) -> Batch:
    """Return the batch that `_close` was given; refuse to do so twice, since its noise serves once."""
    parts = {name: vars(part) for name in _HIDDEN if (part := getattr(batch, name)) is not None}
    if any(part["_is_open"] for part in parts.values()):
        raise _refusal(TWICE)
    for part in parts.values():
        part["_is_open"] = True
    return batch._replace(**{name: part["_content"] for name, part in parts.items()})


def _refusal(sentence: str) -> Mistake:
    return Mistake(sentence, key="unit", value="example")
