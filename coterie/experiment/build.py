"""From settings to a federation that is ready to run. Nothing is written, and every mistake is found."""

from __future__ import annotations

import itertools
from collections import ChainMap
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import nn

from coterie import api, attacks, data
from coterie.aggregation import aggregation
from coterie.algorithms import ALGORITHMS
from coterie.core.algorithm import Recipe
from coterie.core.errors import Mistake, mistakes_in
from coterie.core.examples import Clients, Examples
from coterie.data import Source
from coterie.data.augment import Augment, augmentation
from coterie.data.model_inputs import Inputs, count_outputs, describe_inputs
from coterie.data.seed_set import SeedSet
from coterie.data.standardize import Standardized
from coterie.data.unusual_data import remarks_on_data
from coterie.experiment import check, model, start
from coterie.experiment.automatic import work_of
from coterie.experiment.dealing import load_and_deal
from coterie.experiment.engine import Machine, make_engine, reference, resolve_engine
from coterie.experiment.keys import keys_of
from coterie.experiment.lookup import find
from coterie.experiment.refuse import shown
from coterie.experiment.seed_set import seed_set, with_seed_set
from coterie.experiment.settings import Settings, model_names
from coterie.experiment.start import Start
from coterie.loop.attack import Attack
from coterie.loop.plan import Plan
from coterie.models.model_parts import lr_scales
from coterie.probes import Probe
from coterie.track.clients_json import MAX_LAZY_CLIENTS


@dataclass(frozen=True)
class Experiment:
    """A federation, and what it was made from.

    Attributes:
        settings: resolved; nothing in them says "auto". why: of what was chosen; empty where nothing was left open.
        models: by architecture, as their authors wrote them, with the initial weights. names: by architecture.
        clients: as they were dealt. The plan's own differ where an algorithm pools them.
        starts: how each model starts; none where all have initial weights of their own, or the run had begun.
        inputs: what the models take, and what their outputs mean.
        bytes_once: what is sent once, before the first round, by what it is.
        remarks: on the data, and on what was asked for, a sentence each.
    """

    settings: Settings
    plan: Plan
    source: Source
    models: Mapping[str, nn.Module]
    names: Mapping[str, str]
    clients: Clients
    starts: Sequence[Start]
    inputs: Inputs
    bytes_once: Mapping[str, int]
    remarks: Sequence[str]
    why: str

    def model_of(self, client: str) -> str:
        """The name of the client's model."""
        return self.names[self.plan.architecture(client)]

    def described(self) -> Clients:
        """The clients that are worth a look of their own: all of them; of a large population that is made on demand,
        those who are asked first. Who that will be is known before the first round.
        """
        if isinstance(self.clients, dict) or len(self.clients) <= MAX_LAZY_CLIENTS:
            return self.clients
        plan = self.plan
        cohorts = (plan.cohort.draw(plan.ids, plan.rng_seed, k, plan.available) for k in range(1, plan.rounds + 1))
        first = (
            itertools.chain(self.clients) if plan.algorithm.traits.pooled else itertools.chain.from_iterable(cohorts)
        )
        asked = dict.fromkeys(itertools.islice(first, MOST_DESCRIBED))
        return {client: self.clients[client] for client in asked}


MOST_DESCRIBED = 1000
"""Of a population made on demand, at most so many are described: each has to be made for it."""


@contextmanager
def _mistakes_about_evaluation() -> Iterator[None]:
    """Name the keys of [evaluate] as a file does, where `coterie.plan` has other names for these arguments."""
    try:
        yield
    except Mistake as mistake:
        if mistake.key not in ("evaluate_every", "evaluate_clients"):
            raise
        key = mistake.key.removeprefix("evaluate_")
        sentence, value, allowed = mistake.sentence, mistake.value, mistake.allowed
        raise Mistake(sentence, key=key, value=value, allowed=allowed, table="evaluate") from mistake


