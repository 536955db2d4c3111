"""The entry points of the library: make a federation from an algorithm, a model and clients, and run it."""

from __future__ import annotations

import secrets
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Required, SupportsIndex, TypedDict, Unpack

from torch import Tensor, nn

from coterie.core.aggregators import Aggregator, Sum
from coterie.core.algorithm import Algorithm, Recipe
from coterie.core.engine import Engine
from coterie.core.errors import Mistake, mistakes_in, require
from coterie.core.examples import Clients, Examples, pool_examples, sizes
from coterie.core.registry import nearest
from coterie.core.task import Task
from coterie.core.task_options import TaskOptions
from coterie.core.transforms import Transform, chain, identity
from coterie.data.as_examples import (
    ClientPairs,
    Pairs,
    as_clients,
    as_examples,
    change_examples,
    check_when_read,
    read_all,
)
from coterie.engines.sequential import Sequential
from coterie.loop import check_model, example_plan
from coterie.loop import federate as loop
from coterie.loop.attack import Attack
from coterie.loop.balance_classes import balance_classes
from coterie.loop.check_arguments import check_clients, check_examples, check_kinds, check_recipe
from coterie.loop.class_order import count_classes, count_outputs, order_classes, require_classes_for
from coterie.loop.cohort import Available, Cohort
from coterie.loop.communication import Communication
from coterie.loop.evaluate import Evaluation, label_shares
from coterie.loop.faults import Faults
from coterie.loop.given_models import Models, copy_to_engine, mistakes_about, name_architectures, say_habits
from coterie.loop.label_form import choose_form
from coterie.loop.plan import Plan, Probe, Resume, Round
from coterie.loop.private_plan import check_private, complete_privacy
from coterie.models.functional import Augment, initial_weights, make_task
from coterie.models.model_parts import lr_scales
from coterie.objectives import cross_entropy
from coterie.objectives.kinds import Kind
from coterie.objectives.objective import Loss, Metrics, as_options, choose_kind, make_measures, make_objective
from coterie.objectives.task_losses import place_loss
from coterie.privacy.table import Privacy
from coterie.processes.team import ALONE, Team


class PlanOptions(TypedDict, total=False):
    """The keyword arguments of `plan`, for functions that pass them on."""

    rounds: Required[int]
    cohort: float | int | Cohort | None
    rng_seed: int
    test: Examples | Pairs | None
    own_test: Clients | ClientPairs | None
    evaluate_every: int
    evaluate_clients: bool
    task: TaskOptions | str | None
    loss: Loss
    metrics: Metrics
    num_classes: int | None
    augment: Augment | None
    aggregation: Aggregator | None
    up: Transform | Communication | None
    faults: Faults | None
    available: Available | None
    seed_set: Examples | Pairs | None
    attack: Attack | None
    probe: Probe | None
    privacy: Privacy | None
    lr_scale: Mapping[str, float] | None
    outputs: str | int | None
    engine: Engine | None
    team: Team
    public: Examples | None


def federate(
    algorithm: Recipe,
    model: Models,
    clients: Clients | ClientPairs,
    *,
    resume: Resume | None = None,
    keep_updates: bool = False,
    **options: Unpack[PlanOptions],
) -> Iterator[Round]:
    """Run a federation, and yield each round when it is complete.

    Args:
        algorithm: an algorithm with its options, such as `coterie.fedavg(lr=0.1)`, or a recipe of your own.
        model: an `nn.Module`, whose current weights are the start. It is copied, never changed. For algorithms that
            allow clients to differ, several models, which are dealt to the clients in turn, or a mapping from client to
            model.
        clients: client id -> `Examples`, a pair (x, y) of arrays, or a `Dataset` of PyTorch, which is read when the
            client is first asked (see `coterie.data.as_examples`); or a list of such. A mapping of your own may make
            `Examples` on demand.
        resume: where a stopped run continues.
        keep_updates: whether each round carries the accepted updates.
        **options: the other arguments of `plan`.

    Raises:
        Mistake: an argument cannot be used.

    >>> import torch
    >>> x = torch.randn(20, 2)
    >>> clients = {"a": Examples(x, (x[:, 0] > 0).long())}
    >>> from coterie.algorithms import fedavg
    >>> for round in federate(fedavg(lr=0.1), nn.Linear(2, 2), clients, rounds=2):
    ...     print(round.round, round.reached)
    1 1
    2 1
    """
    _check_names(options)
    resume_kind = "a coterie.Resume, or left out"
    require("resume", type(resume).__name__, resume is None or isinstance(resume, Resume), resume_kind)
    _check_resumed_privacy(options.get("privacy"), resume)
    federation = plan(algorithm, model, clients, **options)
    for text in federation.algorithm.warnings(federation.rounds):
        warnings.warn(f"coterie: {text}", stacklevel=2)
    return loop.federate(federation, resume, keep_updates)


