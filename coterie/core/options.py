"""Options: keyword arguments that are written once, with type, range, default and meaning.

An options class is a `TypedDict`, so that a signature can take its keys (`**options: Unpack[LocalOptions]`). Each key
is annotated with all that is known about it:

    local_epochs: NotRequired[Annotated[Count, Default(1), Doc("passes over a client's data in a round")]]

The keys of a TOML table, their checks and the table in the documentation are read from there. This module imports no
PyTorch.
"""

from __future__ import annotations

import typing
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, TypeVar

from coterie.core.errors import Mistake
from coterie.core.kind_checks import describe_kind, is_of_kind, plain_number
from coterie.core.registry import nearest

F = TypeVar("F", bound=Callable[..., Any])


class Default(NamedTuple):
    """The value of an option that is left out."""

    value: Any


class Doc(NamedTuple):
    """What an option means, in a few words."""

    text: str


class Option(NamedTuple):
    """One option.

    Attributes:
        kind: the annotation of its value: type and range.
        required: whether it must be given.
        default: its value where it is left out.
        doc: what it means.
    """

    kind: Any
    required: bool
    default: Any
    doc: str


def options_of(options: type) -> dict[str, Option]:
    """Return the options of an options class, by name."""
    return {name: option_of(kind) for name, kind in typing.get_type_hints(options, include_extras=True).items()}


def option_of(annotation: Any) -> Option:
    """Return the option that an annotation of an options class describes."""
    optional = typing.get_origin(annotation) is typing.NotRequired
    kind = typing.get_args(annotation)[0] if optional else annotation
    bare, *metadata = typing.get_args(kind) if typing.get_origin(kind) is typing.Annotated else (kind,)
    default = next((each.value for each in metadata if isinstance(each, Default)), None)
    doc = next((each.text for each in metadata if isinstance(each, Doc)), "")
    ranges = [each for each in metadata if not isinstance(each, Default | Doc)]
    return Option(typing.Annotated[(bare, *ranges)] if ranges else bare, not optional, default, doc)


def completes_options(complete: Callable[[Mapping[str, Any]], dict[str, Any]]) -> Callable[[F], F]:
    """Return a decorator for a function some of whose defaults follow from its other arguments.

    An experiment writes what `complete` makes of the given arguments into its config.toml, so that a run means the same
    in a later version with other defaults.

    Args:
        complete: the arguments that were given, None where they were not -> all of them.
    """

    def decorate(function: F) -> F:
        function.complete_options = complete  # type: ignore[attr-defined]
        return function

    return decorate


def complete_options(options: type, given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the given options with the defaults of the others, each checked.

    Raises:
        Mistake: an option is unknown, missing, or out of its range.
    """
    known = options_of(options)
    for name, value in given.items():
        if name not in known:
            near = nearest(name, known)
            hint = f"did you mean `{near}`?" if near else f"there are {', '.join(known)}"
            raise Mistake(f"there is no such argument; {hint}", key=name, value=value)
    values = {}
    for name, option in known.items():
        if name not in given and option.required:
            raise Mistake(f"it is missing; it must be {describe_kind(option.kind)}", key=name)
        values[name] = given.get(name, option.default)
        if not is_of_kind(values[name], option.kind):
            raise Mistake(key=name, value=values[name], allowed=describe_kind(option.kind))
        values[name] = plain_number(values[name])
    return values
