"""Check, before the first round, that a federation's models, loss, metrics and labels fit together.

Legend: B examples of a trial, C classes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from coterie.core.engine import Engine, as_input
from coterie.core.errors import Mistake, reason
from coterie.core.examples import Clients, Examples
from coterie.core.task import Metric, Score
from coterie.models.functional import Augment, Habits
from coterie.models.model_trial import try_model
from coterie.models.outputs import main_output, take_output
from coterie.models.usable_model import CLASS_AXIS
from coterie.objectives import accuracy
from coterie.objectives import kinds as task_kinds
from coterie.objectives.classification import IGNORE, require_fit, require_labels, tells_classes_apart
from coterie.objectives.loss_modules import ModuleLoss, check_module_loss
from coterie.objectives.objective import Objective

BATCH = 2
"""How many examples a model is tried on. One alone would hide that a forward mixes them up."""

SCORE = "a function (outputs [B, ...], y [B, ...]) -> (sums [B], counts [B]), not averaged over the examples"


class ModelTrial(NamedTuple):
    """One architecture's model, what it did on a few examples, and their labels [B, ...]."""

    model: nn.Module
    outputs: Any
    habits: Habits
    y: Tensor | None


Trials = Mapping[str, ModelTrial]
"""By architecture; empty where there are no examples to try a model on."""


def try_models(
    models: Mapping[str, nn.Module],
    clients: Clients,
    test: Examples | None,
    engine: Engine,
    augment: Augment | None,
    outputs: str | int | None = None,
    takes_all: bool = True,
) -> dict[str, ModelTrial]:
    """Try each architecture's model on two examples; see `coterie.models.model_trial`.

    They are training examples, or test examples where clients make theirs on demand. A model whose forward returns more
    than a tensor is changed, in place, so that it returns its outputs alone (see `coterie.models.outputs`): the entry
    `outputs`, or where that is None and not `takes_all`, the usual one.

    Raises:
        Mistake: a model cannot be used. Its key is the architecture.
    """
    examples = _examples_to_try(clients, test)
    if outputs is not None:
        for model in models.values():
            take_output(model, outputs)
    if examples is None:
        return {}
    x, y = examples.tensors()
    y = None if y is None else as_input(y, engine)
    trials = {name: _about(name, try_model, model, as_input(x, engine), augment) for name, model in models.items()}
    for name, trial in trials.items():
        if not takes_all and not isinstance(trial.outputs, Tensor):
            _about(name, main_output, trial.outputs, None)
            take_output(models[name], None)
            trials[name] = _about(name, try_model, models[name], as_input(x, engine), augment)
    return {name: ModelTrial(models[name], trial.outputs, trial.habits, y) for name, trial in trials.items()}


def require_examples(client: str, held: object) -> Examples:
    """Return what a client holds, if it is examples.

    Raises:
        Mistake: a mapping of the user's own makes something else.
    """
    if not isinstance(held, Examples):
        raise Mistake(
            f"they make a {type(held).__name__} for {client}; let them make coterie.Examples, such as "
            "coterie.data.as_examples(dataset)",
            key="clients",
        )
    return held


def sample_with_labels(clients: Clients, test: Examples | None) -> tuple[Tensor | None, Tensor | None]:
    """Return x and y of the pool that the first examples are from; those of the test set where clients are lazy."""
    lazy = not isinstance(clients, dict)
    sources = [test] if lazy and test is not None else clients.values()
    held = next((examples for examples in sources if len(examples)), None)
    return (None, None) if held is None else (held.x, held.labels())


def _examples_to_try(clients: Clients, test: Examples | None) -> Examples | None:
    """Return a batch of examples, of which one alone is taken twice; None if there are none."""
    lazy = not isinstance(clients, dict)
    sources = [test] if lazy and test is not None else (require_examples(*item) for item in clients.items())
    held = next((examples for examples in sources if len(examples)), None)
    return None if held is None else held.take(torch.arange(BATCH) % len(held))