def _check_names(options: Mapping[str, object]) -> None:
    """Refuse arguments that `plan` does not have, and a missing number of rounds."""
    for name in options:
        if name not in PlanOptions.__annotations__:
            near = nearest(name, PlanOptions.__annotations__)
            hint = f"did you mean `{near}`?" if near else f"there are {', '.join(PlanOptions.__annotations__)}"
            how = "how clients train belongs to the algorithm: coterie.fedavg(lr=0.1, momentum=0.9), and a server's "
            how += "optimiser too: coterie.fedadam(...)"
            sentence = how if name in ("optimizer", "optim", "lr") else hint
            raise Mistake(f"there is no such argument; {sentence}", key=name)
    if "rounds" not in options:
        raise Mistake("it is missing; it must be a whole number, 1 or more", key="rounds")


def plan(
    algorithm: Recipe,
    model: Models,
    clients: Clients | ClientPairs,
    *,
    rounds: int,
    cohort: float | int | Cohort | None = None,
    rng_seed: int = 0,
    test: Examples | Pairs | None = None,
    own_test: Clients | ClientPairs | None = None,
    evaluate_every: int = 1,
    evaluate_clients: bool = False,
    task: TaskOptions | str | None = None,
    loss: Loss = cross_entropy,
    metrics: Metrics = None,
    num_classes: int | None = None,
    augment: Augment | None = None,
    aggregation: Aggregator | None = None,
    up: Transform | Communication | None = None,
    faults: Faults | None = None,
    available: Available | None = None,
    seed_set: Examples | Pairs | None = None,
    attack: Attack | None = None,
    probe: Probe | None = None,
    privacy: Privacy | None = None,
    lr_scale: Mapping[str, float] | None = None,
    outputs: str | int | None = None,
    engine: Engine | None = None,
    team: Team = ALONE,
    public: Examples | None = None,
) -> Plan:
    """Return a federation that is ready for `coterie.loop.federate`.

    Args:
        algorithm, model, clients: see `federate`.
        rounds: how many rounds there are.
        cohort: which clients a round asks: a fraction of them (a float), a number (an int), or all by default. An
            algorithm that pools all data ignores it, and `available`, `aggregation`, `up`, `faults` and `attack`.
        rng_seed: everything random follows from it.
        test: the test data of all. own_test: each client's own. They are given as clients' data are.
        evaluate_every: evaluate every N rounds, and always the last one. evaluate_clients: measure each client's own
            accuracy too.
        task: the kind of task, such as "binary", or a `coterie.TaskOptions` with a loss and its options; by default
            what the labels say.
        loss: a loss of `torch.nn`, or a `Score`; by default the kind's.
        metrics: names (see `coterie.objectives.metrics.names`), in addition to the kind's own; or a mapping from names
            to a `Score` or a metric of torchmetrics each.
        num_classes: how many classes there are, where test labels do not show it.
        augment: changes training examples at random, such as `coterie.data.augmentation("crop_flip")`.
        aggregation: how updates are aggregated; by default their weighted mean.
        up: encodes updates before they travel: a `coterie.Communication`, which leaves alone what must not be rounded,
            or a transform of your own for the whole update. A codec of the algorithm's own comes after it.
        faults: the probabilities that a client of the cohort fails. available: (round, client) -> whether it can be
            asked.
        seed_set: examples that every client holds, given as a client's are.
        attack: harm that some clients do, to measure how well the aggregator withstands it.
        probe: further measures of some rounds, such as a `coterie.probes.Probe`. A probed round keeps its whole
            cohort's updates in memory.
        privacy: the guarantee that the run gives, a `coterie.Privacy`; by default none.
        lr_scale: factors on the learning rate by part of the model, as in `coterie.models.model_parts.lr_scales`.
        outputs: which entry of what the model returns are its outputs, where that is a tuple, a dict or an object: its
            place or its name. By default "logits", or the only tensor; a loss of your own gets all of it.
        engine: runs the clients' work; by default one client after another.
        team: the processes that run the federation together; see `coterie.processes.process_group`. All of them must be
            given the same arguments, and call this function together: the secret of a guarantee is drawn in the first.
        public: the earlier name of `seed_set`. It still works in this version, with a warning.

    The models are tried on two examples (see `coterie.models.model_trial`). Where outputs and labels do not say which
    class is right, as with one output or labels that are numbers, there is no accuracy unless `metrics` has one.

    Raises:
        Mistake: an argument cannot be used, or the model, the loss and the labels do not fit together.
    """
    check_recipe(algorithm)
    held: Clients = as_clients(clients)
    check_clients(held)
    check_kinds(
        {
            "rounds": rounds,
            "cohort": cohort,
            "rng_seed": rng_seed,
            "evaluate_every": evaluate_every,
            "evaluate_clients": evaluate_clients,
            "loss": loss,
            "metrics": metrics,
            "num_classes": num_classes,
            "augment": augment,
            "available": available,
            "aggregation": aggregation,
            "up": up,
            "faults": faults,
            "attack": attack,
            "probe": probe,
            "privacy": privacy,
            "lr_scale": lr_scale,
            "outputs": outputs,
            "engine": engine,
        }
    )
    require("rounds", rounds, rounds >= 1, "1 or more")
    if public is not None:
        if seed_set is not None:
            raise Mistake("it is the earlier name of `seed_set`; give one of the two", key="public")
        warnings.warn("coterie: public= is now called seed_set=", FutureWarning, stacklevel=2)
        seed_set = public
    test = None if test is None else as_examples(test, "test")
    seed_set = None if seed_set is None else as_examples(seed_set, "seed_set")
    own_test = None if own_test is None else as_clients(own_test, "own_test")
    check_examples(held, test, own_test)
    engine = engine or Sequential()
    ids: Sequence[str] = tuple(held)
    given, architecture, keys = name_architectures(model, ids)
    models = {name: copy_to_engine(m, engine, keys[name]) for name, m in given.items()}
    scales = lr_scales(given, lr_scale or {})
    options = as_options(task)
    check_model.check_inputs(models, held, test, own_test, engine)
    with mistakes_about(keys):
        takes_all = loss is not cross_entropy and not isinstance(loss, nn.Module)
        trials = check_model.try_models(models, held, test, engine, augment, outputs, takes_all)
    form = choose_form(options, loss, trials)
    if form is not None:
        held, test, seed_set = change_examples(held, form), form.of_set(test), form.of_set(seed_set)
        own_test = None if own_test is None else change_examples(own_test, form)
        trials = {
            name: trial._replace(y=None if trial.y is None else form.of(trial.y)) for name, trial in trials.items()
        }
    check_model.check_shapes(models, held, test, own_test, engine)
    say_habits(trials, keys)
    x, y = check_model.sample_with_labels(held, test)
    kind, doubt = _choose_kind(options, loss, x, y)
    held = read_all(held) if options.class_weights == "balanced" else held  # every label is counted
    weights = balance_classes(options, kind, held, num_classes)
    objective = make_objective(kind, options, loss, weights)
    objective = replace(objective, loss=place_loss(objective.loss, engine.device, engine.dtype))
    if objective.reads_classes:
        trials = order_classes(trials)
    measures = make_measures(
        objective, metrics, count_outputs(trials, objective, num_classes), check_model.has_accuracy(trials, test)
    )
    classes = num_classes or count_classes(test, objective)
    tasks = engine.prepare(
        {
            name: make_task(
                m,
                loss=objective.loss,
                metrics=measures,
                num_classes=classes,
                augment=augment,
                lr_scale=scales[name],
                habits=trials[name].habits if trials else None,
            )
            for name, m in models.items()
        }
    )
    algorithms = _bind(algorithm, tasks, probe)
    first = next(iter(algorithms.values()))
    if first.traits.predicts:
        if doubt is not None:
            raise doubt
        require_classes_for(first.traits, kind)
        with mistakes_about(keys):
            check_model.check_fit(trials, objective, measures, num_classes)
        reads_classes = objective.reads_classes and not (y is not None and y.is_floating_point() and kind is None)

        def check_labels(
            held: Clients, test: Examples | None, own_test: Clients | None, seed_set: Examples | None
        ) -> None:
            """Check labels as the task reads them."""
            if reads_classes:
                check_model.check_labels(trials, held, test, own_test, seed_set, objective.ignore_index)
            else:
                check_model.check_labels_of_kind(objective, held, test, own_test, seed_set)

        check_labels(held, test, own_test, seed_set)
        held = check_when_read(held, lambda client, each: check_labels({client: each}, None, None, None))
    if first.traits.pooled and len(models) > 1:
        raise Mistake("an algorithm that pools all data trains one model; give one, not several")
    if first.traits.pooled:
        held, ids, architecture = (
            {"pooled": pool_examples(held.values())},
            ("pooled",),
            lambda client: next(iter(models)),
        )
        # these arguments are about many clients, and now there is one
        cohort = available = aggregation = up = faults = attack = None
    initial = {name: initial_weights(m) for name, m in models.items()}
    hiding = privacy if privacy is not None and privacy.unit == "example" else None
    if hiding is not None:
        problem = _example_obstacle(weights is not None, probe, evaluate_clients and own_test is None)
        hiding = example_plan.complete_example_privacy(hiding, first, sizes(held, ids), rounds, problem)
        tasks, algorithms = example_plan.protect_plan(hiding, algorithm, tasks, initial)
        first = next(iter(algorithms.values()))
    chosen_rule = aggregation or Sum()
    chosen = up.transform(first, chosen_rule, engine.dtype) if isinstance(up, Communication) else up
    codec = _join_codecs(chosen, first.codec)
    wants_own = own_test is None and hiding is None and (evaluate_clients or first.traits.own_models)
    shares = label_shares(held, classes) if wants_own and classes and "accuracy" in measures else None
    federation = Plan(
        recipe=algorithm,
        tasks=tasks,
        algorithms=algorithms,
        initial=initial,
        architecture=architecture,
        clients=held,
        ids=ids,
        engine=engine,
        rounds=rounds,
        rng_seed=rng_seed,
        cohort=_as_cohort(cohort),
        available=available,
        aggregator=chosen_rule,
        codec=codec,
        faults=faults or Faults(),
        evaluation=_evaluation(test, evaluate_every, evaluate_clients, own_test, shares),
        seed_set=seed_set,
        attack=attack,
        probe=probe,
        team=team,
        privacy=hiding or privacy,
        secret="" if hiding is None else _draw_secret(team),
    )
    if probe is not None:
        probe.check_plan(federation)
    if privacy is None or privacy.unit != "client":
        return federation
    if options.class_weights == "balanced":
        raise Mistake("they are counts of clients' labels, which no noise protects; give numbers", key="class_weights")
    return _make_private(federation, privacy)


