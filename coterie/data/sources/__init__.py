"""Sources: where examples come from, one data set per file.

To add one, write a function that returns a `coterie.data.Source`, and name it in `SOURCES` and in docs/data.md. Its
arguments are the keys that it takes.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from coterie.core.errors import Mistake
from coterie.core.registry import Registry
from coterie.data.argument_checks import require_known_arguments

if TYPE_CHECKING:
    from coterie.data.source import Source

SOURCES = Registry(
    "source",
    {
        "digits": "coterie.data.sources.digits:digits",
        "mnist": "coterie.data.sources.mnist:mnist",
        "fashion_mnist": "coterie.data.sources.fashion_mnist:fashion_mnist",
        "rotated_mnist": "coterie.data.sources.rotated_mnist:rotated_mnist",
        "rotated": "coterie.data.sources.rotated:rotated",
        "mnist_m": "coterie.data.sources.mnist_m:mnist_m",
        "digits_mix": "coterie.data.sources.digits_mix:digits_mix",
        "cifar10": "coterie.data.sources.cifar:cifar10",
        "cifar100": "coterie.data.sources.cifar:cifar100",
        "pacs": "coterie.data.sources.pacs:pacs",
        "shakespeare": "coterie.data.sources.shakespeare:shakespeare",
        "heart_disease": "coterie.data.sources.heart_disease:heart_disease",
        "diabetes": "coterie.data.sources.diabetes:diabetes",
        "adult": "coterie.data.sources.adult:adult",
        "npz": "coterie.data.sources.npz:npz",
        "csv": "coterie.data.sources.csv:csv",
        "parquet": "coterie.data.sources.parquet:parquet",
        "images": "coterie.data.sources.images:images",
        "huggingface": "coterie.data.sources.huggingface_dataset:huggingface",
        "synthetic": "coterie.data.sources.synthetic:synthetic",
    },
    takes_own=True,
)
"""Every source by the name that `load` takes."""

MADE_OF: Mapping[str, Sequence[str]] = {"rotated_mnist": ("mnist",), "digits_mix": ("mnist", "mnist_m")}
"""Sources without files of their own, and the sources whose files they read."""


def load(name: str, /, *, folders: Sequence[str | Path] = (), **options: Any) -> Source:
    """Load the source called `name`, by calling its function with these options.

    Args:
        name: one of `SOURCES`, or "package.module:function" for a function that returns a `Source`.
        folders: where a module of the user's own is looked for before the usual places, first to last.
        options: the source's own arguments, such as `path` or `angles`.

    Raises:
        Mistake: there is no such source, it does not take an option or lacks one, or it raises a mistake itself.
    """
    from coterie.data.origins import note_source
    from coterie.data.source import Source

    function = find(name, folders)
    require_known_arguments(function, f"the source {name}", options)
    with note_source(name) as given:
        source = function(**options)
        if not isinstance(source, Source):
            kind = type(source).__name__
            raise Mistake(f"it returned {kind}; it must return a coterie.data.Source", key="source", value=name)
        given.append(source)
    return source


def options(name: str, folders: Sequence[str | Path] = ()) -> tuple[str, ...]:
    """Return the names of the arguments that the source called `name` takes.

    Raises:
        Mistake: there is no such source.

    >>> options("digits")
    ('test_fraction',)
    """
    return tuple(inspect.signature(find(name, folders)).parameters)


def find(name: str, folders: Sequence[str | Path] = ()) -> Callable[..., Source]:
    """Return the function that makes the source called `name`; the arguments are those of `load`.

    Raises:
        Mistake: there is none.
    """
    return SOURCES.find(name, folders)
