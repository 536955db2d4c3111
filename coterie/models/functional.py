"""Turn an `nn.Module` into the pure functions of a `Task`."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.modules.batchnorm import _BatchNorm, _NormBase
from torch.nn.modules.instancenorm import _InstanceNorm

from coterie.core import rng
from coterie.core.normaliser import Moments, Normaliser, statistic_names
from coterie.core.task import Apply, Encoder, Metric, Score, Task
from coterie.core.tree import Tree
from coterie.models.frozen_values import frozen_norms, frozen_values
from coterie.models.kernels_before_norms import kernels_before_norms
from coterie.models.layers import MaskedBatchNorm, Scope, has_torch_forward, swap_layers
from coterie.models.memory_layout import ImageLayout
from coterie.models.model_parts import classifier_name
from coterie.models.usable_model import CLASS_AXIS

NORM_TYPES = (_NormBase, nn.LayerNorm, nn.GroupNorm, nn.RMSNorm)
"""The types of normalisation layers. A layer's name would not do: inside an `nn.Sequential` it is a number."""

COUNTS_PADDING = "its forward mixes the examples of a batch, and would count padding"
"""Why a batch must not be padded, where the layers give no reason but the forward does."""

AUGMENT = -1
"""The number that augmentation folds into a step's key. Dropout layers count from 1."""


@dataclass(frozen=True)
class Habits:
    """What a model's forward does besides computing outputs from weights and examples.

    Attributes:
        writes_input: it writes into its input, so it gets a copy.
        draws_in_evaluation: it draws from PyTorch's global generator in evaluation mode, which is seeded before.
        drawing_layer: the name of the layer that draws from this generator, "" for the model itself; None: none does.
        unsent_buffers: the names of buffers that it changes, and that never travel, since they hold no floats.
        moving_buffers: the names of float buffers that it changes in training, except statistics of BatchNorm.
        counts_padding: what fills a short batch up changes the outputs of real examples, or the buffers.
    """

    writes_input: bool = False
    draws_in_evaluation: bool = False
    drawing_layer: str | None = None
    counts_padding: bool = False
    unsent_buffers: tuple[str, ...] = ()
    moving_buffers: tuple[str, ...] = ()


Augment = Callable[[Tensor, Tensor], Tensor]
"""(x [B, ...], key []) -> x of the same shape: changes training examples, by draws from the key alone."""


def make_task(
    model: nn.Module,
    *,
    loss: Score,
    metrics: Mapping[str, Score | Metric] | None = None,
    num_classes: int | None = None,
    augment: Augment | None = None,
    lr_scale: Mapping[str, float] | None = None,
    habits: Habits | None = None,
) -> Task:
    """Return a `Task` that trains copies of `model`. The model itself is never changed.

    Weights come from `initial_weights`; of the model's own weights only the frozen ones are used, on the model's device
    (see `frozen_values`). BatchNorm and dropout layers are swapped inside the copy (see `layers`). `augment` is part of
    the training forward alone. `lr_scale` is the task's. `habits` are what `coterie.models.model_trial` found. The
    outputs have the classes last, also those of a model whose `class_axis` is 1.

    >>> from coterie.objectives import cross_entropy
    >>> task = make_task(nn.Linear(2, 3), loss=cross_entropy)
    >>> sorted(initial_weights(nn.Linear(2, 3))["params"])
    ['bias', 'weight']
    """
    habits = habits or Habits()
    layout, training = ImageLayout(model), TrainingModule(model, augment, habits.writes_input)
    padding = padding_obstacle(model) or (COUNTS_PADDING if habits.counts_padding else None)
    evaluating = swap_layers(copy_module(model), Scope()).eval().requires_grad_(False)

    def predict(params: Tree, buffers: Tree, x: Tensor) -> Tensor:
        """Return the outputs of the forward in evaluation mode; the buffers stay unchanged."""
        held = {**params, **{name: b.clone() for name, b in buffers.items()}}
        x = x.clone() if habits.writes_input else x
        with fix_seed(x.device) if habits.draws_in_evaluation else nullcontext():
            return training.arrange(layout(lambda x: functional_call(evaluating, held, (x,)), x))

    return Task(
        apply=training.forward(None),
        predict=predict,
        loss=loss,
        metrics=dict(metrics or {}),
        num_classes=num_classes,
        norm_leaves=norm_leaves(model),
        frozen=frozen_values(model),
        lr_scale=dict(lr_scale or {}),
        tied=second_names(model),
        unbatchable=batching_obstacle(model) or padding,
        unpaddable=padding,
        batch_norms=tuple(training.norms),
        unsupported_batch_norms=tuple(
            name
            for name, m in model.named_modules()
            if isinstance(m, _BatchNorm) and name not in training.norms and name not in training.still
        ),
        apply_with=training.forward,
        kernels_before_norms=partial(kernels_before_norms, model),
        encoder=encoder(model, habits.writes_input),
        moving_buffers=habits.moving_buffers,
    )


