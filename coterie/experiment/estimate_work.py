"""Estimate how much work a run is, from its parts, before its engine is chosen."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd

from coterie.core import tree
from coterie.core.algorithm import Algorithm
from coterie.core.batching import batch_size, num_steps
from coterie.core.examples import Clients, Examples
from coterie.experiment.engine_choice import Work
from coterie.models.functional import batching_obstacle, initial_weights, padding_obstacle
from coterie.models.recurrent import PeepholeLSTM

SAMPLED_CLIENTS = 10
"""How many clients the work is judged by."""
BATCH_BYTES = 100
"""What the numbers of a batch's examples take besides the numbers themselves, as a tensor in a list."""
COPIES = 4
"""What a client at work holds: its weights, their gradient, what they were before, and the update."""


def estimate_work(
    algorithm: Algorithm,
    models: Sequence[nn.Module],
    clients: Clients,
    *,
    rounds: int,
    cohort: int,
    seed_set: Examples | None = None,
    dtype: torch.dtype = torch.float32,
) -> Work:
    """Return about how much work a run is, judged by its first clients.

    Args:
        algorithm: bound to any of the models.
        models: one of each architecture.
        clients: client id -> examples.
        rounds: how many.
        cohort: how many clients a round asks.
        seed_set: examples that every client holds.
        dtype: the type of number that weights get.
    """
    ids = itertools.islice(clients, SAMPLED_CLIENTS)
    found = [_streams(algorithm, clients[client], seed_set) for client in ids]
    known = [data for data in found if all(map(len, data.values()))]
    per_client = sum(_steps(algorithm, data) for data in known) / max(len(known), 1)
    examples = sum(_examples(algorithm, data) for data in known) / max(len(known), 1)
    in_a_step = examples / max(per_client, 1)
    flops, between = _forward(models, known[0]) if known else (0.0, 0)
    batching = [batching_obstacle(model) for model in models]
    compiling = [*map(padding_obstacle, models), *(_uncompilable(model, algorithm) for model in models)]
    return Work(
        cohort=cohort,
        steps=round(rounds * cohort * per_client),
        flops=3 * flops * in_a_step,
        layers=sum(1 for model in models for module in model.modules() if not list(module.children())),
        nbytes=COPIES * max(_weight_bytes(model, dtype) for model in models) + round(2 * between * in_a_step),
        data=_bytes_held(known),
        order=max((_order_bytes(algorithm, data) for data in known), default=0),
        uncompilable=next(filter(None, compiling), "") or "",
        unbatchable=(batching[0] or "") if all(batching) else "",
    )


def _streams(algorithm: Algorithm, own: Examples, seed_set: Examples | None) -> dict[str, Examples]:
    streams = algorithm.client.streams.items()
    return {name: seed_set if stream.source == "seed_set" and seed_set else own for name, stream in streams}


def _steps(algorithm: Algorithm, data: Mapping[str, Examples]) -> int:
    name, stream = next(iter(algorithm.client.streams.items()))
    return num_steps(stream, len(data[name]))


def _examples(algorithm: Algorithm, data: Mapping[str, Examples]) -> int:
    """Return how many examples pass through a client's steps, of all streams."""
    steps = _steps(algorithm, data)
    return sum(
        (1 if s.once else steps) * batch_size(s, len(data[name])) for name, s in algorithm.client.streams.items()
    )


def _order_bytes(algorithm: Algorithm, data: Mapping[str, Examples]) -> int:
    """Return the bytes of the numbers of the examples in a client's batches of a round, which are drawn beforehand."""
    steps = _steps(algorithm, data)
    streams = algorithm.client.streams.items()
    return sum(0 if s.once else steps * (BATCH_BYTES + 8 * batch_size(s, len(data[name]))) for name, s in streams)


def _weight_bytes(model: nn.Module, dtype: torch.dtype) -> int:
    """Return the bytes of a model's weights, which are converted to `dtype`."""
    leaves = tree.leaves(initial_weights(model))
    return sum(leaf.numel() * (dtype if leaf.is_floating_point() else leaf.dtype).itemsize for leaf in leaves)


def _forward(models: Sequence[nn.Module], data: Mapping[str, Examples]) -> tuple[float, int]:
    """Return the operations of one example's forward pass, the mean over models; and the bytes of what layers give.

    A model that cannot take the example counts nothing: `check_fit` refuses it afterwards.
    """
    x, _ = next(iter(data.values())).batch(torch.arange(1))
    each = [_one_forward(model, x) for model in models]
    return sum(flops for flops, _ in each) / len(each), max(size for _, size in each)


def _one_forward(model: nn.Module, x: Tensor) -> tuple[float, int]:
    """Return the operations of the products with a model's matrices and kernels, and the bytes of its layers' outputs.

    PyTorch's own counter is more exact, but takes a second to import.
    """
    training, flops, sizes = model.training, [0.0], [0]

    def note(module: nn.Module, inputs: object, output: Any) -> None:
        out = output[0] if isinstance(output, tuple) else output
        if isinstance(out, Tensor) and out.numel():
            sizes.append(out.numel() * out.element_size())
            flops.append(2.0 * _entries(module) * out.numel() / out.shape[1 if isinstance(module, _ConvNd) else -1])

    like = next((p for p in model.parameters() if p.is_floating_point()), None)
    x = x.to(like.device, like.dtype) if like is not None and x.is_floating_point() else x
    hooks = [module.register_forward_hook(note) for module in model.modules() if not _only_contains(module)]
    try:
        with torch.no_grad():
            model.eval()(x)
    except (RuntimeError, ValueError, IndexError, TypeError, NotImplementedError):
        return 0.0, 0
    finally:
        model.train(training)
        for hook in hooks:
            hook.remove()
    return sum(flops), sum(sizes)


def _only_contains(module: nn.Module) -> bool:
    """Return whether a module is made of layers, with no matrix of its own."""
    return next(module.children(), None) is not None and not _entries(module)


def _entries(module: nn.Module) -> int:
    """Return how many numbers the matrices and kernels of a layer have; each meets every position once."""
    own = [] if isinstance(module, nn.Embedding | nn.EmbeddingBag) else module.parameters(recurse=False)
    return sum(p.numel() for p in own if p.dim() > 1)


def _bytes_held(data: Sequence[Mapping[str, Examples]]) -> int:
    """Return the bytes of these clients' examples, a pool that they share counted once."""
    pools = {id(t): t for held in data for examples in held.values() for t in (examples.x, examples.y) if t is not None}
    return sum(t.numel() * t.element_size() for t in pools.values())


def _uncompilable(model: nn.Module, algorithm: Algorithm) -> str:
    """Return why steps cannot be compiled, or an empty string."""
    if any(isinstance(module, (nn.RNNBase, PeepholeLSTM)) for module in model.modules()):
        return "a recurrent layer would make a very long program"
    full = next(iter(algorithm.client.streams.values())).batch_size == "full"
    return "full batches differ in length" if full else ""
