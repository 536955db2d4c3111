"""Try a model on a few examples before it is trained, to find what its forward does besides computing outputs.

A client's forward must depend on its weights, its batch and a key alone. A module can break this in ways that no result
shows: it counts calls in a plain attribute, keeps a hidden state, or stores what it made from the first weights that it
saw. One copy then carries something from client to client, and a resumed run or several processes give other results.
"""

from __future__ import annotations

import hashlib
import itertools
import random
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Set
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.utils._pytree import tree_leaves

from coterie.core import rng
from coterie.core.errors import Mistake, few, reason
from coterie.core.normaliser import statistic_names
from coterie.core.tree import Tree
from coterie.models.functional import Augment, Habits, TrainingModule, initial_weights, seed_generator
from coterie.models.layers import Scope

OF_TORCH = frozenset(vars(nn.Module())) | {"_flat_weights"}
"""Attributes that PyTorch keeps in every module, or in its recurrent layers."""

MAX_DEPTH = 4
"""How deep the values of an attribute are compared: a list in a dict in an object has depth 3."""

REMEDY = "keep it in a buffer (self.register_buffer), so that each client has its own, or compute it in each forward"


@dataclass(frozen=True)
class Trial:
    """What a model did on a few examples.

    Attributes:
        outputs: in evaluation mode, [B, ...], with the classes last.
        habits: what its forward does besides computing outputs.
    """

    outputs: Any
    habits: Habits


def try_model(model: nn.Module, x: Tensor, augment: Augment | None = None) -> Trial:
    """Run forwards and one backward of a copy of the model, in training and in evaluation mode.

    No random state outside of the copy changes.

    Args:
        model: on the device and in the type of number that it is trained in. It stays unchanged.
        x: examples [B, ...], of the same device and type.
        augment: see `make_task`.

    Raises:
        Mistake: the model cannot take the examples, keeps something from one forward to the next, draws from a
            generator that no seed of the federation sets, or gives its parameters no gradient.
    """
    with _same_randomness(x.device):
        try:
            copy = _Copy(model, augment)
            return _try(copy, lambda: _Copy(model, augment), x)
        except Mistake:
            raise
        except Exception as error:  # anything that a user's forward raises
            tokens = "" if x.is_floating_point() else ", which are whole numbers; it may expect floats"
            if x.dtype == torch.uint8:
                tokens += ": of pictures from 0 to 255 give x.float() / 255, and the same to whoever uses the model"
            shape = list(x.shape[1:])
            raise Mistake(f"it cannot take examples of shape {shape}{tokens} ({reason(error)})") from error


def _try(copy: _Copy, make_fresh: Callable[[], _Copy], x: Tensor) -> Trial:
    """Return what a copy of a model does; see `try_model`."""
    untouched = copy.attributes()
    given = x.clone()
    layers = {mode: _first_to_draw(copy, getattr(copy, mode), given) for mode in ("train", "evaluate")}
    _refuse_no_gradient(copy, x)
    for mode in ("train", "evaluate"):
        _refuse_memory(mode, copy, make_fresh, untouched, x)
    _refuse_other_weights(copy, x)
    params, draws = copy.weights["params"], layers["train"] is not None
    with torch.no_grad():
        after = copy.run(params, x.clone(), None)
    outputs = copy.evaluate(x.clone())
    _refuse_lost_dimension(outputs, copy.evaluate(x[:1].clone()), len(x))
    return Trial(
        outputs,
        Habits(
            writes_input=not _same(given, x),
            counts_padding=_counts_padding(copy, x, after, draws),
            unsent_buffers=_unsent_buffers(copy.weights["buffers"], after[1]),
            moving_buffers=_moving_buffers(copy, after[1]),
            draws_in_evaluation=layers["evaluate"] is not None,
            drawing_layer=layers["train"] if layers["evaluate"] is None else layers["evaluate"],
        ),
    )