def name_by_client(pattern: str, examples: object) -> list[tuple[str, Any]]:
    """Return what each client holds, with the name that a message gives it; nothing where it is made on demand.

    >>> name_by_client('clients["{}"]', {"a": 1})
    [('clients["a"]', 1)]
    """
    return [(pattern.format(client), each) for client, each in examples.items()] if isinstance(examples, dict) else []


def check_shapes(
    models: Mapping[str, nn.Module],
    clients: Clients,
    test: Examples | None,
    own_test: Mapping[str, Examples] | None,
    engine: Engine,
) -> None:
    """Check that every model takes the examples of all shapes, where they have several.

    Clients that make their examples on demand are not looked at.

    Raises:
        Mistake: a model does not. Its key is that of the first examples of the shape.
    """
    parts = name_by_client('clients["{}"]', clients)
    parts += [] if test is None else [("test", test)]
    parts += name_by_client('own_test["{}"]', own_test)
    first: dict[torch.Size, tuple[str, Examples]] = {}
    for key, examples in parts:
        if len(examples):
            first.setdefault(examples.x.shape[1:], (key, examples))
    for shape, (key, examples) in list(first.items())[1:]:
        x, _ = examples.take(torch.arange(BATCH) % len(examples)).tensors()
        for model in models.values():
            try:
                try_model(model, as_input(x, engine))
            except Mistake as mistake:
                raise Mistake(
                    f"its examples have the shape {list(shape)}, others {list(next(iter(first)))}, and not every model "
                    f"takes both: {mistake}",
                    key=key,
                ) from mistake.__cause__


def check_inputs(
    models: Mapping[str, nn.Module],
    clients: Clients,
    test: Examples | None,
    own_test: Mapping[str, Examples] | None,
    engine: Engine,
) -> None:
    """Check that inputs are finite numbers, or that every model takes those that are not.

    Clients that make their examples on demand are not looked at.

    Raises:
        Mistake: some are not, such as the gaps of a table. It names the client.
    """
    parts = name_by_client("client {}", clients) + name_by_client("own_test of client {}", own_test)
    parts += [] if test is None else [("test", test)]
    finite: dict[int, bool] = {}  # pools that many clients share are looked at once
    for what, examples in parts:
        pool = examples.x
        if id(pool) not in finite:
            # a sum is not finite if an entry is not, and takes a fraction of the time of looking at each
            finite[id(pool)] = not pool.is_floating_point() or bool(pool.sum().isfinite())
        broken = [] if finite[id(pool)] else _rows_not_finite(examples)
        if broken and not all(_takes(model, examples, broken[:BATCH], engine) for model in models.values()):
            raise Mistake(
                f"{what}: {len(broken)} of {len(examples)} examples hold numbers that are not finite, as the gaps of a "
                "table are, and the model gives nothing finite for them; fill gaps with "
                "coterie.data.standardize(source, clients), and use the source and the clients that it returns"
            )


def _rows_not_finite(examples: Examples) -> list[int]:
    """Return the numbers of the examples in which an entry is not finite."""
    x, _ = examples.tensors()
    return (~x.isfinite()).flatten(1).any(1).nonzero().flatten().tolist()


def _takes(model: nn.Module, examples: Examples, rows: list[int], engine: Engine) -> bool:
    """Return whether a model's outputs are finite for examples that are not."""
    x, _ = examples.take(torch.tensor(rows)).tensors()
    try:
        outputs = try_model(model, as_input(x, engine), None).outputs
    except Mistake:
        return False
    return isinstance(outputs, Tensor) and bool(outputs.isfinite().all())


