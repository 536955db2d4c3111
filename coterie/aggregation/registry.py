"""Rules and steps before them by the names that [aggregation] takes."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from difflib import get_close_matches
from typing import Any, TypeAlias

from coterie.aggregation.bucketing import bucketing
from coterie.aggregation.centred_clipping import centred_clipping
from coterie.aggregation.clip import arc, clip
from coterie.aggregation.geometric_median import geometric_median
from coterie.aggregation.krum import krum, multi_krum
from coterie.aggregation.mda import mda
from coterie.aggregation.meamed import meamed
from coterie.aggregation.median import median
from coterie.aggregation.nnm import nnm
from coterie.aggregation.trimmed_mean import trimmed_mean
from coterie.core.aggregators import Aggregator, Coordinatewise, Geometric, Mixed, Mixing, Sum
from coterie.core.errors import Mistake

Rule: TypeAlias = Sum | Coordinatewise | Geometric

AGGREGATORS: Mapping[str, Callable[..., Rule]] = {
    "mean": Sum,
    "centred_clipping": centred_clipping,
    "geometric_median": geometric_median,
    "krum": krum,
    "mda": mda,
    "meamed": meamed,
    "median": median,
    "multi_krum": multi_krum,
    "trimmed_mean": trimmed_mean,
}
"""Rules by name, as functions of their parameters. "mean" is weighted; after a step of `PRE`, and in all other rules,
every client counts alike."""

PRE: Mapping[str, Callable[..., Mixing]] = {"arc": arc, "bucketing": bucketing, "clip": clip, "nnm": nnm}
"""Steps before a rule by name, as functions of their parameters."""


def aggregation(name: str = "mean", pre: Sequence[str] = (), **parameters: object) -> Aggregator:
    """A rule with the steps before it.

    Args:
        name: a key of `AGGREGATORS`.
        pre: keys of `PRE`, first to last.
        **parameters: `num_byzantine` and what else the rule and the steps take; each goes to all that take it.

    Raises:
        Mistake: a name or a parameter is unknown, missing or out of range.

    >>> aggregation("mean")
    Sum()
    """
    rule = _found("name", name, AGGREGATORS)
    steps = [_found("pre", step, PRE) for step in pre]
    _refuse_unknown([name, *pre], [rule, *steps], parameters)
    inner = _made(name, rule, parameters)
    mixings = tuple(_made(step, function, parameters) for step, function in zip(pre, steps, strict=True))
    return Mixed(mixings, inner) if mixings else inner


def _found(key: str, name: str, known: Mapping[str, Callable[..., Any]]) -> Callable[..., Any]:
    if name not in known:
        close = get_close_matches(name, known, n=1)
        hint = f" (did you mean {close[0]}?)" if close else ""
        raise Mistake(f"aggregation.{key} = {name}: it is unknown{hint}; choose from {', '.join(sorted(known))}")
    return known[name]


def _refuse_unknown(
    names: Sequence[str], functions: Sequence[Callable[..., Any]], parameters: Mapping[str, object]
) -> None:
    taken = dict.fromkeys(p for function in functions for p in inspect.signature(function).parameters)
    for key, value in parameters.items():
        if key not in taken:
            raise Mistake(
                f"aggregation.{key} = {value}: {' after '.join(reversed(names))} takes no such parameter; "
                f"it takes {', '.join(taken) or 'none'}"
            )


def _made(name: str, function: Callable[..., Any], parameters: Mapping[str, object]) -> Any:
    signature = inspect.signature(function).parameters
    for key, parameter in signature.items():
        if parameter.default is inspect.Parameter.empty and key not in parameters:
            raise Mistake(f"aggregation.{key} is missing; {name} needs it")
    return function(**{key: value for key, value in parameters.items() if key in signature})
