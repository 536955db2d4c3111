"""Checks of arguments that several functions of this room take."""

from __future__ import annotations

import inspect
import math
import operator
from collections.abc import Callable, Iterable, Mapping
from typing import Any, SupportsIndex, cast

from coterie.core.errors import Mistake


def require_count(key: str, value: object) -> int:
    """Return `value` as a whole number, and refuse it below 1.

    Raises:
        Mistake: it is not such a number.

    >>> require_count("num_clients", 3)
    3
    """
    try:
        whole = operator.index(cast(SupportsIndex, value))
    except TypeError:
        whole = 0
    if whole < 1 or isinstance(value, bool):
        raise Mistake(key=key, value=value, allowed="a whole number, 1 or more")
    return whole


def require_concentration(alpha: object) -> float:
    """Return `alpha`, the concentration of a Dirichlet distribution, and refuse it unless it is finite and above 0.

    Raises:
        Mistake: it is not such a number.
    """
    is_number = isinstance(alpha, int | float) and not isinstance(alpha, bool)
    if not is_number or not math.isfinite(cast(float, alpha)) or cast(float, alpha) <= 0:
        raise Mistake(key="alpha", value=alpha, allowed="a finite number above 0 (small is uneven, large is even)")
    return float(cast(float, alpha))


def require_enough_examples(num_examples: int, num_clients: int, each: int = 1, each_key: str = "") -> None:
    """Refuse `num_clients` unless every client can get `each` examples.

    Args:
        num_examples: how many there are.
        num_clients: how many clients there are.
        each: how many examples a client needs.
        each_key: the argument that says so, for the message.

    Raises:
        Mistake: there are too few.
    """
    if num_clients * each > num_examples:
        why = f" (`{each_key}`)" if each_key else ""
        need = f"{each} examples each{why}" if each > 1 else "one example each"
        raise Mistake(
            f"{need} would take {num_clients * each} examples, but there are {num_examples}; "
            f"at most {num_examples // each} clients can be served",
            key="num_clients",
            value=num_clients,
        )


def require_known_arguments(
    function: Callable[..., Any], what: str, arguments: Mapping[str, Any], also: Iterable[str] = ()
) -> None:
    """Refuse arguments that `function` does not take, and a missing argument that it needs.

    Args:
        function: what is to be called.
        what: what it makes, for the message, such as "the source csv".
        arguments: by name.
        also: names of arguments that it does not take and that are no mistake.

    Raises:
        Mistake: an argument is unknown or missing.
    """
    parameters = inspect.signature(function).parameters
    takes_any = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
    for key, value in arguments.items():
        if key not in parameters and key not in also and not takes_any:
            known = ", ".join(parameters) or "none of its own"
            raise Mistake(f"{what} does not take it; it takes {known}", key=key, value=value)
    for key, parameter in parameters.items():
        by_name = parameter.kind in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY)
        if by_name and parameter.default is parameter.empty and key not in arguments:
            raise Mistake(f"missing; {what} needs it", key=key)