def check_fit(
    trials: Trials, objective: Objective, metrics: Mapping[str, Score | Metric], num_classes: int | None
) -> None:
    """Check that every model's outputs, the loss, the metrics and the labels of the trial fit together.

    Raises:
        Mistake: they do not. Its key is the architecture, `loss` or `metrics`.
    """
    loss, kind = objective.loss, objective.kind
    for name, trial in trials.items():
        if objective.reads_classes and (trial.y is None or not trial.y.is_floating_point()):
            _about(name, _require_outputs, trial.outputs, len(require_labels(trial.y)))
            require_fit(trial.outputs, trial.y)
            _about(name, _require_classes, trial.outputs, num_classes)
            _about(name, _require_one_reading, trial.model, trial.outputs, trial.y)
        elif kind is not None and kind.labels != task_kinds.CLASSES:
            task_kinds.check_labels(kind, require_labels(trial.y), objective.ignore_index)
            _about(name, task_kinds.fit, kind, trial.outputs, trial.y)
        if trial.y is None:
            continue
        if not objective.reads_classes or isinstance(loss, ModuleLoss):
            _check_score("loss", loss, trial.outputs, trial.y)
        if isinstance(loss, ModuleLoss):
            check_module_loss(loss, trial.outputs, trial.y)
        for metric, measure in metrics.items():
            if measure is not accuracy:
                _check_measure(f"metrics.{metric}", measure, trial.outputs, trial.y)


def has_accuracy(trials: Trials, test: Examples | None) -> bool:
    """Return whether accuracy means something for the outputs of every model, the labels and the test's labels."""
    return all(
        trial.y is None
        or (
            tells_classes_apart(trial.outputs, trial.y)
            and not _is_ambiguous(trial.model, trial.outputs, trial.y)
            and (test is None or test.y is None or int(test.y.max()) < trial.outputs.shape[-1])
        )
        for trial in trials.values()
    )


def check_labels_of_kind(
    objective: Objective,
    clients: Clients,
    test: Examples | None,
    own_test: Mapping[str, Examples] | None,
    seed_set: Examples | None,
) -> None:
    """Check that labels are flags or numbers as the kind of task has them; nothing where the kind is not known.

    Clients that make their examples on demand are not looked at.

    Raises:
        Mistake: some are not. It names the examples.
    """
    if objective.kind is None:
        return
    parts = name_by_client('clients["{}"]', clients)
    parts += [("test", test), ("seed_set", seed_set)]
    parts += name_by_client('own_test["{}"]', own_test)
    first: torch.Size | None = None
    for key, examples in parts:
        y = None if examples is None else examples.labels()
        if y is not None and len(y):
            _about(key, task_kinds.check_labels, objective.kind, y, objective.ignore_index)
            first = y.shape[1:] if first is None else first
            if y.shape[1:] != first:
                raise Mistake(f"its labels have shape {list(y.shape)}, and others [n, {list(first)}]", key=key)


def check_labels(
    trials: Trials,
    clients: Clients,
    test: Examples | None,
    own_test: Mapping[str, Examples] | None,
    seed_set: Examples | None,
    ignore_index: int | None = None,
) -> None:
    """Check that labels are classes that the models' outputs have, in the type and shape that cross-entropy takes.

    Clients that make their examples on demand are not looked at.

    Raises:
        Mistake: some are not. It names the examples.
    """
    parts = name_by_client('clients["{}"]', clients)
    parts += [("test", test), ("seed_set", seed_set)]
    parts += name_by_client('own_test["{}"]', own_test)
    outputs = [trial.outputs for trial in trials.values() if isinstance(trial.outputs, Tensor)]
    right: set[int] = set()  # pools that many clients share are looked at once
    tried = _examples_to_try(clients, test)
    for key, examples in parts if outputs else ():
        if examples is not None and examples.y is not None and id(examples.y) not in right:
            is_like_tried = tried is not None and examples.x.shape[1:] == tried.x.shape[1:]  # others have other outputs
            for each in outputs if is_like_tried else ():
                _about(key, require_fit, each[:1].expand(len(examples.y), *each.shape[1:]), examples.y)
            if not _about(key, _labels_in_range, examples, min(each.shape[-1] for each in outputs), ignore_index):
                continue
            right.add(id(examples.y))


def _labels_in_range(examples: Examples, classes: int, ignore_index: int | None) -> bool:
    """Return whether all labels of a pool are classes; refuse examples of which some are not."""
    assert examples.y is not None
    if _in_range(examples.y, classes, ignore_index):
        return True
    y = examples.labels()
    assert y is not None
    if not _in_range(y, classes, ignore_index):
        raise Mistake(
            f"its labels are from {int(y.min())} to {int(y.max())}, but the model gives {classes} outputs, for classes "
            f"from 0 to {classes - 1}; give the model an output for each class"
        )
    return False