@_mistakes_about_evaluation()
def build(settings: Settings, machine: Machine, kept: Path | None = None) -> Experiment:
    """The federation that the settings describe.

    Args:
        settings: what to run.
        machine: where.
        kept: where a run that has begun keeps what its models began with.

    Raises:
        Mistake: a value cannot be used, data are missing or damaged, or the model does not fit them.
    """
    engine, recipe = reference(settings.engine, machine), _recipe(settings)
    with mistakes_in("aggregation"):
        aggregator = aggregation(**_given(settings.aggregation))
    with mistakes_in("attack"):
        attack = _attack(settings)
    with mistakes_in("probe"):
        probe = Probe(**settings.probe) if settings.probe else None
    settings, ready = load_and_deal(settings)
    source, clients, seed = ready.source, ready.clients, seed_set(settings, ready)
    if source.test is None and settings.evaluate.target_accuracy is not None:
        raise Mistake(
            f"evaluate.target_accuracy = {settings.evaluate.target_accuracy}: "
            f"the source {source.name} has no test examples to measure it on"
        )
    settings = start.settled(settings)
    shape, outputs = source.train.x.shape[1:], count_outputs(source)
    models = {name: model.of_run(settings, name, shape, outputs) for name in model_names(settings)}
    starts = start.begin(settings, models, kept)
    with mistakes_in("pretrain"):
        lr_scales(models, settings.pretrain.lr_scale or {})  # here, since the plan would not name the table
    plan = api.plan(
        recipe,
        _dealt_models(settings, models, clients),
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
        seed_set=seed.examples if seed else None,
        attack=attack,
        probe=probe,
        lr_scale=settings.pretrain.lr_scale,
        engine=engine,
    )
    plan = with_seed_set(settings, plan)
    check.fits(settings, plan, source)
    chosen, why = resolve_engine(settings.engine, machine, work_of(plan, list(models.values())))
    settings, plan = replace(settings, engine=chosen), api.on_engine(plan, make_engine(chosen))
    named, names = dict(zip(plan.tasks, models.values(), strict=True)), dict(zip(plan.tasks, models, strict=True))
    once = {} if plan.algorithm.traits.pooled else _sent_once(ready, seed)
    inputs = describe_inputs(source, ready.scaling, plan.algorithm.traits.predicts)
    said = [*remarks_on_data(source, clients), *plan.algorithm.warnings(settings.rounds)]
    said += [] if probe is None else [probe.cost]
    held = seed.clients if seed else clients
    return Experiment(settings, plan, source, named, names, held, starts, inputs, once, said, why)


def _sent_once(ready: Standardized, seed: SeedSet | None) -> dict[str, int]:
    """Bytes that all clients together send and are sent before the first round, by what they are for."""
    once = {"standardize": len(ready.clients) * (ready.bytes_up + ready.bytes_down)}
    if seed is not None:
        once["seed_set"] = seed.bytes_up + seed.bytes_down
    return {what: sent for what, sent in once.items() if sent}


def _recipe(settings: Settings) -> Recipe:
    function = find("algorithm.name", settings.algorithm["name"], ALGORITHMS, settings.folders)
    given, taken = _given(settings.algorithm), keys_of(function)
    ours = {"name", "seed_examples_per_client"} - taken.keys()
    with mistakes_in("algorithm"):
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


def _own_test(source: Source, clients: Clients) -> Mapping[str, Examples] | None:
    """Each client's own test examples, if every client has some."""
    found = data.own_test(source, clients)
    if not found or source.test is None or not all(client in found for client in clients):
        return None
    # "pooled" is the one client of an algorithm that pools all data; the others may be made on demand, so none is made
    return ChainMap(found, {"pooled": source.test})  # type: ignore[arg-type]


def _dealt_models(settings: Settings, models: Mapping[str, nn.Module], clients: Clients) -> api.Models:
    """The one model of all; or several, dealt in turn, or named for each client.

    Raises:
        Mistake: a client has no model, or a model no client.
    """
    of: dict[str, str] = settings.model.get("clients", {})
    unknown = [client for client in of if client not in clients]
    missing = [client for client in clients if client not in of] if of else []
    if unknown:
        few = ", ".join(itertools.islice(clients, 10)) + (", ..." if len(clients) > 10 else "")
        raise Mistake(f"model.clients.{unknown[0]} = {shown(of[unknown[0]])}: there is no such client; there are {few}")
    if missing:
        raise Mistake(f"model.clients.{missing[0]} is missing; name a model for each of the {len(clients)} clients")
    if len(models) == 1:
        return next(iter(models.values()))
    if of:
        return {client: models[name] for client, name in of.items()}
    return [models[name] for name in settings.model["names"]]
