"""Where examples come from, one data set per file."""

from __future__ import annotations

import difflib
import importlib
import inspect
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from coterie.core.errors import Mistake
from coterie.data.source import Source
from coterie.data.sources.adult import adult
from coterie.data.sources.cifar import cifar10, cifar100
from coterie.data.sources.csv import csv
from coterie.data.sources.digits import digits
from coterie.data.sources.digits_mix import digits_mix
from coterie.data.sources.fashion_mnist import fashion_mnist
from coterie.data.sources.heart_disease import heart_disease
from coterie.data.sources.huggingface import huggingface
from coterie.data.sources.images import images
from coterie.data.sources.mnist import mnist
from coterie.data.sources.mnist_m import mnist_m
from coterie.data.sources.npz import npz
from coterie.data.sources.pacs import pacs
from coterie.data.sources.parquet import parquet
from coterie.data.sources.rotated import rotated
from coterie.data.sources.rotated_mnist import rotated_mnist
from coterie.data.sources.shakespeare import shakespeare
from coterie.data.sources.synthetic import synthetic

SOURCES: dict[str, Callable[..., Source]] = {
    "digits": digits,
    "mnist": mnist,
    "fashion_mnist": fashion_mnist,
    "rotated_mnist": rotated_mnist,
    "rotated": rotated,
    "mnist_m": mnist_m,
    "digits_mix": digits_mix,
    "cifar10": cifar10,
    "cifar100": cifar100,
    "pacs": pacs,
    "shakespeare": shakespeare,
    "heart_disease": heart_disease,
    "adult": adult,
    "npz": npz,
    "csv": csv,
    "parquet": parquet,
    "images": images,
    "huggingface": huggingface,
    "synthetic": synthetic,
}
"""Every source by the name that `data.source` takes."""

MADE_OF: dict[str, tuple[str, ...]] = {"rotated_mnist": ("mnist",), "digits_mix": ("mnist", "mnist_m")}
"""Sources without files of their own, and whose files they read."""


def load(name: str, /, *, folders: Sequence[str | Path] = (), **options: Any) -> Source:
    """The source called `name`.

    Args:
        name: one of `SOURCES`, or "package.module:function" for a function that returns a `Source`.
        folders: where a module of the user's own is looked for before the usual places, first to last.
        options: the source's own keys of the table `data`, such as `path` or `angles`.

    Raises:
        Mistake: there is no such source, it takes no such option or lacks one, or it raises one itself.
    """
    function = find(name, folders)
    accepted = _parameters(function)
    takes_any = any(p.kind is p.VAR_KEYWORD for p in accepted.values())
    for key, value in options.items():
        if key not in accepted and not takes_any:
            raise Mistake(f"data.{key} = {value!r}: the source {name} does not take it; it takes {_list(accepted)}")
    for key, parameter in accepted.items():
        named = parameter.kind in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY)
        if named and parameter.default is parameter.empty and key not in options:
            raise Mistake(f"data.{key}: missing; the source {name} needs it")
    source = function(**options)
    if not isinstance(source, Source):
        raise Mistake(f"data.source = {name!r}: returned {type(source).__name__}; it must return a coterie.data.Source")
    return source


def options(name: str, folders: Sequence[str | Path] = ()) -> tuple[str, ...]:
    """The names of the keys that the source called `name` takes.

    Raises:
        Mistake: there is no such source.

    >>> options("digits")
    ('test_fraction',)
    """
    return tuple(_parameters(find(name, folders)))


def find(name: str, folders: Sequence[str | Path] = ()) -> Callable[..., Source]:
    """The function behind the source called `name`; see `load`.

    Raises:
        Mistake: there is none.
    """
    if ":" in name:
        return _own(name, folders)
    if name not in SOURCES:
        near = difflib.get_close_matches(name, SOURCES, n=1)
        hint = f"did you mean {near[0]!r}? It must be" if near else "must be"
        raise Mistake(f"data.source = {name!r}: {hint} one of {', '.join(SOURCES)}, or 'package.module:function'")
    return SOURCES[name]


def _own(name: str, folders: Sequence[str | Path]) -> Callable[..., Source]:
    module_name, _, function_name = name.partition(":")
    with _importing_from(folders):
        try:
            module = importlib.import_module(module_name)
        except ImportError as error:
            raise Mistake(f"data.source = {name!r}: cannot import {module_name!r} ({error})") from error
    function = getattr(module, function_name, None)
    if not callable(function):
        raise Mistake(f"data.source = {name!r}: the module {module_name!r} has no function {function_name!r}")
    found: Callable[..., Source] = function
    return found


@contextmanager
def _importing_from(folders: Sequence[str | Path]) -> Iterator[None]:
    before = list(sys.path)
    sys.path[:0] = [str(folder) for folder in folders]
    try:
        yield
    finally:
        sys.path[:] = before


def _parameters(function: Callable[..., Source]) -> dict[str, inspect.Parameter]:
    return dict(inspect.signature(function).parameters)


def _list(names: dict[str, inspect.Parameter]) -> str:
    return ", ".join(names) or "none of its own"