class TrainingModule:
    """A copy of a module, whose forwards in training mode are pure functions."""

    def __init__(self, module: nn.Module, augment: Augment | None = None, copies_input: bool = False) -> None:
        self.augment, self.layout, self.scope = augment, ImageLayout(module), Scope()
        self.copies_input = copies_input
        self.arrange = move_classes_last if getattr(module, CLASS_AXIS, None) == 1 else _keep_order
        self.module, self.still = swap_layers(copy_module(module), self.scope).train(), frozen_norms(module)
        for name in self.still:
            self.module.get_submodule(name).eval()
        self.norms = {
            name: layer
            for name, layer in self.module.named_modules()
            if isinstance(layer, MaskedBatchNorm) and layer.tracks and name not in self.still
        }

    def forward(self, normaliser: Normaliser | None = None) -> Apply:
        """Return the training forward, in which BatchNorm layers normalise by the batch or by this normaliser."""

        def apply(params: Tree, buffers: Tree, x: Tensor, mask: Tensor | None, key: Tensor) -> tuple[Tensor, Tree]:
            """Return outputs and new buffers of the training forward; see `_run`."""
            return self.layout(lambda x: self._run(params, buffers, x, mask, key, normaliser), x)

        return apply

    def _run(
        self, params: Tree, buffers: Tree, x: Tensor, mask: Tensor | None, key: Tensor, normaliser: Normaliser | None
    ) -> tuple[Tensor, Tree]:
        """Run a forward in training mode, with augmentation; return outputs and new buffers."""
        params, extra = self._split(params) if normaliser else (params, {})
        copies = {name: b.clone() for name, b in buffers.items()}  # layers write into these, or replace them
        held = {**params, **copies}
        if self.augment is not None:
            x = self.augment(x, rng.fold(key, AUGMENT))
        x = x.clone() if self.copies_input else x
        self.scope.enter(mask, key, normaliser, extra)
        try:
            outputs = self.arrange(functional_call(self.module, held, (x,)))
            fresh = {name: held[name].detach() for name in buffers}
            for name, layer in self.norms.items():
                if layer in self.scope.seen:
                    fresh |= moments_as_buffers(name, self.scope.seen[layer], fresh)
        finally:
            self.scope.leave()
        return outputs, fresh

    def _split(self, params: Tree) -> tuple[Tree, dict[nn.Module, dict[str, Tensor]]]:
        """Return the module's own parameters, and the further ones of each BatchNorm layer by their last names."""
        own: Tree = {}
        extra: dict[nn.Module, dict[str, Tensor]] = {}
        for name, p in params.items():
            layer, _, last = name.rpartition(".")
            if layer in self.norms and last not in ("weight", "bias"):
                extra.setdefault(self.norms[layer], {})[last] = p
            else:
                own[name] = p
        return own, extra


def copy_module(module: nn.Module) -> nn.Module:
    """Return a copy of a module, whose trained parameters share the memory of the module's own.

    A forward puts others in their place, so that copies of a large model would cost memory and serve nobody.
    """
    trained = (p for p in module.parameters() if type(p) is nn.Parameter and p.requires_grad)
    return copy.deepcopy(module, {id(p): nn.Parameter(p.detach()) for p in trained})