class _Copy:
    """A copy of a model, and weights to run it with.

    Attributes:
        weights: {"params", "buffers"}.
    """

    def __init__(self, model: nn.Module, augment: Augment | None) -> None:
        self.training, self.weights = TrainingModule(model, augment), initial_weights(model)
        self.apply = self.training.forward()

    @torch.no_grad()
    def train(self, x: Tensor) -> Any:
        """Return the outputs of a forward in training mode."""
        return self.train_with(self.weights["params"], x)

    def train_with(self, params: Tree, x: Tensor) -> Any:
        """Return the outputs of a forward in training mode with these parameters."""
        return self.run(params, x, None)[0]

    def run(self, params: Tree, x: Tensor, mask: Tensor | None) -> tuple[Any, Tree]:
        """Return the outputs and the buffers of a forward in training mode; `mask` says which examples are real."""
        seed_generator(x.device, 0)
        return self.apply(params, self.weights["buffers"], x, mask, rng.key("trial").to(x.device))

    @torch.no_grad()
    def evaluate(self, x: Tensor) -> Any:
        """Return the outputs of a forward in evaluation mode."""
        module = self.training.module
        modes = {part: part.training for part in module.modules()}
        held = {**self.weights["params"], **{n: b.clone() for n, b in self.weights["buffers"].items()}}
        seed_generator(x.device, 0)
        module.eval()
        try:
            return self.training.arrange(functional_call(module, held, (x,)))
        finally:
            for part, mode in modes.items():
                part.training = mode

    @contextmanager
    def without_own_weights(self) -> Iterator[None]:
        """Put NaN in the places of the module's own parameters for a block: a pure forward and backward read none."""
        held = dict(self.training.module.named_parameters())
        nan = {n: held[n].new_full((), torch.nan).expand_as(held[n]) for n in self.weights["params"]}  # no memory
        broken = {id(held[n]): nn.Parameter(leaf) for n, leaf in nan.items()}
        places = [
            (part._parameters, name, p)
            for part in self.training.module.modules()
            for name, p in part._parameters.items()
            if id(p) in broken
        ]
        for parameters, name, p in places:
            parameters[name] = broken[id(p)]
        try:
            yield
        finally:
            for parameters, name, p in places:
                parameters[name] = p

    def move_weights(self) -> None:
        """Change every parameter a little."""
        self.weights["params"] = {n: p * 1.01 + 0.01 for n, p in self.weights["params"].items()}

    def attributes(self) -> dict[str, object]:
        """Return the values of the module's plain attributes, by full name, in a form that can be compared."""
        module = self.training.module
        own = {id(t) for t in (*module.parameters(), *module.buffers())}
        return {
            f"{name}.{attribute}" if name else attribute: _comparable(value, own)
            for name, part in module.named_modules()
            for attribute, value in _plain_attributes(part)
        }


def _plain_attributes(part: nn.Module) -> Iterator[tuple[str, Any]]:
    """Yield a module's own attributes, and its buffers that its `state_dict` leaves out, which no client has."""
    yield from ((name, value) for name, value in vars(part).items() if name not in OF_TORCH)
    for name in part._non_persistent_buffers_set:
        value = part._buffers[name]
        yield f"{name} (a buffer with persistent=False)", None if value is None else _digest(value)


def _refuse_no_gradient(copy: _Copy, x: Tensor) -> None:
    """Refuse a model whose outputs depend on no parameter, or whose gradients are sparse."""
    grads = _gradients(copy, x)
    if grads is None:
        return  # only the loss knows what such outputs are
    if all(grad is None for grad in grads.values()):
        raise Mistake("no gradient reaches its parameters; leave out detach and no_grad in its forward")
    sparse = [name for name, grad in grads.items() if grad is not None and grad.layout != torch.strided]
    if sparse:
        raise Mistake(f"the gradient of {few(sparse)} is sparse, which cannot be sent; leave out sparse=True")


def _refuse_other_weights(copy: _Copy, x: Tensor) -> None:
    """Refuse a model whose backward reads the module's own weights: its gradients would be those of other weights."""
    grads = _gradients(copy, x)
    with copy.without_own_weights():
        again = _gradients(copy, x)
    if grads is None or again is None:
        return  # only the loss knows what such outputs are
    wrong = [name for name, grad in grads.items() if not _same([grad], [again[name]])]
    if wrong:  # rectifiers hide NaN in a backward, so the gradients are compared
        raise Mistake(
            f"the gradient of {few(wrong)} is computed from other weights than the outputs: its backward reads the "
            "weights of the module again, as torch.utils.checkpoint makes it; leave that out"
        )


def _gradients(copy: _Copy, x: Tensor) -> dict[str, Tensor | None] | None:
    """Return each parameter's gradient of the summed outputs, None where it has none; None without outputs to sum."""
    with torch.enable_grad():
        params = {name: p.detach().requires_grad_() for name, p in copy.weights["params"].items()}
        outputs = tree_leaves(copy.train_with(params, x.clone()))
        reals = [t for t in outputs if isinstance(t, Tensor) and t.is_floating_point()]
        if not reals:
            return None
        sums = [t.sum() for t in reals if t.requires_grad]
        grads = torch.autograd.grad(sums, list(params.values()), allow_unused=True) if sums else [None] * len(params)
    return dict(zip(params, grads, strict=True))


