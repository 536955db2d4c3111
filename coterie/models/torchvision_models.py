"""Models of torchvision, and the weights that it publishes. It is imported here and nowhere else, when it is used."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from typing import Annotated, Any

from annotated_types import Ge
from torch import Tensor, nn

from coterie.core.errors import Mistake, reason
from coterie.core.packages import package
from coterie.models import library_adapter
from coterie.models.model_parts import HEAD, head

PREFIX = "torchvision:"
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""Of ImageNet's pixels: what models are given that start from no published weights."""


def model(
    architecture: str,
    in_shape: Sequence[int],
    num_classes: int,
    published: str | None = None,
    image_size: Annotated[int, Ge(1)] | None = None,
) -> nn.Module:
    """A classifier of torchvision by name, with initial weights of its own.

    It takes images of one or three channels from 0 to 1, and normalises them itself.

    Args:
        architecture: such as "resnet18".
        in_shape: of an example, [C, H, W].
        num_classes: C, the size of the output.
        published: by which published weights the images are normalised; "" is the newest ones. None: as ImageNet's.
        image_size: pixels of a side to which images are resized; as they are, unless the architecture knows one size
            only.

    Raises:
        Mistake: torchvision is not installed, or there is no such model.
    """
    name = f"{PREFIX}{architecture}"
    made = _builder(architecture)(architecture, weights=None, num_classes=num_classes)
    library_adapter.colours(name, in_shape)
    transforms = None if published is None else _weights(architecture, published).transforms()
    mean, std = getattr(transforms, "mean", MEAN), getattr(transforms, "std", STD)
    library_adapter.remember_pixels(made, mean, std)
    side = image_size or getattr(made, "image_size", None)
    size = None if side is None else (side, side)

    def call(forward: Any, self: nn.Module, x: Tensor) -> Tensor:
        outputs = forward(library_adapter.pixels(self, x, size))
        logits: Tensor = outputs[0] if isinstance(outputs, tuple) else outputs  # without those of auxiliary classifiers
        return logits

    auxiliary = {name for name, _ in made.named_parameters() if name.lower().startswith("aux")}
    return library_adapter.adapted(made, call, **{HEAD: head(made) | auxiliary})


def published(name: str, which: str, model: nn.Module) -> Mapping[str, Tensor]:
    """Weights that torchvision publishes, by their names, fetched into its own cache.

    They lie in files that are pickles. PyTorch reads tensors out of them and nothing else (`weights_only`), after their
    checksum.

    Args:
        name: of the model, such as "resnet18".
        which: such as "IMAGENET1K_V1"; "" for the newest.
        model: what they are for.

    Raises:
        Mistake: there are no such weights, or they cannot be had.
    """
    weights = _weights(name, which)
    try:
        found: Mapping[str, Tensor] = weights.get_state_dict(progress=False, check_hash=True, weights_only=True)
    except Exception as error:  # a network's errors are of many kinds
        why = reason(error)
        raise Mistake(f"pretrain.weights: {weights} of torchvision cannot be fetched ({why})") from error
    return found


def _builder(architecture: str) -> Any:
    """What makes a model of that name, if torchvision has such a classifier."""
    models = package("torchvision.models", f'model.name = "{PREFIX}{architecture}"', "torchvision")
    known = models.list_models(module=models)
    if architecture not in known:
        near = get_close_matches(architecture, known, n=3)
        hint = f"did you mean {' or '.join(near)}?" if near else f"it has {', '.join(known)}"
        raise Mistake(f'model.name = "{PREFIX}{architecture}": torchvision has no such classifier; {hint}')
    return models.get_model


def _weights(architecture: str, which: str) -> Any:
    """One of the published weights of an architecture."""
    models = package("torchvision.models", f'model.name = "{PREFIX}{architecture}"', "torchvision")
    found = models.get_model_weights(architecture)
    if not which:
        return found.DEFAULT
    if which not in found.__members__:
        there = ", ".join(found.__members__)
        raise Mistake(
            f'pretrain.weights = "published:{which}": torchvision has none of that name for {architecture}; there are '
            f"{there}"
        )
    return found[which]
