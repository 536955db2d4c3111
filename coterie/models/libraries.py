"""Models of other libraries, whose names begin with a prefix, as in "torchvision:resnet18".

The names can be read without PyTorch. The modules that use the libraries are imported when a model is asked for.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING

from coterie.core.registry import Registry

if TYPE_CHECKING:
    from torch import Tensor, nn

TORCHVISION, TIMM, HUGGINGFACE = "torchvision:", "timm:", "huggingface:"

LIBRARY_MODELS = Registry(
    "name",
    {
        TORCHVISION: "coterie.models.torchvision_models:torchvision_model",
        TIMM: "coterie.models.timm_models:timm_model",
        HUGGINGFACE: "coterie.models.huggingface_models:huggingface_model",
    },
)
"""By prefix, the function that makes a library's model of a name; see `coterie.models.registry.ModelFunction`."""

LIBRARY_WEIGHTS = Registry(
    "published",
    {
        TORCHVISION: "coterie.models.torchvision_models:torchvision_weights",
        TIMM: "coterie.models.timm_models:timm_weights",
        HUGGINGFACE: "coterie.models.huggingface_models:huggingface_weights",
    },
)
"""By prefix, the function that returns the weights that a library publishes; see `published_weights`."""


def library_prefix(name: str) -> str | None:
    """Return the library's prefix of a model's name, such as "timm:", or None.

    >>> library_prefix("timm:resnet18"), library_prefix("package.module:function")
    ('timm:', None)
    """
    return next((prefix for prefix in LIBRARY_MODELS if name.startswith(prefix)), None)


def is_checkpoint(name: str) -> bool:
    """Return whether a model's name means a checkpoint of a library, with weights as well as an architecture."""
    return library_prefix(name) == HUGGINGFACE


def find_library_model(name: str) -> Callable[..., nn.Module] | None:
    """Return the function that makes a library's model, or None where the name begins with no library's prefix."""
    prefix = library_prefix(name)
    return None if prefix is None else partial(LIBRARY_MODELS[prefix], name.removeprefix(prefix))


def published_weights(name: str, published: str, model: nn.Module) -> Mapping[str, Tensor] | None:
    """Return the weights that a library publishes for a model, by name; None where the model is not a library's.

    Args:
        name: the model's name, with the library's prefix.
        published: the name of the weights, where the library has several; "" for the usual ones.
        model: the model that will take the weights.

    Raises:
        Mistake: there are no such weights, or they cannot be fetched.
    """
    prefix = library_prefix(name)
    if prefix is None:
        return None
    weights: Mapping[str, Tensor] = LIBRARY_WEIGHTS[prefix](name.removeprefix(prefix), published, model)
    return weights
