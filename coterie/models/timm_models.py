"""Models of timm, and the weights that it publishes. It is imported here and nowhere else, when it is used."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from typing import Annotated, Any

from annotated_types import Ge
from torch import Tensor, nn

from coterie.core.errors import Mistake, reason
from coterie.core.packages import package
from coterie.models import library_adapter

PREFIX = "timm:"


def model(
    architecture: str,
    in_shape: Sequence[int],
    num_classes: int,
    published: str | None = None,
    image_size: Annotated[int, Ge(1)] | None = None,
) -> nn.Module:
    """A model of timm by name, with initial weights of its own.

    It takes images of one or three channels from 0 to 1, and normalises them itself.

    Args:
        architecture: such as "resnet18" or "resnet18.a1_in1k".
        in_shape: of an example, [C, H, W].
        num_classes: C, the size of the output.
        published: by which published weights the images are normalised; None and "" are those that the name means.
        image_size: pixels of a side to which images are resized; as they are, unless the architecture knows one size
            only.

    Raises:
        Mistake: timm is not installed, or there is no such model.
    """
    made = _made(_tagged(architecture, published or ""), num_classes=num_classes, pretrained=False)
    library_adapter.colours(f"{PREFIX}{architecture}", in_shape)
    about: Mapping[str, Any] = made.pretrained_cfg
    library_adapter.remember_pixels(made, about.get("mean"), about.get("std"))
    size = tuple(about["input_size"][1:]) if about.get("fixed_input_size") else None
    size = size if image_size is None else (image_size, image_size)
    return library_adapter.adapted(made, lambda forward, self, x: forward(library_adapter.pixels(self, x, size)))


def published(name: str, which: str, model: nn.Module) -> Mapping[str, Tensor]:
    """Weights that timm publishes, by their names, fetched into its own cache: from safetensors files where there are
    any, else with PyTorch's `weights_only`.

    Args:
        name: of the model, such as "resnet18".
        which: such as "a1_in1k"; "" for those that the name means.
        model: what they are for.

    Raises:
        Mistake: there are no such weights, or they cannot be had.
    """
    found: Mapping[str, Tensor] = _made(_tagged(name, which), pretrained=True).state_dict()
    return found


def _tagged(architecture: str, which: str) -> str:
    return f"{architecture.partition('.')[0]}.{which}" if which else architecture


def _made(name: str, **options: Any) -> Any:
    timm = package("timm", f'model.name = "{PREFIX}{name}"', "timm")
    try:
        return timm.create_model(name, **options)
    except Exception as error:  # the library's own, and those of a network
        near = get_close_matches(name, timm.list_models(pretrained="." in name), n=3)
        hint = f"; did you mean {' or '.join(near)}?" if near and name not in near else ""
        why = reason(error)
        raise Mistake(f'"{PREFIX}{name}": timm cannot make it ({why}){hint}') from error
