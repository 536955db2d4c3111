"""Build a federation that is ready to run from settings. Nothing is written, and every mistake is found."""

from __future__ import annotations

import itertools
from collections import ChainMap
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

from torch import nn

from coterie import api, attacks, data
from coterie.aggregation import aggregation
from coterie.algorithms import ALGORITHMS
from coterie.core.aggregators import Aggregator
from coterie.core.algorithm import Algorithm, Recipe
from coterie.core.errors import Mistake, mistakes_in
from coterie.core.examples import Clients, Examples, pool_examples
from coterie.data import Source
from coterie.data.augment import Augment, augmentation
from coterie.data.model_inputs import Inputs, count_outputs, describe_inputs
from coterie.data.origins import Origins, collect_origins
from coterie.data.seed_set import SeedSet, add_to_clients
from coterie.data.standardize import Standardized
from coterie.data.unusual_data import remarks_on_data
from coterie.experiment.adapters import fill_in_adapters
from coterie.experiment.algorithm_options import complete_algorithm, find_algorithm, remarks_on_schedule
from coterie.experiment.check_fit import check_fit
from coterie.experiment.check_work import check_population, check_work
from coterie.experiment.choose_seed_set import choose_seed_set, place_seed_set
from coterie.experiment.choose_task import choose_task, mistakes_about_task
from coterie.experiment.deal_models import deal_models
from coterie.experiment.engine_choice import Machine
from coterie.experiment.estimate_work import estimate_work
from coterie.experiment.example_privacy import refuse_common_examples
from coterie.experiment.load_data import load_and_deal
from coterie.experiment.make_model import make_run_model
from coterie.experiment.privacy import fill_in_privacy, mistakes_about_privacy, remarks_on_delta
from coterie.experiment.read_keys import registry_keys
from coterie.experiment.resolve_engine import DTYPES, ResolvedEngine, check_engine, make_engine, resolve_engine
from coterie.experiment.settings import Settings, model_names
from coterie.experiment.starting_weights import Start, fill_in_weights, load_starting_weights, remarks_on_weights
from coterie.experiment.text_models import check_vocabulary, fill_in_text
from coterie.loop.attack import Attack
from coterie.loop.balance_classes import bytes_of_counting
from coterie.loop.plan import Plan
from coterie.models.functional import make_task
from coterie.models.model_parts import lr_scales
from coterie.objectives import accuracy, cross_entropy
from coterie.objectives.kinds import Kind
from coterie.probes import Probe
from coterie.track.clients_json import MAX_LAZY_CLIENTS

MAX_DESCRIBED_CLIENTS = 1000
"""How many clients are described of a population that is made on demand: each of them has to be made for it."""


@dataclass(frozen=True)
class Experiment:
    """A federation, and what it was made from.

    Attributes:
        settings: with nothing left open.
        models: by architecture, as their authors wrote them, with the initial weights. names: by architecture.
        clients: as they were dealt. Those of the plan differ where an algorithm pools them.
        starts: how each model starts; empty where all have initial weights of their own, or where the run had begun.
        inputs: what the models take, and what their outputs mean.
        bytes_once: what is sent once, before the first round, by what it is.
        remarks: on the data and on the settings, a sentence each.
        why: why the engine was chosen; empty where the file chooses it.
        origins: what the data were made from.
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
    origins: Origins

    def model_of(self, client: str) -> str:
        """Return the name of the client's model."""
        return self.names[self.plan.architecture(client)]

    def clients_to_describe(self) -> Clients:
        """Return the clients that the run folder describes: all of them, or the first of a population made on demand.

        The first are those that the first rounds ask; which ones that are is known before a run.
        """
        if isinstance(self.clients, dict) or len(self.clients) <= MAX_LAZY_CLIENTS:
            return self.clients
        plan = self.plan
        cohorts = (plan.draw_cohort(k) for k in range(1, plan.rounds + 1))
        by_number = plan.algorithm.traits.pooled or plan.guarantee is not None  # cohorts are a secret under a guarantee
        clients = iter(self.clients) if by_number else itertools.chain.from_iterable(cohorts)
        first = dict.fromkeys(itertools.islice(clients, MAX_DESCRIBED_CLIENTS))
        return {client: self.clients[client] for client in first}


@dataclass(frozen=True)
class Prepared:
    """What an experiment is made of, once its data are at hand.

    Attributes:
        settings: with what depends on the data and on the algorithm's options filled in.
        ready: the source and its clients, standardised.
        seed: the seed set that the file asks for, and the data that it leaves the clients.
        origins: what the data were made from.
        remarks: on the data, a sentence each.
    """

    settings: Settings
    ready: Standardized
    seed: SeedSet | None
    origins: Origins
    remarks: Sequence[str]


