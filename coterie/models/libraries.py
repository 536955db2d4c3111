"""Models of other libraries, by names such as "torchvision:resnet18" that begin with the library's."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import NamedTuple, Protocol

from torch import Tensor, nn

from coterie.models import huggingface_models, timm_models, torchvision_models


class Published(Protocol):
    """How a library gives out weights."""

    def __call__(self, name: str, which: str, model: nn.Module) -> Mapping[str, Tensor]:
        """By the library's name of a model, and that of the weights where it has several: them, for `model`."""


class Library(NamedTuple):
    """Attributes: what makes a model of a name, its weights, and whether a name means weights too."""

    model: Callable[..., nn.Module]
    published: Published
    checkpoints: bool


LIBRARIES: Mapping[str, Library] = {
    torchvision_models.PREFIX: Library(torchvision_models.model, torchvision_models.published, checkpoints=False),
    timm_models.PREFIX: Library(timm_models.model, timm_models.published, checkpoints=False),
    huggingface_models.PREFIX: Library(huggingface_models.model, huggingface_models.published, checkpoints=True),
}


def library(name: str) -> tuple[Library, str] | None:
    """Which library a model is from, and what it is called there; None: from none of these.

    >>> library("timm:resnet18")[1], library("package.module:function")
    ('resnet18', None)
    """
    return next(((found, name.removeprefix(p)) for p, found in LIBRARIES.items() if name.startswith(p)), None)


def function(name: str) -> Callable[..., nn.Module] | None:
    """What makes the model of that name, see `coterie.models.registry.ModelFunction`."""
    found = library(name)
    return None if found is None else partial(found[0].model, found[1])


def published(name: str, which: str, model: nn.Module) -> Mapping[str, Tensor] | None:
    """The weights that a library publishes for a model of that name; None: the model is from no library.

    Raises:
        Mistake: there are no such weights, or they cannot be had.
    """
    found = library(name)
    return None if found is None else found[0].published(found[1], which, model)
