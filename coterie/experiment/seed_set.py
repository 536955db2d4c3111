"""The seed set that a file asks for: from the clients, or from a source of its own; with labels or without."""

from __future__ import annotations

from dataclasses import replace

from coterie.core.errors import Mistake, mistakes_in
from coterie.core.examples import Examples, pool_examples
from coterie.data import Source
from coterie.data.seed_set import SeedSet, add_to_clients, from_clients, from_pool
from coterie.data.sources import find
from coterie.data.standardize import Standardized
from coterie.experiment.dealing import seed_source
from coterie.experiment.keys import keys_of
from coterie.experiment.refuse import shown
from coterie.experiment.settings import Settings
from coterie.loop.plan import Plan


def seed_set(settings: Settings, ready: Standardized) -> SeedSet | None:
    """The seed set beside the clients' data, and what it leaves them; None where the file asks for none.

    Raises:
        Mistake: the keys contradict one another, or the source cannot serve the clients' task.
    """
    given, labels = settings.algorithm["seed_examples_per_client"], settings.seed_set.get("labels")
    source = settings.seed_set.get("source")
    if given is not None and source is not None:
        raise Mistake(
            f"seed_set.source = {shown(source)}: algorithm.seed_examples_per_client = {given} takes the seed set from "
            "the clients; keep one of them"
        )
    if source is not None:
        found = _elsewhere(settings, ready, seed_source(settings))
    elif given is not None:
        with mistakes_in("algorithm"):
            found = from_clients(ready.clients, given, settings.rng_seed)
    elif labels is not None:
        raise Mistake(
            f"seed_set.labels = {shown(labels)}: there is no seed set; give seed_set.source, or "
            "algorithm.seed_examples_per_client"
        )
    else:
        return None
    return found.without_labels() if labels is False else found


def with_seed_set(settings: Settings, plan: Plan) -> Plan:
    """The plan with the seed set where its algorithm wants it: for comparisons at equal data, an algorithm that has no
    use for one trains each client on it too.

    Raises:
        Mistake: the algorithm needs a seed set and there is none, or has no use for one without labels.
    """
    wanted, name = plan.algorithm.needs_seed_set, settings.algorithm["name"]
    if wanted and plan.seed_set is None:
        raise Mistake(
            f"algorithm.seed_examples_per_client is missing; {name} needs a seed set, to which each client gives so "
            "many of its examples, or which seed_set.source names"
        )
    if wanted or plan.seed_set is None:
        return plan
    if plan.seed_set.y is None:
        raise Mistake(f"seed_set.labels = false: {name} would learn from its labels alone; leave the seed set out")
    return replace(plan, clients=add_to_clients(plan.clients, plan.seed_set), seed_set=None)


def _elsewhere(settings: Settings, ready: Standardized, other: Source) -> SeedSet:
    """Examples of another source: all of a file of the user's own, the training examples of any other."""
    _serves(settings, ready.source, other)
    of_a_file = "path" in keys_of(find(settings.seed_set["source"], settings.folders))
    examples = ready.scaling(_whole(other) if of_a_file else other.train)
    size = settings.seed_set.get("examples") or len(examples)
    with mistakes_in("seed_set"):
        return from_pool(examples, size, ready.clients, settings.rng_seed)


def _whole(source: Source) -> Examples:
    """All examples, in the order of the file where training and test examples share one pool."""
    train, test = source.train, source.test
    if test is None:
        return train
    return Examples(train.x, train.y) if test.x is train.x and test.y is train.y else pool_examples([train, test])


def _serves(settings: Settings, source: Source, other: Source) -> None:
    """Whether examples of the other source are of the clients' kind."""
    for what, ours, theirs in (
        ("shape", list(source.train.x.shape[1:]), list(other.train.x.shape[1:])),
        ("type", source.train.x.dtype, other.train.x.dtype),
        ("columns", source.feature_names, other.feature_names),
        ("number of classes", source.num_classes, other.num_classes),
    ):
        if ours is not None and theirs is not None and ours != theirs:
            raise Mistake(
                f"seed_set.source = {shown(settings.seed_set['source'])}: its examples have the {what} "
                f"{shown(theirs)}, the clients' {shown(ours)}; a seed set must be of their kind"
            )