@torch.no_grad()
def _counts_padding(copy: _Copy, x: Tensor, unpadded: tuple[Any, Tree], draws: bool) -> bool:
    """Return whether what fills a short batch up changes the outputs of real examples, or the buffers.

    Args:
        unpadded: the outputs and the buffers of a forward without padding.
        draws: the forward draws from the global generator, and would draw others for a batch that is longer.
    """
    n, params = len(x), copy.weights["params"]
    mask = (torch.arange(2 * n) < n).to(x.device)

    def run_with(filler: Tensor) -> tuple[Any, Tree]:
        """Return the outputs of the real examples, and the buffers, of a batch with this example as filler."""
        outputs, buffers = copy.run(params, torch.cat([x, filler.expand_as(x)]), mask)
        return [t[:n] if isinstance(t, Tensor) and t.dim() else t for t in tree_leaves(outputs)], buffers

    first = run_with(x[:1])
    if draws:
        return not _same(first, run_with(x[-1:]))
    outputs, buffers = unpadded
    return not _same(first, (tree_leaves(outputs), buffers))


def _unsent_buffers(before: Tree, after: Tree) -> tuple[str, ...]:
    """Return the names of buffers of whole numbers or truth values that a forward changes, except BatchNorm's count."""
    return tuple(
        name
        for name, b in before.items()
        if not (b.is_floating_point() or name.endswith("num_batches_tracked") or _same(b, after[name]))
    )


def _moving_buffers(copy: _Copy, after: Tree) -> tuple[str, ...]:
    """Return the names of float buffers that a training forward changes, except statistics of BatchNorm layers."""
    statistics = {name for layer in copy.training.norms for name in statistic_names(layer)}
    return tuple(
        name
        for name, b in copy.weights["buffers"].items()
        if b.is_floating_point() and name not in statistics and not torch.equal(b, after[name])
    )


def _refuse_lost_dimension(outputs: Any, of_one: Any, examples: int) -> None:
    """Refuse a model that gives outputs of another shape to an example alone, as after a `squeeze`."""
    if not (isinstance(outputs, Tensor) and isinstance(of_one, Tensor) and outputs.shape[:1] == (examples,)):
        return
    if of_one.shape != (1, *outputs.shape[1:]):
        raise Mistake(
            f"it gives outputs of shape {list(outputs.shape)} for {examples} examples, but {list(of_one.shape)} for "
            "one; the first dimension must be the examples: name the dimension that squeeze() takes away"
        )


def _refuse_memory(
    mode: str, copy: _Copy, make_fresh: Callable[[], _Copy], untouched: Mapping[str, object], x: Tensor
) -> None:
    """Refuse a model whose forward depends on earlier ones, or that changes an attribute in each of them."""
    run: Callable[[Tensor], Any] = getattr(copy, mode)
    first, after_one = run(x.clone()), copy.attributes()
    second, after_two = run(x.clone()), copy.attributes()
    changing, stored = _names_that_differ(after_one, after_two), _names_that_differ(untouched, after_two)
    if changing:
        raise Mistake(f"its attribute {few(changing)} changes in every forward; {REMEDY}")
    if not _same(first, second) or (stored and _is_stale(mode, copy, make_fresh(), _other(x))):
        kept = f"in its attribute {few(stored)}" if stored else "outside of its parameters and buffers"
        raise Mistake(f"its outputs depend on earlier forwards, through what it keeps {kept}; {REMEDY}")


def _other(x: Tensor) -> Tensor:
    """Return other examples like x, whose means over the batch differ too."""
    last = x[-1:] / 2 if x.is_floating_point() else x[-1:]
    return last.expand_as(x)


def _is_stale(mode: str, used: _Copy, fresh: _Copy, x: Tensor) -> bool:
    """Return whether a copy that has run gives other outputs than a new one, for new weights and examples."""
    before = used.weights
    used.weights = dict(before)
    for copy in (used, fresh):
        copy.move_weights()
    stale = not _same(getattr(used, mode)(x.clone()), getattr(fresh, mode)(x.clone()))
    used.weights = before
    return stale