def build_experiment(settings: Settings, machine: Machine, start_folder: Path | None = None) -> Experiment:
    """Return the federation that the settings describe.

    The parts come first; from them follow the work, the engine and then, once, the plan.

    Args:
        settings: what to run.
        machine: where it runs.
        start_folder: where a run that has begun keeps the weights that it started from.

    Raises:
        Mistake: a value cannot be used, data are missing or damaged, or the model does not fit them.
    """
    check_engine(settings.engine, machine)
    settings = complete_algorithm(settings)
    _make_parts(settings)  # so that a wrong option is refused before data are read
    with collect_origins() as origins:
        settings, ready = load_and_deal(settings)
        seed = choose_seed_set(settings, ready)
    remarks = remarks_on_data(ready.source, ready.clients)
    return assemble_experiment(Prepared(settings, ready, seed, origins, remarks), machine, start_folder)


def assemble_experiment(prepared: Prepared, machine: Machine, start_folder: Path | None = None) -> Experiment:
    """Return the federation of settings and data; see `build_experiment`."""
    settings, ready, seed = prepared.settings, prepared.ready, prepared.seed
    recipe, aggregator, attack, probe = _make_parts(settings)
    schedule_remarks, source = remarks_on_schedule(settings), ready.source
    check_population(ready.clients, machine)
    held = seed.clients if seed else ready.clients
    _check_target(settings, source)
    settings, kind = choose_task(settings, source)
    settings = fill_in_text(fill_in_weights(settings), source, kind)
    shape, outputs = source.train.x.shape[1:], count_outputs(source, kind)
    models = {name: make_run_model(settings, name, shape, outputs) for name in model_names(settings)}
    check_vocabulary(settings, source, models)
    starts = load_starting_weights(settings, models, start_folder)
    settings = fill_in_adapters(settings, models)
    with mistakes_in("pretrain"):
        scales = lr_scales(models, settings.pretrain.lr_scale or {})
    dealt = deal_models(settings, models, ready.clients)
    algorithm = _bind(recipe, next(iter(models.values())), source, scales)
    seed_set, extra = place_seed_set(settings, algorithm, seed)
    chosen, why = _choose_engine(settings, machine, algorithm, list(models.values()), held, seed_set, extra)
    settings = fill_in_privacy(replace(settings, engine=chosen), 1 if algorithm.traits.pooled else len(held))
    refuse_common_examples(settings.privacy, extra)
    with (
        mistakes_in("algorithm"),
        _mistakes_about_evaluation(),
        _mistakes_about_models(settings),
        _mistakes_about_codec(),
        mistakes_about_task(),
        mistakes_about_privacy(),
    ):
        plan = api.plan(
            recipe,
            dealt,
            held,
            rounds=settings.rounds,
            cohort=settings.cohort,
            rng_seed=settings.rng_seed,
            test=source.test,
            own_test=_own_test(source, ready.clients),
            evaluate_every=settings.evaluate.every,
            evaluate_clients=settings.evaluate.clients,
            task=settings.task,
            metrics=settings.evaluate.metrics,
            num_classes=source.num_classes,
            augment=_augment(settings, source),
            aggregation=aggregator,
            up=settings.communication,
            faults=settings.faults,
            seed_set=seed_set,
            attack=attack,
            probe=probe,
            privacy=settings.privacy,
            lr_scale=settings.pretrain.lr_scale,
            engine=make_engine(chosen),
        )
    if extra is not None:  # after data were pooled and label shares counted
        plan = replace(plan, clients=add_to_clients(plan.clients, extra))
    check_fit(settings, plan)
    settings = settings if plan.example_privacy is None else replace(settings, privacy=plan.example_privacy)
    return Experiment(
        settings=settings,
        plan=plan,
        source=source,
        models=dict(zip(plan.tasks, models.values(), strict=True)),
        names=dict(zip(plan.tasks, models, strict=True)),
        clients=held,
        starts=starts,
        inputs=describe_inputs(source, ready.scaling, plan.algorithm.traits.predicts, kind),
        bytes_once={} if plan.algorithm.traits.pooled else _bytes_sent_once(settings, ready, seed, kind),
        remarks=[
            *prepared.remarks,
            *schedule_remarks,
            *remarks_on_delta(plan),
            *(remarks_on_weights(settings) if starts else []),
            *plan.algorithm.warnings(settings.rounds),
            *([] if probe is None else [probe.cost]),
        ],
        why=why,
        origins=prepared.origins,
    )


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


@contextmanager
def _mistakes_about_codec() -> Iterator[None]:
    """Name the table of the codec."""
    try:
        yield
    except Mistake as mistake:
        raise (mistake.in_table("communication") if mistake.key == "codec" else mistake) from mistake.__cause__


@contextmanager
def _mistakes_about_models(settings: Settings) -> Iterator[None]:
    """Name the keys of [model] as a file does, where `coterie.plan` names its argument."""
    names = model_names(settings)
    keys = {"model": ("name", names[0])} | {f"model[{k}]": ("names", name) for k, name in enumerate(names)}
    for client, name in settings.model.get("clients", {}).items():
        keys[f'model["{client}"]'] = (f"clients.{client}", name)
    try:
        yield
    except Mistake as mistake:
        if mistake.key not in keys:
            raise
        key, name = keys[mistake.key]
        raise Mistake(mistake.sentence, key=key, value=name, table="model") from mistake


