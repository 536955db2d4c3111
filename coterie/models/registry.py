"""Models by name: ours, those of other libraries, and the user's own. The names can be read without PyTorch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from coterie.core.registry import Registry
from coterie.models.libraries import LIBRARY_MODELS, find_library_model

if TYPE_CHECKING:
    from torch import nn

ModelFunction: TypeAlias = "Callable[..., nn.Module]"
"""A function that makes a model. It is called with `in_shape`, the shape of one example, and `num_classes`, where its
signature takes them, and with options of its own."""


class ModelRegistry(Registry):
    """A registry that also finds models of other libraries, by names such as "torchvision:resnet18"."""

    def find(self, name: str, folders: Sequence[str | Path] = (), key: str | None = None) -> ModelFunction:
        """Return the function that makes the model called `name`; see `Registry.find`."""
        return find_library_model(name) or super().find(name, folders, key)


MODELS = ModelRegistry(
    "name",
    {
        "2nn": "coterie.models.dense:two_nn",
        "char_lstm": "coterie.models.recurrent:char_lstm",
        "cifar_cnn": "coterie.models.convolutional:cifar_cnn",
        "cnn": "coterie.models.convolutional:cnn",
        "logistic": "coterie.models.dense:logistic",
        "mlp": "coterie.models.dense:mlp",
        "resnet18": "coterie.models.imagenet_residual:resnet18",
        "resnet20": "coterie.models.residual:resnet20",
        "transformer": "coterie.models.causal_transformer:transformer",
        "vit": "coterie.models.vision_transformer:vit",
        "word_lstm": "coterie.models.recurrent:word_lstm",
    },
    takes_own=True,
    more=[f'"{prefix}NAME"' for prefix in LIBRARY_MODELS],
)


def build(
    name: str | ModelFunction,
    in_shape: Sequence[int],
    num_classes: int | None,
    rng_seed: int,
    *,
    folders: Sequence[str | Path] = (),
    **options: object,
) -> nn.Module:
    """Build a model with its initial weights.

    The weights depend on the model and `rng_seed` alone; PyTorch's own random state stays unchanged.

    Args:
        name: a key of `MODELS`, a library's model such as "torchvision:resnet18", "package.module:function", or a
            function.
        in_shape: the shape of one example, such as [1, 28, 28].
        num_classes: the size of the output, or None for a function that does not take it.
        rng_seed: the seed of the initial weights.
        folders: where a module of the user's own is looked for before the usual places, first to last.
        options: the model's own, such as `hidden` of mlp.

    Raises:
        Mistake: the name or an option is unknown, or the model cannot take the shape.

    >>> build("mlp", [4], 3, rng_seed=0, hidden=[8])[1].out_features
    8
    """
    from coterie.models.construction import construct  # needs PyTorch, which the names do not

    function = MODELS.find(name, folders) if isinstance(name, str) else name
    title = name if isinstance(name, str) else getattr(name, "__name__", repr(name))
    return construct(function, title, in_shape, num_classes, rng_seed, options)
