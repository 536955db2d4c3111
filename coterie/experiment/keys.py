"""Which keys a table takes: those that a function takes, so that no list of them is kept anywhere else."""

from __future__ import annotations

import functools
import inspect
import operator
import types
import typing
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

from coterie.core.options import options_of

REQUIRED: Any = inspect.Parameter.empty
"""The default of a key that must be given."""


class Key(NamedTuple):
    """One key of a table.

    Attributes:
        kind: the annotation of its value; `Any` where there is none.
        default: its value when it is left out; None means that it then has no say, `REQUIRED` that it must be given.
    """

    kind: Any
    default: Any

    @property
    def type(self) -> Any:
        """The kind without its range."""
        return strip_range(self.kind)


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


def strip_range(kind: Any) -> Any:
    """Return an annotation without what `Annotated` adds to it.

    >>> from coterie.core.kinds import Count
    >>> strip_range(Count | None)
    int | None
    """
    origin, inside = typing.get_origin(kind), typing.get_args(kind)
    if origin is typing.Annotated:
        return strip_range(inside[0])
    if origin in (typing.Union, types.UnionType):
        return functools.reduce(operator.or_, map(strip_range, inside))
    return kind


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
    """Return the keys of a `TypedDict`."""
    found = options_of(options).items()
    return Keys({name: Key(o.kind, REQUIRED if o.required else o.default) for name, o in found})


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