class _Parts(NamedTuple):
    recipe: Recipe
    aggregator: Aggregator
    attack: Attack | None
    probe: Probe | None


def _make_parts(settings: Settings) -> _Parts:
    """Make what needs no data."""
    return _Parts(_recipe(settings), _aggregator(settings), _attack(settings), _probe(settings))


def _recipe(settings: Settings) -> Recipe:
    with mistakes_in("algorithm"):
        function = find_algorithm(settings)
        taken = registry_keys(ALGORITHMS, settings.algorithm["name"], settings.folders)
        ours = {"name", "seed_examples_per_client"} - taken.keys()
        recipe: Recipe = function(**{k: v for k, v in _without_none(settings.algorithm).items() if k not in ours})
    return recipe


def _aggregator(settings: Settings) -> Aggregator:
    with mistakes_in("aggregation"):
        return aggregation(**_without_none(settings.aggregation))


def _attack(settings: Settings) -> Attack | None:
    if settings.attack["name"] == "none":
        return None
    with mistakes_in("attack"):
        return attacks.attack(**_without_none(settings.attack))


def _probe(settings: Settings) -> Probe | None:
    with mistakes_in("probe"):
        return Probe(**settings.probe) if settings.probe else None


def _without_none(table: Mapping[str, Any]) -> dict[str, Any]:
    """Return a table without the keys that were left out."""
    return {k: v for k, v in table.items() if v is not None}


def _check_target(settings: Settings, source: Source) -> None:
    for key in ("target_accuracy", "metrics", "target", "patience"):
        value = getattr(settings.evaluate, key)
        if source.test is None and value is not None:
            sentence = f"the source {source.name} has no test examples to measure it on"
            raise Mistake(sentence, key=key, value=value, table="evaluate")


def _bind(recipe: Recipe, model: nn.Module, source: Source, scales: Mapping[str, Mapping[str, float]]) -> Algorithm:
    """Bind the algorithm to one model, to know what it needs and how many steps clients take."""
    task = make_task(
        model,
        loss=cross_entropy,
        metrics={"accuracy": accuracy},
        num_classes=source.num_classes,
        lr_scale=next(iter(scales.values())),
    )
    with mistakes_in("algorithm"):
        return recipe(task)


def _choose_engine(
    settings: Settings,
    machine: Machine,
    algorithm: Algorithm,
    models: Sequence[nn.Module],
    clients: Clients,
    seed_set: Examples | None,
    extra: Examples | None,
) -> ResolvedEngine:
    """Resolve [engine] for the work that these parts make."""
    if algorithm.traits.pooled:
        clients, cohort = {"pooled": pool_examples(clients.values())}, 1
    else:
        with mistakes_in("cohort"):
            cohort = settings.cohort.count(len(clients))
    clients = clients if extra is None else add_to_clients(clients, extra)
    work = estimate_work(
        algorithm,
        models,
        clients,
        rounds=settings.rounds,
        cohort=cohort,
        seed_set=seed_set,
        dtype=DTYPES[settings.engine.dtype],
    )
    check_work(settings, work, machine)
    engine = settings.engine
    if settings.privacy.secure_sum and engine.workers == "auto":  # its simulation is of one process
        engine = replace(engine, workers=1)
    return resolve_engine(engine, machine, work)


def _bytes_sent_once(
    settings: Settings, ready: Standardized, seed: SeedSet | None, kind: Kind | None
) -> dict[str, int]:
    """Return the bytes that all clients together send and receive before the first round, by what they are for."""
    once = {"standardize": len(ready.clients) * (ready.bytes_up + ready.bytes_down)}
    if seed is not None:
        once["seed_set"] = seed.bytes_up + seed.bytes_down
    if settings.task.class_weights == "balanced" and kind is not None:
        once["class_weights"] = bytes_of_counting(kind, len(ready.clients), count_outputs(ready.source, kind) or 1)
    return {what: sent for what, sent in once.items() if sent}


def _augment(settings: Settings, source: Source) -> Augment | None:
    name = settings.data["augment"]
    if name != "none" and source.train.x.dim() != 4:
        raise Mistake(
            f"the examples of the source {source.name} are not images; leave it out",
            key="augment",
            value=name,
            table="data",
        )
    return None if name == "none" else augmentation(name)


def _own_test(source: Source, clients: Clients) -> Mapping[str, Examples] | None:
    """Return each client's own test examples, if every client has some."""
    found = data.own_test(source, clients)
    if not found or source.test is None or not all(client in found for client in clients):
        return None
    # "pooled" is the one client of an algorithm that pools all data; the others may be made on demand, so none is made
    return ChainMap(found, {"pooled": source.test})  # type: ignore[arg-type]
