"""The seed set that a file asks for: from the clients, or from a source of its own; with labels or without."""

from __future__ import annotations

from coterie.core.algorithm import Algorithm
from coterie.core.errors import Mistake, mistakes_in
from coterie.core.examples import Examples, pool_examples
from coterie.core.toml_text import toml_text
from coterie.data import SOURCES, Source
from coterie.data.seed_set import SeedSet, from_clients, from_pool
from coterie.data.standardize import Standardized
from coterie.experiment.load_data import load_seed_source
from coterie.experiment.read_keys import registry_keys
from coterie.experiment.settings import Settings


def refuse_dealt_seed_set(settings: Settings, why: str) -> None:
    """Refuse a seed set that is taken from the clients' own examples.

    Args:
        settings: of the run.
        why: it cannot be, and what to do instead.

    Raises:
        Mistake: the settings ask for one.
    """
    given = settings.algorithm.get("seed_examples_per_client")
    if given is not None:
        raise Mistake(why, key="seed_examples_per_client", value=given, table="algorithm")


def choose_seed_set(settings: Settings, ready: Standardized) -> SeedSet | None:
    """Return the seed set, and the data that it leaves the clients; None where the file asks for none.

    Raises:
        Mistake: the keys contradict one another, or the source cannot serve the clients' task.
    """
    given, labels = settings.algorithm["seed_examples_per_client"], settings.seed_set.get("labels")
    source = settings.seed_set.get("source")
    if given is not None and source is not None:
        raise Mistake(
            f"algorithm.seed_examples_per_client = {given} takes the seed set from the clients; keep one of them",
            key="source",
            value=source,
            table="seed_set",
        )
    if source is not None:
        found = _take_from_source(settings, ready, load_seed_source(settings))
    elif given is not None:
        with mistakes_in("algorithm"):
            found = from_clients(ready.clients, given, settings.rng_seed)
    elif labels is not None:
        raise Mistake(
            "there is no seed set; give `source`, or algorithm.seed_examples_per_client",
            key="labels",
            value=labels,
            table="seed_set",
        )
    else:
        return None
    return found.without_labels() if labels is False else found


def place_seed_set(
    settings: Settings, algorithm: Algorithm, seed: SeedSet | None
) -> tuple[Examples | None, Examples | None]:
    """Return the seed set that every client holds, and the examples that every client trains on besides its own.

    An algorithm without use for a seed set trains each client on it too, for comparisons at equal data.

    Args:
        settings: for messages.
        algorithm: bound to any of the models.
        seed: the seed set that the file asks for.

    Raises:
        Mistake: the algorithm needs a seed set and there is none, or has no use for one without labels.
    """
    name, needed = settings.algorithm["name"], algorithm.needs_seed_set
    if seed is None and needed:
        raise Mistake(
            f"`seed_examples_per_client` is missing; {name} needs a seed set, to which each client gives that many "
            "examples, or which seed_set.source names",
            table="algorithm",
        )
    if seed is None or needed:
        return None if seed is None else seed.examples, None
    if seed.examples.y is None:
        raise Mistake(
            f"{name} would learn from its labels alone; leave the seed set out",
            key="labels",
            value=False,
            table="seed_set",
        )
    return None, seed.examples


def _take_from_source(settings: Settings, ready: Standardized, other: Source) -> SeedSet:
    """Return examples of another source: all of a file of the user's own, the training examples of any other."""
    _check_alike(settings, ready.source, other)
    of_a_file = "path" in registry_keys(SOURCES, settings.seed_set["source"], settings.folders)
    examples = ready.scaling(_all_examples(other) if of_a_file else other.train)
    size = settings.seed_set.get("examples") or len(examples)
    with mistakes_in("seed_set"):
        return from_pool(examples, size, ready.clients, settings.rng_seed)


def _all_examples(source: Source) -> Examples:
    """Return training and test examples, in the order of the file where they share one pool."""
    train, test = source.train, source.test
    if test is None:
        return train
    return Examples(train.x, train.y) if test.x is train.x and test.y is train.y else pool_examples([train, test])


def _check_alike(settings: Settings, source: Source, other: Source) -> None:
    """Refuse another source unless its examples are of the clients' kind."""
    for what, ours, theirs in (
        ("shape", list(source.train.x.shape[1:]), list(other.train.x.shape[1:])),
        ("type", source.train.x.dtype, other.train.x.dtype),
        ("columns", source.feature_names, other.feature_names),
        ("number of classes", source.num_classes, other.num_classes),
    ):
        if ours is not None and theirs is not None and ours != theirs:
            raise Mistake(
                f"its examples have the {what} {toml_text(theirs)}, the clients' {toml_text(ours)}; a seed set must be "
                "of their kind",
                key="source",
                value=settings.seed_set["source"],
                table="seed_set",
            )
