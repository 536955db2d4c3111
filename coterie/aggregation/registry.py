"""Rules and the steps before them by name. The names can be read without PyTorch."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from coterie.core.errors import Mistake
from coterie.core.registry import Registry

if TYPE_CHECKING:
    from coterie.core.aggregators import Aggregator

AGGREGATORS = Registry(
    "name",
    {
        "mean": "coterie.core.aggregators:Sum",
        "centred_clipping": "coterie.aggregation.centred_clipping:centred_clipping",
        "geometric_median": "coterie.aggregation.geometric_median:geometric_median",
        "krum": "coterie.aggregation.krum:krum",
        "mda": "coterie.aggregation.mda:mda",
        "meamed": "coterie.aggregation.meamed:meamed",
        "median": "coterie.aggregation.median:median",
        "multi_krum": "coterie.aggregation.krum:multi_krum",
        "trimmed_mean": "coterie.aggregation.trimmed_mean:trimmed_mean",
    },
)
"""Rules by name, as functions of their parameters. "mean" is weighted. After a step of `PRE`, and in all other rules,
every client counts alike."""

PRE = Registry(
    "pre",
    {
        "arc": "coterie.aggregation.clip:arc",
        "bucketing": "coterie.aggregation.bucketing:bucketing",
        "clip": "coterie.aggregation.clip:clip",
        "nnm": "coterie.aggregation.nnm:nnm",
    },
)
"""Steps before a rule by name, as functions of their parameters."""


def aggregation(name: str = "mean", pre: Sequence[str] = (), **parameters: object) -> Aggregator:
    """Return the rule of this name, with the steps `pre` before it; refuse parameters that none of them takes.

    Args:
        name: a key of `AGGREGATORS`.
        pre: keys of `PRE`, first to last.
        **parameters: `num_byzantine` and what else the rule and the steps take; each goes to all that take it.

    Raises:
        Mistake: a name or a parameter is unknown, missing or out of range.

    >>> aggregation("mean")
    Sum()
    """
    from coterie.core.aggregators import Mixed

    rule = AGGREGATORS.find(name)
    steps = [PRE.find(step) for step in pre]
    _refuse_unknown([name, *pre], [rule, *steps], parameters)
    inner = _call(name, rule, parameters)
    mixings = tuple(_call(step, function, parameters) for step, function in zip(pre, steps, strict=True))
    return Mixed(mixings, inner) if mixings else inner


def _refuse_unknown(
    names: Sequence[str], functions: Sequence[Callable[..., Any]], parameters: Mapping[str, object]
) -> None:
    """Refuse parameters that none of the functions takes."""
    taken = dict.fromkeys(p for function in functions for p in inspect.signature(function).parameters)
    for key, value in parameters.items():
        if key not in taken:
            rule = " after ".join(reversed(names))
            raise Mistake(f"{rule} does not take it; it takes {', '.join(taken) or 'nothing'}", key=key, value=value)


def _call(name: str, function: Callable[..., Any], parameters: Mapping[str, object]) -> Any:
    """Call a function with those of the parameters that it takes; refuse if one that it needs is missing."""
    signature = inspect.signature(function).parameters
    for key, parameter in signature.items():
        if parameter.default is inspect.Parameter.empty and key not in parameters:
            raise Mistake(f"missing; {name} needs it", key=key)
    return function(**{key: value for key, value in parameters.items() if key in signature})