def encoder(model: nn.Module, copies_input: bool = False) -> Encoder | None:
    """Return the model up to its classifier; None where it has no linear layer, or nothing to train before it.

    An identity takes the classifier's place. So where the last linear layer is not the model's last step, the encoder
    consists of the steps before that layer and those after it.
    """
    name = classifier_name(model)
    if name is None:
        return None
    layer = model.get_submodule(name)
    assert isinstance(layer, nn.Linear)
    head = frozenset(f"{name}.{parameter}" for parameter, _ in layer.named_parameters())
    if not any(other not in head and p.requires_grad for other, p in model.named_parameters()):
        return None

    def forward() -> Apply:
        """Return the training forward of a copy of the model without its classifier."""
        headless = copy_module(model)
        headless.set_submodule(name, nn.Identity())
        return TrainingModule(headless, copies_input=copies_input).forward()

    return Encoder(forward, layer.in_features, head)


def move_classes_last(outputs: Tensor) -> Tensor:
    """Return outputs [B, C, ...] as [B, ..., C]."""
    return outputs.movedim(1, -1)


def _keep_order(outputs: Tensor) -> Tensor:
    return outputs


@contextmanager
def fix_seed(device: torch.device) -> Iterator[None]:
    """Seed PyTorch's global generator for a block, always alike, and restore it afterwards."""
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        seed_generator(device, 0)
        yield


def seed_generator(device: torch.device, number: int) -> None:
    """Seed PyTorch's global generators for the CPU and, where it is a GPU, for `device`."""
    torch.default_generator.manual_seed(number)
    if device.type == "cuda":
        index = torch.cuda.current_device() if device.index is None else device.index
        torch.cuda.default_generators[index].manual_seed(number)


def moments_as_buffers(layer: str, seen: Moments, buffers: Tree) -> Tree:
    """Return what a BatchNorm layer reported, under the names of its buffers."""
    mean, var, number = statistic_names(layer)
    return {mean: seen.mean, var: seen.var, number: seen.number.to(buffers[number].dtype)}


def initial_weights(model: nn.Module) -> Tree:
    """Return copies of the model's {"params", "buffers"}, with the names of its `state_dict`.

    Frozen values (see `frozen_values`) and buffers that a `state_dict` leaves out are not among them: both are
    constants of the architecture, which stay in the model and do not travel.
    """
    saved, still = model.state_dict(keep_vars=True), frozen_values(model)
    moving = {name for name in saved if name not in still}
    params = {name: p.detach().clone() for name, p in model.named_parameters() if name in moving}
    buffers = {name: b.detach().clone() for name, b in model.named_buffers() if name in moving}
    return {"params": params, "buffers": buffers}


def second_names(model: nn.Module) -> dict[str, str]:
    """Return the second names of tied parameters and buffers in the `state_dict`: second name -> first name."""
    first: dict[int, str] = {}
    saved = {name: x for name, x in model.state_dict(keep_vars=True).items() if isinstance(x, Tensor)}
    pairs = ((name, first.setdefault(id(x), name)) for name, x in saved.items())
    return {name: original for name, original in pairs if name != original}


def batching_obstacle(model: nn.Module) -> str | None:
    """Return why clients with this model cannot be batched; None where its layers give no reason."""
    recurrent = next((module for module in model.modules() if isinstance(module, nn.RNNBase)), None)
    return padding_obstacle(model) if recurrent is None else f"nn.{type(recurrent).__name__} has no batching rule"


def padding_obstacle(model: nn.Module) -> str | None:
    """Return why a short batch must not be padded; None where its layers give no reason. Some layers ignore masks."""
    still = frozen_norms(model)
    for name, module in model.named_modules():
        if isinstance(module, _InstanceNorm) and module.track_running_stats and name not in still:
            return f"the running statistics of nn.{type(module).__name__} would count padding"
        if isinstance(module, _BatchNorm) and not has_torch_forward(module) and name not in still:
            return f"{type(module).__name__}, a BatchNorm with a forward of its own, would count padding"
    return None


def norm_leaves(model: nn.Module) -> frozenset[str]:
    """Return the names of the parameters and buffers of normalisation layers, without the frozen ones."""
    found = frozenset(
        f"{prefix}.{name}" if prefix else name
        for prefix, module in model.named_modules()
        if isinstance(module, NORM_TYPES)
        for name in module.state_dict()
    )
    return found - frozen_values(model).keys()
