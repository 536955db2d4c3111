"""From settings to a federation that is ready to run. Nothing is written, and every mistake is found."""

from __future__ import annotations

from collections import ChainMap
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from torch import nn

from coterie import api, attacks, data
from coterie.aggregation import aggregation
from coterie.core.algorithm import Recipe
from coterie.core.attack import Attack
from coterie.core.data import Clients, Examples
from coterie.core.errors import Mistake
from coterie.core.plan import Plan
from coterie.data import Source
from coterie.data.augment import Augment, augmentation
from coterie.data.seed_set import SeedSet, added, from_clients
from coterie.data.standardize import standardize
from coterie.experiment import check
from coterie.experiment.engine import Machine, make_engine, resolve_engine
from coterie.experiment.keys import keys_of
from coterie.experiment.lookup import ALGORITHMS, find, own
from coterie.experiment.settings import Settings, model_names
from coterie.models import registry


@dataclass(frozen=True)
class Experiment:
    """A federation, and what it was made from.

    Attributes:
        settings: resolved; nothing in them says "auto".
        models: by architecture, as their authors wrote them, with the initial weights.
        clients: as they were dealt. The plan's own differ where an algorithm pools them.
    """

    settings: Settings
    plan: Plan
    source: Source
    models: Mapping[str, nn.Module]
    clients: Clients


def build(settings: Settings, machine: Machine) -> Experiment:
    """The federation that the settings describe.

    Raises:
        Mistake: a value cannot be used, data are missing or damaged, or the model does not fit them.
    """
    settings = replace(settings, engine=resolve_engine(settings.engine, machine))
    engine, recipe = make_engine(settings.engine), _recipe(settings)
    aggregator, attack = aggregation(**_given(settings.aggregation)), _attack(settings)
    settings, source, clients = dealt(settings)
    seed = _seed_set(settings, clients)
    if source.test is None and settings.evaluate.target_accuracy is not None:
        raise Mistake(
            f"evaluate.target_accuracy = {settings.evaluate.target_accuracy}: "
            f"the source {source.name} has no test examples to measure it on"
        )
    models = [_model(settings, source, name) for name in model_names(settings)]
    plan = api.plan(
        recipe,
        models if len(models) > 1 else models[0],
        seed.clients if seed else clients,
        rounds=settings.rounds,
        cohort=settings.cohort,
        rng_seed=settings.rng_seed,
        test=source.test,
        own_test=_own_test(source, clients),
        evaluate_every=settings.evaluate.every,
        evaluate_clients=settings.evaluate.clients,
        num_classes=source.num_classes,
        augment=_augment(settings, source),
        aggregation=aggregator,
        faults=settings.faults,
        public=seed.examples if seed else None,
        attack=attack,
        engine=engine,
    )
    plan = _with_seed_set(settings, plan)
    check.fits(settings, plan, source)
    named = dict(zip(plan.tasks, models, strict=True))
    return Experiment(settings, plan, source, named, seed.clients if seed else clients)


def dealt(settings: Settings) -> tuple[Settings, Source, Clients]:
    """The settings with what depends on the source filled in, the source, and what each client holds.

    Raises:
        Mistake: data are missing or damaged, or cannot be dealt so.
    """
    source = _source(settings)
    settings = replace(settings, data=settings.data | _left_open(settings, source))
    ready = standardize(source, _clients(settings, source), settings.data["standardize"])
    return settings, ready.source, ready.clients


def _recipe(settings: Settings) -> Recipe:
    function = find("algorithm.name", settings.algorithm["name"], ALGORITHMS, settings.folders)
    given, taken = _given(settings.algorithm), keys_of(function)
    ours = {"name", "seed_examples_per_client"} - taken.keys()
    recipe: Recipe = function(**{k: v for k, v in given.items() if k not in ours})
    return recipe


def _given(table: Mapping[str, Any]) -> dict[str, Any]:
    """A table but for what was left out."""
    return {k: v for k, v in table.items() if v is not None}


def _attack(settings: Settings) -> Attack | None:
    return None if settings.attack["name"] == "none" else attacks.attack(**_given(settings.attack))


def _augment(settings: Settings, source: Source) -> Augment | None:
    name = settings.data["augment"]
    if name != "none" and source.train.x.dim() != 4:
        raise Mistake(f'data.augment = "{name}": the examples of the source {source.name} are no images; leave it out')
    return None if name == "none" else augmentation(name)


def _seed_set(settings: Settings, clients: Clients) -> SeedSet | None:
    number = settings.algorithm["seed_examples_per_client"]
    return None if number is None else from_clients(clients, number, settings.rng_seed)


def _with_seed_set(settings: Settings, plan: Plan) -> Plan:
    """The plan with the seed set where its algorithm wants it: for comparisons at equal data, an algorithm that has no
    use for one trains each client on it too.
    """
    wanted = plan.algorithm.needs_seed_set
    if wanted and plan.public is None:
        raise Mistake(
            f"algorithm.seed_examples_per_client is missing; {settings.algorithm['name']} needs a seed set, to which "
            "each client gives so many of its examples"
        )
    if wanted or plan.public is None:
        return plan
    return replace(plan, clients=added(plan.clients, plan.public), public=None)


def _source(settings: Settings) -> Source:
    name = settings.data["source"]
    if ":" in name:
        own("data.source", name, settings.folders)  # so that a module of the same name elsewhere is not taken
    taken = keys_of(data.sources.find(name, settings.folders))
    ours = {*_DEALT, "source", "standardize", "augment"} - taken.keys()
    options = {k: v for k, v in settings.data.items() if v is not None and k not in ours}
    seeded = {"rng_seed": settings.rng_seed} if "rng_seed" in taken else {}
    return data.load(name, folders=settings.folders, **options | seeded)


_DEALT = keys_of(data.deal).without(["source", "rng_seed"])


def _clients(settings: Settings, source: Source) -> Clients:
    dealt = {k: v for k, v in settings.data.items() if k in _DEALT and v is not None}
    return data.deal(source, rng_seed=settings.rng_seed, **dealt)


def _left_open(settings: Settings, source: Source) -> dict[str, str]:
    """What depends on the source where the file does not say it."""
    partition = "natural" if source.natural else "iid"
    how = "federated" if source.numeric else "none"
    return {
        "partition": settings.data["partition"] or partition,
        "standardize": settings.data["standardize"] or how,
    }


def _own_test(source: Source, clients: Clients) -> Mapping[str, Examples] | None:
    """Each client's own test examples, if every client has some."""
    found = data.own_test(source, clients)
    if not found or source.test is None or not all(client in found for client in clients):
        return None
    # "pooled" is the one client of an algorithm that pools all data; the others may be made on demand, so none is made
    return ChainMap(found, {"pooled": source.test})  # type: ignore[arg-type]


def _model(settings: Settings, source: Source, name: str) -> nn.Module:
    return registry.build(
        name,
        list(source.train.x.shape[1:]),
        source.num_classes,
        settings.rng_seed,
        importer=_importer(settings),
        **{k: v for k, v in _given(settings.model).items() if k not in ("name", "names")},
    )


def _importer(settings: Settings) -> Callable[[str], registry.ModelFunction]:
    return lambda name: own("model.name", name, settings.folders)
