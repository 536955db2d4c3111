"""Use models of timm, and the weights that it publishes. It is imported only here, when it is used."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from typing import Any

from torch import Tensor, nn

from coterie.core.errors import Mistake, reason
from coterie.core.kinds import Count
from coterie.core.packages import import_package
from coterie.models import library_adapter
from coterie.models.libraries import TIMM


def timm_model(
    architecture: str,
    in_shape: Sequence[int],
    num_classes: int,
    published: str | None = None,
    image_size: Count | None = None,
) -> nn.Module:
    """Return a model of timm, with initial weights of its own.

    It takes images of one or three channels from 0 to 1, and normalises them itself.

    Args:
        architecture: its name in timm, such as "resnet18" or "resnet18.a1_in1k".
        in_shape: the shape of one example, [C, H, W].
        num_classes: C, the size of the output.
        published: the published weights by whose mean and deviation images are normalised; None and "" for those that
            the name means.
        image_size: the side in pixels to which images are resized. Unless given, they are resized only where the
            architecture takes one size only.

    Raises:
        Mistake: timm is not installed, or there is no such model.
    """
    new = _create(_with_tag(architecture, published or ""), num_classes=num_classes, pretrained=False)
    library_adapter.require_one_or_three_channels(f"{TIMM}{architecture}", in_shape)
    about: Mapping[str, Any] = new.pretrained_cfg
    library_adapter.remember_normalisation(new, about.get("mean"), about.get("std"))
    size = tuple(about["input_size"][1:]) if about.get("fixed_input_size") else None
    size = size if image_size is None else (image_size, image_size)
    return library_adapter.adapt(new, lambda forward, self, x: forward(library_adapter.prepare_images(self, x, size)))


def timm_weights(architecture: str, published: str, model: nn.Module) -> Mapping[str, Tensor]:
    """Return weights that timm publishes, by name, after fetching them into its own cache.

    They are read from safetensors files where there are any, else with PyTorch's `weights_only`.

    Args:
        architecture: the model's name in timm, such as "resnet18".
        published: the tag of the weights, such as "a1_in1k"; "" for those that the name means.
        model: the model that will take them.

    Raises:
        Mistake: there are no such weights, or they cannot be fetched.
    """
    weights: Mapping[str, Tensor] = _create(_with_tag(architecture, published), pretrained=True).state_dict()
    return weights


def _with_tag(architecture: str, tag: str) -> str:
    """Return the architecture with this tag in place of its own, as in "resnet18.a1_in1k"; unchanged for ""."""
    return f"{architecture.partition('.')[0]}.{tag}" if tag else architecture


def _create(name: str, **options: Any) -> Any:
    timm = import_package("timm", "name", "timm", f"{TIMM}{name}")
    try:
        return timm.create_model(name, **options)
    except Exception as error:  # the library's own, and those of a network
        near = get_close_matches(name, timm.list_models(pretrained="." in name), n=3)
        hint = f"; did you mean {' or '.join(near)}?" if near and name not in near else ""
        why = reason(error)
        raise Mistake(f"timm cannot make it ({why}){hint}", key="name", value=f"{TIMM}{name}") from error
