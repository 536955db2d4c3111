"""Which keys a table takes: the arguments of the function that the table is for, so that no other list of them is kept.

For a function of ours they are read from its source (see `read_keys`), so that PyTorch is not imported.
"""

from __future__ import annotations

import functools
import inspect
import operator
import types
import typing
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

from coterie.core.options import Option, options_of

REQUIRED: Any = inspect.Parameter.empty
"""The default of a key that must be given."""


class Key(NamedTuple):
    """One key of a table.

    Attributes:
        kind: the annotation of its value, with its range; `Any` where there is none.
        default: its value where it is left out; None where it then has no effect, `REQUIRED` where it must be given.
    """

    kind: Any
    default: Any

    @property
    def type(self) -> Any:
        """The kind without its range."""
        return _strip_range(self.kind)


class Keys(dict[str, Key]):
    """The keys of a table by name.

    Attributes:
        open: whether the table takes any other keys too.
    """

    open: bool = False

    def join(self, other: Keys) -> Keys:
        """Return these keys, and the others after them."""
        both = Keys(self | other)
        both.open = self.open or other.open
        return both

    def close(self) -> Keys:
        """Return these keys, for a table that takes no others."""
        return Keys(self)

    def without(self, names: Iterable[str]) -> Keys:
        """Return these keys except some."""
        fewer = Keys({name: key for name, key in self.items() if name not in set(names)})
        fewer.open = self.open
        return fewer


def keys_of(function: Callable[..., Any]) -> Keys:
    """Return the keys of a table whose values become the arguments of a function or the fields of a dataclass.

    >>> from coterie.algorithms import fedsgd
    >>> keys_of(fedsgd)["lr_decay"].default
    1.0
    """
    parameters = inspect.signature(function).parameters.values()
    kinds = _annotations(function)
    keys = Keys()
    for parameter in parameters:
        kind = kinds.get(parameter.name, Any)
        if parameter.kind is parameter.VAR_KEYWORD:
            options = typing.get_args(kind)[0] if typing.get_origin(kind) is typing.Unpack else None
            keys = keys.join(_keys_of_options(options)) if options else keys
            keys.open = keys.open or options is None
        elif parameter.kind in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY):
            keys[parameter.name] = Key(kind, parameter.default)
    return keys


def _keys_of_options(options: Any) -> Keys:
    """Return the keys of an options class."""
    return Keys({name: key_of_option(option) for name, option in options_of(options).items()})


def key_of_option(option: Option) -> Key:
    """Return an option as the key of a table."""
    return Key(option.kind, REQUIRED if option.required else option.default)


def _strip_range(kind: Any) -> Any:
    """Return an annotation without what `Annotated` adds to it."""
    origin, inside = typing.get_origin(kind), typing.get_args(kind)
    if origin is typing.Annotated:
        return _strip_range(inside[0])
    if origin in (typing.Union, types.UnionType):
        return functools.reduce(operator.or_, map(_strip_range, inside))
    return kind


def _annotations(function: Callable[..., Any]) -> dict[str, Any]:
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
