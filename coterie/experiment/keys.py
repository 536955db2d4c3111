"""Which keys a table takes: those that a function takes, so that no list of them is kept anywhere else."""

from __future__ import annotations

import dataclasses
import functools
import inspect
import typing
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

from coterie.algorithms.local import LocalOptions, LocalSGD

REQUIRED: Any = inspect.Parameter.empty
"""The default of a key that must be given."""

_DEFAULTS: dict[Any, type] = {LocalOptions: LocalSGD}
"""Where the defaults of a `TypedDict` of keyword arguments are written down."""


class Key(NamedTuple):
    """One key of a table.

    Attributes:
        kind: the annotation of its value; `Any` where there is none.
        default: its value when it is left out; None means that it then has no say, `REQUIRED` that it must be given.
    """

    kind: Any
    default: Any


class Keys(dict[str, Key]):
    """The keys of a table by name; `open` where it takes any others besides."""

    open: bool = False

    def and_those_of(self, other: Keys) -> Keys:
        """These keys, and the others after them."""
        both = Keys(self | other)
        both.open = self.open or other.open
        return both

    def closed(self) -> Keys:
        """These keys and no others."""
        return Keys(self)

    def without(self, names: Iterable[str]) -> Keys:
        """These keys but for some."""
        fewer = Keys({name: key for name, key in self.items() if name not in set(names)})
        fewer.open = self.open
        return fewer


def keys_of(function: Callable[..., Any]) -> Keys:
    """The keys of a table that becomes the arguments of `function`, a dataclass included.

    >>> from coterie.algorithms import fedsgd
    >>> keys_of(fedsgd)["lr_decay"]
    Key(kind=<class 'float'>, default=1.0)
    """
    parameters = inspect.signature(function).parameters.values()
    kinds = _hints(function)
    keys = Keys()
    for parameter in parameters:
        kind = kinds.get(parameter.name, Any)
        if parameter.kind is parameter.VAR_KEYWORD:
            options = typing.get_args(kind)[0] if typing.get_origin(kind) is typing.Unpack else None
            keys = keys.and_those_of(_options(options)) if options else keys
            keys.open = keys.open or options is None
        elif parameter.kind in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY):
            keys[parameter.name] = Key(kind, parameter.default)
    return keys


def _options(options: Any) -> Keys:
    """The keys of a `TypedDict`."""
    defaults = {f.name: f.default for f in dataclasses.fields(_DEFAULTS[options])} if options in _DEFAULTS else {}
    keys = Keys()
    for name, kind in typing.get_type_hints(options, include_extras=True).items():
        optional = typing.get_origin(kind) is typing.NotRequired
        bare = typing.get_args(kind)[0] if optional else kind
        keys[name] = Key(bare, defaults.get(name) if optional else REQUIRED)
    return keys


def _hints(function: Callable[..., Any]) -> dict[str, Any]:
    """Return the annotations by argument; `Any` for one that cannot be evaluated, as in code of the user's own."""
    function = function.func if isinstance(function, functools.partial) else function
    function = function.__init__ if inspect.isclass(function) else function
    try:
        return typing.get_type_hints(function, include_extras=True)
    except (NameError, TypeError, AttributeError):
        written = dict(inspect.get_annotations(function))
        return {name: _evaluate(kind, getattr(function, "__globals__", {})) for name, kind in written.items()}


def _evaluate(annotation: Any, names: dict[str, Any]) -> Any:
    if not isinstance(annotation, str):
        return annotation
    try:
        return eval(annotation, names)
    except (NameError, TypeError, AttributeError, SyntaxError):
        return Any