def _check_resumed_privacy(privacy: Privacy | None, resume: Resume | None) -> None:
    """Refuse to choose another noise for a federation that goes on under a guarantee.

    Raises:
        Mistake: the noise that it began with is not given.
    """
    if resume is None or privacy is None or privacy.unit == "none":
        return
    if privacy.noise_multiplier is None or privacy.delta is None:
        raise Mistake(
            "a federation that goes on must keep the noise that it began with; give `noise_multiplier` and `delta`, as "
            "the plan of its rounds has them",
            key="resume",
        )


def _make_private(federation: Plan, privacy: Privacy) -> Plan:
    """Return the plan with a guarantee, whose noise is known; refuse one in which something would escape it."""
    complete = complete_privacy(privacy, federation.cohort, len(federation.ids), federation.rounds)
    private = replace(federation, privacy=complete, secret=_draw_secret(federation.team))
    check_private(private)
    return private


def _draw_secret(team: Team) -> str:
    """Return a new secret, the same in all processes. Collective: every process calls it."""
    return team.gather(secrets.token_hex(32))[0]


def _choose_kind(
    options: TaskOptions, loss: Loss, x: Tensor | None, y: Tensor | None
) -> tuple[Kind | None, Mistake | None]:
    """Return the kind of task; or the doubt about it, which does not matter to an algorithm that reads no labels."""
    try:
        return choose_kind(options, loss, x, y), None
    except Mistake as mistake:
        if options.kind is not None:
            raise
        return None, mistake