def _about(name: str, check: Callable[..., Any], *arguments: Any) -> Any:
    """Return what a check returns; a mistake that it raises gets the key `name`."""
    try:
        return check(*arguments)
    except Mistake as mistake:
        raise Mistake(str(mistake), key=name) from mistake.__cause__


def _in_range(y: Tensor, classes: int, ignore_index: int | None) -> bool:
    """Return whether every label is a class, or marks what does not count."""
    fine = ((y >= 0) & (y < classes)) | (y == IGNORE)
    return not y.numel() or bool((fine if ignore_index is None else fine | (y == ignore_index)).all())


def _require_outputs(outputs: object, examples: int) -> None:
    """Refuse what is not one tensor with a row for each example."""
    if not isinstance(outputs, Tensor):
        raise Mistake(
            f"its forward returns a {type(outputs).__name__}; it must return one tensor, a score for each class [B, C]"
        )
    if not outputs.dim() or len(outputs) != examples:
        raise Mistake(
            f"it gives outputs of shape {list(outputs.shape)} for {examples} examples; their first dimension must be "
            "the examples"
        )


def _require_classes(outputs: Tensor, num_classes: int | None) -> None:
    """Refuse outputs that are fewer than the classes."""
    if num_classes is not None and outputs.shape[-1] < num_classes:
        raise Mistake(f"it gives {outputs.shape[-1]} outputs for {num_classes} classes; let it take num_classes")


def _require_one_reading(model: nn.Module, outputs: Tensor, y: Tensor) -> None:
    """Refuse outputs that can be read in two ways."""
    if _is_ambiguous(model, outputs, y):
        raise Mistake(
            f"outputs of shape {list(outputs.shape)} for labels {list(y.shape)} can be read with the classes last or "
            f"second; set the model's attribute {CLASS_AXIS}: -1 if they are last, 1 if they are second"
        )


def _is_ambiguous(model: nn.Module, outputs: Tensor, y: Tensor) -> bool:
    """Return whether PyTorch's order of dimensions would fit too, and the model does not say which one it has."""
    several = y.dim() > 1 and y.shape == outputs.shape[:1] + outputs.shape[2:]
    return several and getattr(model, CLASS_AXIS, None) is None


def _check_measure(key: str, measure: Score | Metric, outputs: object, y: Tensor) -> None:
    """Refuse a metric that cannot take these outputs and labels."""
    if not isinstance(measure, Metric):
        return _check_score(key, measure, outputs, y)
    try:
        measure.value(measure.totals(outputs, y))  # type: ignore[arg-type]
    except Mistake as mistake:
        raise Mistake(str(mistake), key=key) from mistake.__cause__
    except Exception as error:  # anything that a library raises
        given = f"{str(y.dtype).removeprefix('torch.')} labels of shape {list(y.shape)}"
        raise Mistake(f"it cannot take the model's outputs and {given} ({reason(error)})", key=key) from error


def _check_score(key: str, score: Score, outputs: object, y: Tensor) -> None:
    """Refuse a loss or a metric that cannot take these outputs and labels, or that gives no number per example."""
    try:
        result = score(outputs, y)  # type: ignore[arg-type]
    except Mistake:
        raise
    except Exception as error:  # anything that a user's function raises
        shown = f"outputs of shape {list(outputs.shape)}" if isinstance(outputs, Tensor) else "the model's outputs"
        given = f"{str(y.dtype).removeprefix('torch.')} labels of shape {list(y.shape)}"
        raise Mistake(f"it cannot take {shown} and {given} ({reason(error)}); it must be {SCORE}", key=key) from error
    if not (isinstance(result, tuple) and len(result) == len(("sums", "counts"))):
        raise Mistake(f"it returns a {type(result).__name__}; it must be {SCORE}", key=key)
    shapes = [list(each.shape) if isinstance(each, Tensor) else type(each).__name__ for each in result]
    if shapes != [[len(y)], [len(y)]]:
        found = " and ".join(map(str, shapes))
        raise Mistake(f"it returns {found} for {len(y)} examples; it must be {SCORE}", key=key)
