"""Use models of torchvision, and the weights that it publishes. It is imported only here, when it is used."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from typing import Any

from torch import Tensor, nn

from coterie.core.errors import Mistake, reason
from coterie.core.kinds import Count
from coterie.core.packages import import_package
from coterie.models import library_adapter
from coterie.models.libraries import TORCHVISION
from coterie.models.model_parts import HEAD, head_names

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""Of ImageNet's pixels. Models that start from no published weights normalise images by them."""


def torchvision_model(
    architecture: str,
    in_shape: Sequence[int],
    num_classes: int,
    published: str | None = None,
    image_size: Count | None = None,
) -> nn.Module:
    """Return a classifier of torchvision, with initial weights of its own.

    It takes images of one or three channels from 0 to 1, and normalises them itself.

    Args:
        architecture: its name in torchvision, such as "resnet18".
        in_shape: the shape of one example, [C, H, W].
        num_classes: C, the size of the output.
        published: the published weights by whose mean and deviation images are normalised; "" for the newest ones,
            None for those of ImageNet.
        image_size: the side in pixels to which images are resized. Unless given, they are resized only where the
            architecture takes one size only.

    Raises:
        Mistake: torchvision is not installed, or there is no such model.
    """
    name = f"{TORCHVISION}{architecture}"
    new = _models_module(architecture).get_model(architecture, weights=None, num_classes=num_classes)
    library_adapter.require_one_or_three_channels(name, in_shape)
    transforms = None if published is None else _weights_entry(architecture, published).transforms()
    mean, std = getattr(transforms, "mean", IMAGENET_MEAN), getattr(transforms, "std", IMAGENET_STD)
    library_adapter.remember_normalisation(new, mean, std)
    side = image_size or getattr(new, "image_size", None)
    size = None if side is None else (side, side)

    def image_logits(forward: Any, self: nn.Module, x: Tensor) -> Tensor:
        """Return the logits of images x, resized and normalised first, without those of auxiliary classifiers."""
        outputs = forward(library_adapter.prepare_images(self, x, size))
        logits: Tensor = outputs[0] if isinstance(outputs, tuple) else outputs  # without those of auxiliary classifiers
        return logits

    auxiliary = {name for name, _ in new.named_parameters() if name.lower().startswith("aux")}
    return library_adapter.adapt(new, image_logits, **{HEAD: head_names(new) | auxiliary})


def torchvision_weights(architecture: str, published: str, model: nn.Module) -> Mapping[str, Tensor]:
    """Return weights that torchvision publishes, by name, after fetching them into its own cache.

    They lie in files that are pickles. PyTorch checks their checksum, and then reads only tensors (`weights_only`).

    Args:
        architecture: the model's name in torchvision, such as "resnet18".
        published: the name of the weights, such as "IMAGENET1K_V1"; "" for the newest.
        model: the model that will take them.

    Raises:
        Mistake: there are no such weights, or they cannot be fetched.
    """
    entry = _weights_entry(architecture, published)
    try:
        weights: Mapping[str, Tensor] = entry.get_state_dict(progress=False, check_hash=True, weights_only=True)
    except Exception as error:  # a network's errors are of many kinds
        why = reason(error)
        raise Mistake(f"{entry} of torchvision cannot be fetched ({why})", key="published", value=published) from error
    return weights


def _models_module(architecture: str) -> Any:
    """Import torchvision.models, and check that it has a classifier of that name."""
    name = f"{TORCHVISION}{architecture}"
    models = import_package("torchvision.models", "name", "torchvision", name)
    known = models.list_models(module=models)
    if architecture not in known:
        near = get_close_matches(architecture, known, n=3)
        hint = f"did you mean {' or '.join(near)}?" if near else f"it has {', '.join(known)}"
        raise Mistake(f"torchvision has no such classifier; {hint}", key="name", value=name)
    return models


def _weights_entry(architecture: str, published: str) -> Any:
    """Return torchvision's entry of an architecture's published weights."""
    models = import_package("torchvision.models", "name", "torchvision", f"{TORCHVISION}{architecture}")
    entries = models.get_model_weights(architecture)
    if not published:
        return entries.DEFAULT
    if published not in entries.__members__:
        names = ", ".join(entries.__members__)
        raise Mistake(
            f"torchvision has no weights of that name for {architecture}; there are {names}",
            key="published",
            value=published,
        )
    return entries[published]
