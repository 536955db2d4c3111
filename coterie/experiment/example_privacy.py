"""What a guarantee for single examples means for a run's other tables, and what its folder says of it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from coterie.core.errors import Mistake
from coterie.core.examples import Examples, sizes
from coterie.experiment.outside_guarantee import list_outside
from coterie.experiment.settings import Settings
from coterie.loop.example_plan import spent_by_clients
from coterie.loop.plan import Plan
from coterie.privacy.table import Privacy
from coterie.track.run_folder import EPSILONS_FILE

NEIGHBOURS = "an example counts, or counts as nothing"
_COVERED = "all that a client sends in the rounds, so the model after every round too"


def refuse_mixed_features(settings: Settings) -> None:
    """Refuse features of an example that depend on other examples.

    Raises:
        Mistake: they would.
    """
    how = settings.data["standardize"]
    if how in ("local", "federated"):
        raise Mistake(
            'each example would change the features of all others; give "none", or a table of each column\'s mean and '
            "deviation that are public",
            key="standardize",
            value=how,
            table="data",
        )


def refuse_common_examples(privacy: Privacy, extra: Examples | None) -> None:
    """Refuse examples that every client trains on besides its own: they are public, and would count as its own.

    Raises:
        Mistake: there are some.
    """
    if privacy.unit == "example" and extra is not None:
        raise Mistake(
            "this algorithm would train each client on the seed set too, and the guarantee counts a client's own "
            "examples; leave the seed set out",
            key="unit",
            value="example",
            table="privacy",
        )


def describe_example_privacy(plan: Plan, privacy: Privacy, rounds: int, repeated: int) -> dict[str, Any]:
    """Return the entries of summary.json. Its epsilon is the largest of any client; see `epsilons_of_clients`.

    Args:
        plan: of the run.
        privacy: the guarantee, complete.
        rounds: how many are on record.
        repeated: how many were run again with other noise, which count a second time.
    """
    return {
        "epsilon": max(epsilons_of_clients(plan, privacy, rounds, repeated).values(), default=0.0),
        "delta": privacy.delta,
        "noise_multiplier": privacy.noise_multiplier,
        "privacy": {
            "unit": "example",
            "neighbours": NEIGHBOURS,
            "where": "clients",
            "noise": privacy.noise,
            "rounds": rounds,
            "repeated": repeated,
            "clients": EPSILONS_FILE,
            "covers": _COVERED,
            "outside": list_outside(plan, privacy),
        },
    }


def epsilons_of_clients(plan: Plan, privacy: Privacy, rounds: int, repeated: int) -> dict[str, float]:
    """Return the epsilon that each client has spent, at the delta of the guarantee; see `describe_example_privacy`.

    Of a round that was run again it is not known any more which one it was, so it counts as each of the first three and
    the last one, for every client: algorithms in stages ask different things in these.
    """
    held = dict(zip(plan.ids, sizes(plan.clients, plan.ids), strict=True))
    return spent_by_clients(plan.algorithm, privacy, held, _list_cohorts(plan, rounds, repeated))


def list_epsilons(plan: Plan, privacy: Privacy, rounds: int, repeated: int) -> list[dict[str, Any]]:
    """Return the content of epsilons.json: each client's id, its number of examples, and the epsilon that it spent."""
    found = epsilons_of_clients(plan, privacy, rounds, repeated)
    held = sizes(plan.clients, plan.ids)
    return [{"id": c, "examples": n, "epsilon": found[c]} for c, n in zip(plan.ids, held, strict=True)]


def _list_cohorts(plan: Plan, rounds: int, repeated: int) -> Iterator[tuple[int, Sequence[str]]]:
    for number in range(1, rounds + 1):
        yield number, plan.draw_cohort(number)
    for number in plan.rounds_of_stages() if repeated else ():
        for _ in range(repeated):
            yield number, plan.ids