def _first_to_draw(copy: _Copy, run: Callable[[Tensor], Any], x: Tensor) -> str | None:
    """Return the layer of a forward that first draws from PyTorch's generator; "" for the model itself, None if none.

    Raises:
        Mistake: something draws from Python's or NumPy's generator.
    """
    states: list[Tensor] = []
    found: list[str] = []

    def watch(name: str, layer: nn.Module) -> Iterator[Any]:
        """Yield hooks that note the first layer to end after a draw within it; inner layers end first."""
        yield layer.register_forward_pre_hook(lambda *_: states.append(_torch_state(x.device)))
        yield layer.register_forward_hook(
            lambda *_: None if torch.equal(states.pop(), _torch_state(x.device)) else found.append(name)
        )

    _refuse_unseeded_draws(run, x)
    after = _torch_state(x.device)
    seed_generator(x.device, 0)
    if torch.equal(after, _torch_state(x.device)):
        return None
    hooks = [hook for name, layer in copy.training.module.named_modules() for hook in watch(name, layer)]
    try:
        run(x)
    finally:
        for hook in hooks:
            hook.remove()
    return found[0] if found else None


def _refuse_unseeded_draws(run: Callable[[Tensor], Any], x: Tensor) -> None:
    """Run a forward; refuse one that draws from Python's or NumPy's generator."""
    python, numpys = random.getstate(), _numpy_state()
    run(x)
    library = "Python's random" if random.getstate() != python else "numpy.random"
    if random.getstate() != python or _numpy_state() != numpys:
        raise Mistake(
            f"its forward draws from {library}, which no seed of the federation sets; use torch.nn.Dropout, or draw "
            "with torch.rand"
        )


def _numpy_state() -> tuple[object, ...]:
    """Return the state of NumPy's generator, in a form that can be compared."""
    name, values, *rest = np.random.get_state(legacy=True)
    return name, np.asarray(values).tobytes(), *rest


@contextmanager
def _same_randomness(device: torch.device) -> Iterator[None]:
    """Restore every global generator after a block."""
    ours, numpys = random.getstate(), np.random.get_state()
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        try:
            yield
        finally:
            random.setstate(ours)
            np.random.set_state(numpys)


def _torch_state(device: torch.device) -> Tensor:
    """Return the state of PyTorch's generator for a device."""
    return torch.cuda.get_rng_state(device) if device.type == "cuda" else torch.get_rng_state()


def _names_that_differ(before: Mapping[str, object], after: Mapping[str, object]) -> list[str]:
    """Return the names of attributes that differ, or that only one of two states has."""
    return [name for name in {**before, **after} if before.get(name, OF_TORCH) != after.get(name, OF_TORCH)]


def _same(a: Any, b: Any) -> bool:
    """Return whether two results are the same up to rounding."""
    ours, theirs = tree_leaves(a), tree_leaves(b)
    return len(ours) == len(theirs) and all(map(_same_leaf, ours, theirs))


def _same_leaf(a: Any, b: Any) -> bool:
    if not (isinstance(a, Tensor) and isinstance(b, Tensor)):
        return type(a) is type(b)
    if a.shape != b.shape or a.dtype != b.dtype:
        return False
    return torch.allclose(a, b, rtol=1e-3, atol=1e-5, equal_nan=True) if a.is_floating_point() else torch.equal(a, b)


def _comparable(value: Any, own: Set[int], depth: int = 0) -> object:
    """Return a value as something that can be compared later, when the value itself may have been written into.

    Args:
        value: of an attribute.
        own: the ids of the module's parameters and buffers, which are not compared.
        depth: how deep the value lies in the attribute's.
    """
    if isinstance(value, Tensor):
        return "weights" if id(value) in own else _digest(value)
    if isinstance(value, np.ndarray):
        return str(value.dtype), value.shape, value.tobytes()
    if isinstance(value, torch.Generator):
        return _digest(value.get_state())
    if isinstance(value, random.Random):
        return value.getstate()
    if isinstance(value, bool | int | float | complex | str | bytes | itertools.count | None):
        return repr(value)
    if depth == MAX_DEPTH or isinstance(value, (Scope, type, nn.Module)):
        return type(value)
    if isinstance(value, Mapping):
        return [(repr(k), _comparable(v, own, depth + 1)) for k, v in value.items()]
    if isinstance(value, list | tuple | deque | set | frozenset):
        return [_comparable(each, own, depth + 1) for each in value]
    if hasattr(value, "__dict__") and not callable(value) and not type(value).__module__.startswith("torch"):
        return [(name, _comparable(each, own, depth + 1)) for name, each in vars(value).items()]
    return type(value)


def _digest(value: Tensor) -> object:
    """Return a digest of a tensor's values; of one that is not dense, what identifies it."""
    if value.layout != torch.strided or value.is_quantized or value.is_nested:
        return type(value), value.layout
    data = value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy()
    return str(value.dtype), tuple(value.shape), hashlib.blake2b(data.tobytes()).hexdigest()
