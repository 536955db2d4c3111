"""A silo's policy and approvals, as `ServeSilo` asks them: before an import, facts, and the first round."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from coterie.core.digests import digest
from coterie.core.errors import Mistake
from coterie.core.toml_text import toml_text
from coterie.experiment.silos.begin import Waits
from coterie.experiment.silos.own_rows import OwnRows
from coterie.experiment.tables import PUBLISHED
from coterie.loop.plan import Plan
from coterie.models.libraries import library_prefix
from coterie.privacy.accountant import Event, spent
from coterie.silos.approvals import Approvals
from coterie.silos.policy import Policy
from coterie.silos.run_description import RunDescription, describe_run

LARGEST_DELTA = 0.1
"""Of a guarantee for clients: a silo does not know how many there are."""
_CODE = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*")


def judge_by_policy(policy: Policy, run: str) -> Callable[[Mapping[str, Any], OwnRows], Sequence[str]]:
    """Return the judge of a run's settings: names, rounds and data, before anything that they name is imported."""

    def judge(tables: Mapping[str, Any], rows: OwnRows) -> Sequence[str]:
        described = _describe(policy, run, tables, rows)
        named = {*policy.algorithms, *policy.models, *policy.data, described.algorithm, *described.models}
        code = [name for name in dict.fromkeys(_code_in(tables)) if name not in named]
        return [
            *policy.judge(described),
            *([] if policy.max_epsilon is None else _judge_promise(tables.get("privacy", {}), rows)),
            *(
                f"the run needs {toml_text(name)}, which is code from outside and must be named (models)"
                for name in code
            ),
        ]

    return judge


def ask_approval(
    policy: Policy, approvals: Approvals, run: str
) -> Callable[[Mapping[str, Any], OwnRows, Plan], Sequence[str]]:
    """Return the judge of a run's plan: what leaves, the largest message, and whether a person has approved it."""

    def judge(tables: Mapping[str, Any], rows: OwnRows, plan: Plan) -> Sequence[str]:
        named = _describe(policy, run, tables, rows)
        what = describe_run(plan, run, named.digest, named.algorithm, named.models, named.data, named.epsilon)
        refused = policy.judge(what)
        if refused:
            return refused
        waits = approvals.begin(what, policy.approve)
        if waits is not None and not approvals.is_revoked(what.digest):
            raise Waits(waits)
        return [] if waits is None else [waits]

    return judge


def ask_facts_approval(
    policy: Policy, approvals: Approvals, run: str
) -> Callable[[Mapping[str, Any], OwnRows], Sequence[str]]:
    """Return the judge of a silo's facts: whether a person has approved that they leave, if the policy asks one."""

    def judge(tables: Mapping[str, Any], rows: OwnRows) -> Sequence[str]:
        if not policy.approve_facts:
            return []
        named = _describe(policy, run, tables, rows)
        own_digest = digest(f"facts for {named.digest}".encode())  # a decision of its own, beside the run's
        what = replace(named, digest=own_digest, facts=tuple(rows.facts().sentences()))
        waits = approvals.begin(what, policy.approve)
        if waits is not None and not approvals.is_revoked(what.digest):
            raise Waits(waits)
        return [] if waits is None else [waits]

    return judge


def run_digest(tables: Mapping[str, Any]) -> str:
    """Return the sha256 by which a silo knows an experiment: of its settings as the coordinator sends them."""
    return digest(json.dumps(tables, sort_keys=True).encode())


def _describe(policy: Policy, run: str, tables: Mapping[str, Any], rows: OwnRows) -> RunDescription:
    """Return what the settings say of a run; not what leaves, since no model has been made."""
    model = tables.get("model", {})
    named = [model.get("name"), *model.get("names", ()), *model.get("clients", {}).values(), rows.file.model]
    known = f"sha256:{rows.digest}"
    return RunDescription(
        run=run,
        digest=run_digest(tables),
        algorithm=str(tables.get("algorithm", {}).get("name")),
        models=tuple(dict.fromkeys(str(name) for name in named if name is not None)),
        data=(known if known in policy.data else rows.file.source,),
        rounds=int(tables.get("rounds", 0)),
        clients=len(rows.clients),
        leaves=(),
        message_bytes=0,
        epsilon=_read_epsilon(tables.get("privacy", {})) or _bound_epsilon(tables),
    )


def _read_epsilon(privacy: Mapping[str, Any]) -> float | None:
    """Return the largest privacy loss that a table [privacy] allows its run; None where it protects nobody."""
    epsilon = privacy.get("epsilon")
    stated = privacy.get("unit", "none") != "none" and isinstance(epsilon, int | float) and epsilon > 0
    return float(epsilon) if stated and epsilon is not None else None


def _bound_epsilon(tables: Mapping[str, Any]) -> float | None:
    """Return a bound on the privacy loss of a run that states its noise and its delta, and no epsilon; None otherwise.

    A silo does not know how many clients there are. As if every round asked all of them, it holds for any number; where
    a fixed number is asked, a client that is replaced by another moves a sum by twice its bound.
    """
    privacy, cohort = tables.get("privacy", {}), tables.get("cohort", {})
    given = [privacy.get("noise_multiplier"), privacy.get("delta"), tables.get("rounds")]
    if privacy.get("unit") != "client" or not all(isinstance(x, int | float) and x > 0 for x in given):
        return None
    multiplier, delta, rounds = given
    asks_all = cohort.get("size") is None and cohort.get("fraction", 1.0) == 1
    replaces = cohort.get("sampling", "uniform") != "poisson" and not asks_all
    try:
        return spent({Event(multiplier / 2 if replaces else multiplier): rounds}, delta)
    except Mistake:  # delta is 1 or more, or dp-accounting is not installed
        return None


def _judge_promise(privacy: Mapping[str, Any], rows: OwnRows) -> list[str]:
    """Return a sentence for what makes a run's epsilon, however small, mean little; nothing without a guarantee.

    With probability delta anything may happen: at 1 / n, publishing one of n examples would be allowed. And noise from
    the rng seed can be taken away by whoever sends that seed.
    """
    delta, unit = privacy.get("delta"), privacy.get("unit", "none")
    if unit == "none":
        return []
    largest = max((client.train for client in rows.facts().clients), default=1)
    limit = 1 / max(largest, 1) if unit == "example" else LARGEST_DELTA
    found = []
    if privacy.get("noise") == "rng_seed":
        found.append('the run\'s noise is "rng_seed", which the coordinator knows; max_epsilon needs noise = "secret"')
    if isinstance(delta, int | float) and not delta <= limit:
        found.append(f"the run's delta is {delta:g}, and max_epsilon means nothing with more than {limit:.3g} here")
    return found


def _code_in(value: Any) -> Iterator[str]:
    """Yield every text in the settings that may name code, "package.module:function", in whatever table it stands."""
    if isinstance(value, Mapping):
        for each in value.values():
            yield from _code_in(each)
    elif isinstance(value, list):
        for each in value:
            yield from _code_in(each)
    elif isinstance(value, str) and _CODE.fullmatch(value):
        is_known = library_prefix(value) is not None or value.partition(":")[0] == PUBLISHED
        yield from () if is_known else (value,)
