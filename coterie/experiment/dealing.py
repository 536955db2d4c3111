"""From settings to data: the source that a file names, and what each client holds of it."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import Any

from coterie import data
from coterie.core.errors import Mistake
from coterie.core.examples import Clients
from coterie.data import Source, flower
from coterie.data.standardize import Standardized, standardize
from coterie.experiment.keys import keys_of
from coterie.experiment.lookup import own
from coterie.experiment.settings import Settings


def dealt(settings: Settings) -> tuple[Settings, Standardized]:
    """The settings with what depends on the source filled in, and the source with what each client holds of it.

    Raises:
        Mistake: data are missing or damaged, or cannot be dealt so.
    """
    not_its_own = {*_DEALT, *_of_partitioner(settings), "standardize", "augment"}
    source = _loaded(settings, "data", settings.data, not_its_own)
    settings = replace(settings, data=settings.data | _left_open(settings, source))
    clients = _clients(settings, source)
    if settings.data["partition"] != "natural":
        source = replace(source, test_groups=None)  # whose the test rows are says nothing of clients that were made up
    return settings, standardize(source, clients, settings.data["standardize"])


def seed_source(settings: Settings) -> Source:
    """The source that [seed_set] names.

    Raises:
        Mistake: its data are missing or damaged.
    """
    try:
        return _loaded(settings, "seed_set", settings.seed_set, {"examples", "labels"})
    except Mistake as mistake:
        said = str(mistake)  # of its keys a source speaks as of those of [data]
        raise Mistake(f"seed_set.{said.removeprefix('data.')}" if said.startswith("data.") else said) from mistake


def _loaded(settings: Settings, table: str, given: Mapping[str, Any], not_its_own: set[str]) -> Source:
    name = given["source"]
    if ":" in name:
        own(f"{table}.source", name, settings.folders)  # so that a module of the same name elsewhere is not taken
    taken = keys_of(data.sources.find(name, settings.folders))
    ours = {*not_its_own, "source"} - taken.keys()
    options = {k: v for k, v in given.items() if v is not None and k not in ours}
    seeded = {"rng_seed": settings.rng_seed} if "rng_seed" in taken else {}
    return data.load(name, folders=settings.folders, **options | seeded)


_DEALT = keys_of(data.deal).without(["source", "rng_seed"])


def _clients(settings: Settings, source: Source) -> Clients:
    given = {k: v for k, v in settings.data.items() if v is not None}
    dealt = {k: v for k, v in given.items() if k in _DEALT}
    if flower.named(given.get("partition")):
        own = {k: given[k] for k in _of_partitioner(settings) if k in given}
        made = flower.partitioner(given["partition"], given.get("num_clients"), settings.rng_seed, own)
        dealt = {k: v for k, v in dealt.items() if k not in own} | {"partition": made}
    return data.deal(source, rng_seed=settings.rng_seed, **dealt)


def _of_partitioner(settings: Settings) -> Collection[str]:
    """The keys of the chosen partitioner of flwr-datasets."""
    partition = settings.data["partition"]
    return flower.own_arguments(partition) if flower.named(partition) else ()


def _left_open(settings: Settings, source: Source) -> dict[str, str]:
    """What depends on the source where the file does not say it."""
    partition = "natural" if source.natural else "iid"
    how = "federated" if source.numeric else "none"
    return {
        "partition": settings.data["partition"] or partition,
        "standardize": settings.data["standardize"] or how,
    }
