"""What a run's [privacy] means for its other tables, and what summary.json says of it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from coterie.core.errors import Mistake, mistakes_in
from coterie.core.examples import sizes
from coterie.experiment.choose_seed_set import refuse_dealt_seed_set
from coterie.experiment.example_privacy import describe_example_privacy, refuse_mixed_features
from coterie.experiment.outside_guarantee import list_outside
from coterie.experiment.settings import Settings
from coterie.loop.plan import Plan
from coterie.loop.private_plan import complete_privacy, event_of_round
from coterie.privacy.accountant import spent
from coterie.privacy.table import Privacy

COVERED = "all that the server sends, so the model after every round too, and measures on test data that it may show"


@contextmanager
def mistakes_about_privacy() -> Iterator[None]:
    """Name the table of the keys that `coterie.plan` takes as `privacy`."""
    try:
        yield
    except Mistake as mistake:
        is_ours = not mistake.table and (mistake.key or "").partition(".")[0] in Privacy.__dataclass_fields__
        raise (mistake.in_table("privacy") if is_ours else mistake) from mistake.__cause__


def fill_in_privacy(settings: Settings, population: int) -> Settings:
    """Return the settings with the noise and the delta of [privacy]; refuse what would escape its guarantee.

    Raises:
        Mistake: something would, or the rounds would spend more than was asked.
    """
    if settings.privacy.unit == "none":
        return settings
    refuse_open_exchanges(settings)
    if settings.privacy.unit == "example":
        return settings  # the noise follows from the clients' steps, so the plan chooses it
    with mistakes_in("privacy"):
        complete = complete_privacy(settings.privacy, settings.cohort, population, settings.rounds)
    return replace(settings, privacy=complete)


def refuse_open_exchanges(settings: Settings) -> None:
    """Refuse what clients would tell of their data before the first round, beside a guarantee.

    Raises:
        Mistake: the settings ask for it.
    """
    if settings.privacy.unit == "none":
        return
    if settings.privacy.unit == "example":
        refuse_mixed_features(settings)
    if settings.data["standardize"] == "federated":
        raise Mistake(
            'clients would send sums of their columns, which no noise protects; give "local", "none", or a table of '
            "each column's mean and deviation that are public",
            key="standardize",
            value="federated",
            table="data",
        )
    if settings.task.class_weights == "balanced":
        raise Mistake(
            "clients would send counts of their labels, which no noise protects; give numbers",
            key="class_weights",
            value="balanced",
            table="task",
        )
    refuse_dealt_seed_set(
        settings, "clients would give examples of their own to all others; name a public set by seed_set.source"
    )


def remarks_on_delta(plan: Plan) -> list[str]:
    """Return a sentence where the delta of a guarantee is so large that epsilon says nothing; otherwise none."""
    privacy = plan.either_guarantee
    if privacy is None or privacy.delta is None:
        return []
    protected = len(plan.ids) if privacy.unit == "client" else max(sizes(plan.clients, plan.ids), default=1)
    if privacy.delta * protected <= 1:
        return []
    return [
        f"privacy.delta = {privacy.delta:g} is above 1 / {protected}: a run that published one of {protected} "
        f"{privacy.unit}s as it is, drawn at random, would keep this guarantee too; choose a much smaller one, or "
        "leave it out"
    ]


def adopt_privacy(privacy: Privacy, earlier: Privacy) -> Privacy:
    """Return [privacy] with the noise and the delta of an earlier run, where they are left open."""
    if privacy.unit != earlier.unit:
        return privacy
    multiplier = privacy.noise_multiplier if privacy.noise_multiplier is not None else earlier.noise_multiplier
    return replace(privacy, noise_multiplier=multiplier, delta=privacy.delta if privacy.delta else earlier.delta)


def describe_privacy(plan: Plan, rounds: int, repeated: int = 0) -> dict[str, Any]:
    """Return the entries of summary.json about a guarantee; empty where there is none.

    Args:
        plan: of the run.
        rounds: how many are on record.
        repeated: how many were run again with other noise, after a loss, which count a second time.
    """
    if plan.example_privacy is not None:
        return describe_example_privacy(plan, plan.example_privacy, rounds, repeated)
    privacy, releases = plan.guarantee, rounds + repeated
    if privacy is None:
        return {}
    assert privacy.noise_multiplier is not None, "the plan is complete"
    assert privacy.delta is not None, "the plan is complete"
    event = event_of_round(plan.cohort, len(plan.ids), privacy.noise_multiplier)
    return {
        "epsilon": spent({event: releases}, privacy.delta),
        "delta": privacy.delta,
        "noise_multiplier": privacy.noise_multiplier,
        "privacy": {
            "unit": privacy.unit,
            "neighbours": event.neighbours,
            "where": privacy.where,
            "noise": privacy.noise,
            "releases": releases,
            "covers": COVERED,
            "outside": list_outside(plan, privacy),
        },
    }