def _evaluation(
    test: Examples | None,
    every: int,
    clients: bool,
    own: Mapping[str, Examples] | None,
    shares: Mapping[str, Tensor] | None,
) -> Evaluation:
    """Return how the federation is evaluated; refuse values by the names that `plan` gives them."""
    try:
        return Evaluation(test, every, clients, own, shares)
    except Mistake as mistake:  # `plan` has other names for these arguments
        key = f"evaluate_{mistake.key}"
        raise Mistake(mistake.sentence, key=key, value=mistake.value, allowed=mistake.allowed) from mistake


def _join_codecs(chosen: Transform | None, algorithms_own: Transform | None) -> Transform:
    """Return the user's codec followed by the algorithm's, so that the user's gets the numbers unchanged."""
    given = [transform for transform in (chosen, algorithms_own) if transform is not None]
    return chain(*given) if len(given) > 1 else given[0] if given else identity()


def _example_obstacle(weighs_classes: bool, probe: Probe | None, counts_labels: bool) -> str | None:
    """Return why a plan cannot hide single examples, in a sentence that says what to do; None where it can."""
    if weighs_classes:
        return "class weights come from labels, or weigh examples against one another; leave out task.class_weights"
    if probe is not None:
        return "a probe may look at clients' own examples; leave it out"
    if counts_labels:
        return "clients' own accuracies are weighted by their labels; leave out `evaluate_clients`, or give `own_test`"
    return None


def _bind(algorithm: Recipe, tasks: Mapping[str, Task], probe: Probe | None) -> dict[str, Algorithm]:
    """Return each architecture's algorithm, extended by the probe if there is one; refuse anything but an algorithm."""
    recipe = algorithm if probe is None else probe.extend_algorithm(algorithm)
    bound = {name: recipe(task) for name, task in tasks.items()}
    for result in bound.values():
        if not isinstance(result, Algorithm):
            sentence = f"it returns a {type(result).__name__} for a task; it must return a coterie.Algorithm"
            raise Mistake(sentence, key="algorithm")
    return bound


def _as_cohort(cohort: float | int | Cohort | None) -> Cohort:
    """Return the cohort for a fraction (float), a number (int) or None (all clients)."""
    if isinstance(cohort, Cohort):
        return cohort
    with mistakes_in("cohort"):
        # `SupportsIndex` are whole numbers of any library; NumPy's are no `int`
        return Cohort(size=int(cohort)) if isinstance(cohort, SupportsIndex) else Cohort(fraction=cohort)
