"""Load the data that a file names, and deal them to the clients."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import Any, NamedTuple

from coterie import data
from coterie.core.errors import mistakes_in
from coterie.core.examples import Clients
from coterie.data import SOURCES, Source
from coterie.data.standardize import Standardized, standardize
from coterie.experiment.read_keys import read_keys, registry_keys
from coterie.experiment.settings import Settings
from coterie.experiment.tables import partition_keys


class Dealt(NamedTuple):
    """The settings with what depends on the source filled in, the source, and its clients, before standardisation."""

    settings: Settings
    source: Source
    clients: Clients


def load_and_deal(settings: Settings) -> tuple[Settings, Standardized]:
    """Return the settings with what depends on the source filled in, and the standardised source and clients.

    Raises:
        Mistake: data are missing or damaged, or cannot be dealt so.
    """
    settings, source, clients = deal_rows(settings)
    with mistakes_in("data"):
        return settings, standardize(source, clients, settings.data["standardize"])


def deal_rows(settings: Settings) -> Dealt:
    """Load the source that the settings name, and deal it to clients.

    Raises:
        Mistake: data are missing or damaged, or cannot be dealt so.
    """
    dealing = read_keys("coterie.data.deal:deal").without(["source", "rng_seed"])
    keys_of_dealing = {*dealing, *partition_keys(settings.data["partition"])}
    with mistakes_in("data"):
        source = _load(settings, settings.data, {*keys_of_dealing, "standardize", "augment"})
        settings = replace(settings, data=settings.data | _fill_in(settings, source))
        given = {key: settings.data.get(key) for key in keys_of_dealing}
        given = {key: value for key, value in given.items() if value is not None}
        clients = data.deal(source, rng_seed=settings.rng_seed, **given)
        if settings.data["partition"] != "natural":
            source = replace(source, test_groups=None)  # the ids of test rows mean nothing for clients that we made up
        return Dealt(settings, source, clients)


def load_seed_source(settings: Settings) -> Source:
    """Return the source that [seed_set] names.

    Raises:
        Mistake: its data are missing or damaged.
    """
    with mistakes_in("seed_set"):
        return _load(settings, settings.seed_set, {"examples", "labels"})


def _load(settings: Settings, table: Mapping[str, Any], not_its_own: Collection[str]) -> Source:
    """Load the source that a table names, with the keys of the table that are the source's own."""
    name = table["source"]
    taken = registry_keys(SOURCES, name, settings.folders)
    ours = {*not_its_own, "source"} - taken.keys()
    options = {k: v for k, v in table.items() if v is not None and k not in ours}
    if "rng_seed" in taken:
        options["rng_seed"] = settings.rng_seed
    if "task" in taken and "task" not in options:
        options["task"] = settings.task.kind
    return data.load(name, folders=settings.folders, **options)


def _fill_in(settings: Settings, source: Source) -> dict[str, str]:
    """Return the partition and the standardisation, by default those that the source suggests."""
    return {
        "partition": settings.data["partition"] or ("natural" if source.natural else "iid"),
        "standardize": settings.data["standardize"] or ("federated" if source.numeric else "none"),
    }
