"""Metrics against torchmetrics and scikit-learn: the value of all examples, from totals of parts of them."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

import coterie
from coterie import Examples, Mistake, TaskOptions
from coterie.core.task import Metric
from coterie.objectives.kinds import KINDS
from coterie.objectives.metrics import make_metric
from coterie.objectives.metrics.curves import BINS, _bins

pytest.importorskip("torchmetrics")


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


N = 300
SCORES, NOISE = draw(N, 4), draw(N, 4, seed=1)
CLASSES = (SCORES + NOISE).argmax(1)
FLAGS = (SCORES[:, :3] + NOISE[:, :3] > 0.5).long()
NUMBERS = SCORES[:, :2] + 0.3 * NOISE[:, :2]
PIXELS, MASKS = draw(6, 5, 7, 3), draw(6, 5, 7, 3, seed=2).argmax(-1)


def oracle(name: str, kind: str) -> Any:
    """Return what torchmetrics gives for all examples at once."""
    import torchmetrics.classification as tc
    import torchmetrics.regression as tr
    from torchmetrics.text import Perplexity

    form, options = {"binary": ("Binary", {}), "multilabel": ("Multilabel", {"num_labels": 3})}.get(
        kind, ("Multiclass", {"num_classes": 3 if kind == "segmentation" else 4})
    )
    macro = {} if kind == "binary" else {"average": "macro"}
    names = {"f1": "F1Score", "precision": "Precision", "recall": "Recall", "specificity": "Specificity"}
    names |= {"iou": "JaccardIndex", "dice": "F1Score", "auroc": "AUROC", "average_precision": "AveragePrecision"}
    if name in names:
        return getattr(tc, form + names[name])(**options, **macro)
    if name == "mcc":
        return getattr(tc, f"{form}MatthewsCorrCoef")(**options)
    if name == "balanced_accuracy":
        return tc.MulticlassAccuracy(**options, average="macro")
    return {
        "accuracy": lambda: getattr(tc, f"{form}Accuracy")(
            **options, **({} if kind == "binary" else {"average": "micro"})
        ),
        "perplexity": Perplexity,
        "rmse": lambda: tr.MeanSquaredError(squared=False),
        "mse": tr.MeanSquaredError,
        "mae": tr.MeanAbsoluteError,
        "r2": tr.R2Score,
        "mape": tr.MeanAbsolutePercentageError,
    }[name]()


DATA = {
    "classification": (SCORES, CLASSES, lambda o, y: (o.softmax(1), y)),
    "binary": (SCORES[:, :1], FLAGS[:, 0], lambda o, y: (o[:, 0].sigmoid(), y)),
    "multilabel": (SCORES[:, :3], FLAGS, lambda o, y: (o.sigmoid(), y)),
    "regression": (SCORES[:, :1], NUMBERS[:, 0], lambda o, y: (o[:, 0], y)),
    "segmentation": (PIXELS, MASKS, lambda o, y: (o.movedim(-1, 1), y)),
}
OF_CLASSES = ["f1", "precision", "recall", "specificity", "mcc", "iou", "dice", "auroc", "average_precision"]
CASES = [
    *(("classification", name) for name in ["accuracy", "balanced_accuracy", *OF_CLASSES]),
    *(("binary", name) for name in ["accuracy", *OF_CLASSES]),
    *(("multilabel", name) for name in ["accuracy", *OF_CLASSES]),
    *(("segmentation", name) for name in ["accuracy", "iou", "dice"]),
    *(("regression", name) for name in ["rmse", "mse", "mae", "r2", "mape"]),
]


def merged(measure: Any, outputs: Tensor, y: Tensor) -> float:
    """The value over three parts of unlike sizes."""
    parts = [slice(0, 1), slice(1, len(y) // 3), slice(len(y) // 3, len(y))]
    if isinstance(measure, Metric):
        return measure.value(sum((measure.totals(outputs[p], y[p]) for p in parts), torch.zeros(measure.size)))
    pairs = [measure(outputs[p], y[p]) for p in parts]
    return float(sum(s.sum() for s, _ in pairs) / sum(c.sum() for _, c in pairs))


@pytest.mark.parametrize(("kind", "name"), CASES)
def test_parts_give_what_torchmetrics_gives_for_all_examples(kind: str, name: str) -> None:
    """Curves to 0.001, since scores are rounded to 9 binary digits; all others to rounding."""
    outputs, y, form = DATA[kind]
    count = outputs.shape[-1]
    measure = make_metric(name, KINDS[kind], count)
    metric = oracle(name, kind)
    predicted, labels = form(outputs, y)
    if name in ("precision", "recall", "f1", "specificity", "iou", "dice", "mcc", "balanced_accuracy", "accuracy"):
        predicted = predicted.argmax(1) if kind in ("classification", "segmentation") else predicted
    expected = float(metric(predicted, labels))
    assert merged(measure, outputs, y) == pytest.approx(expected, abs=1e-3 if name[:2] in ("au", "av") else 1e-6)


def test_several_numbers_are_measured_by_their_mean() -> None:
    from sklearn.metrics import r2_score

    measure = make_metric("r2", KINDS["regression"], 2)
    assert merged(measure, SCORES[:, :2], NUMBERS) == pytest.approx(r2_score(NUMBERS, SCORES[:, :2]), abs=1e-6)


def test_an_area_is_exactly_that_of_the_rounded_scores() -> None:
    from sklearn.metrics import roc_auc_score

    bins = _bins(SCORES[:, :1], FLAGS[:, :1] > 0)
    exact = roc_auc_score(FLAGS[:, 0], bins[:, 0])
    assert merged(make_metric("auroc", KINDS["binary"], 1), SCORES[:, :1], FLAGS[:, 0]) == pytest.approx(
        exact, abs=1e-12
    )


@pytest.mark.parametrize("scale", [1e-3, 1.0, 50.0])
@pytest.mark.parametrize("shift", [0.0, -3.0])
def test_rounding_hardly_moves_an_area_wherever_the_scores_lie(scale: float, shift: float) -> None:
    """Also where sigmoids would all be 1, or all near 0.5."""
    from sklearn.metrics import roc_auc_score

    scores = SCORES[:, :1] * scale + shift * scale
    exact = roc_auc_score(FLAGS[:, 0], scores[:, 0])
    assert merged(make_metric("auroc", KINDS["binary"], 1), scores, FLAGS[:, 0]) == pytest.approx(exact, abs=1e-3)


def test_bins_keep_the_order_of_scores() -> None:
    values = torch.tensor([-math.inf, -1e9, -2.0, -1e-4, -0.0, 0.0, 1e-4, 2.0, 1e9, math.inf])[:, None]
    bins = _bins(values, torch.ones_like(values, dtype=torch.bool))[:, 0]
    assert bins.diff().min() >= 0
    assert bins[4] == bins[5]
    assert int(bins.min()) >= 0
    assert int(bins.max()) < BINS


def test_a_score_that_is_not_a_number_counts_as_the_worst() -> None:
    scores, flags = torch.tensor([[math.nan], [1.0], [math.nan], [0.0]]), torch.tensor([1, 1, 0, 0])
    assert merged(make_metric("auroc", KINDS["binary"], 1), scores, flags) == 0.25


def test_without_both_classes_there_is_no_area_and_the_record_says_so() -> None:
    """Of the four pairs none has both classes; the loss is there, and so is the accuracy."""
    x, y = draw(20, 3), torch.zeros(20, dtype=torch.int64)
    clients = {"a": Examples(x, torch.arange(20) % 2)}
    rounds = coterie.federate(
        coterie.fedavg(lr=0.1),
        torch.nn.Linear(3, 1),
        clients,
        rounds=1,
        test=Examples(x, y),
        task="binary",
        metrics=["auroc"],
    )
    record = list(rounds)[-1].record()
    assert record["test_auroc"] is None
    assert record["undefined"] == {"test_auroc": "it needs examples of both classes"}
    assert isinstance(record["test_accuracy"], float)


def test_metrics_of_torchmetrics_are_taken_as_they_are_if_they_are_sums() -> None:
    from torchmetrics.classification import BinaryCalibrationError, BinaryFBetaScore

    x, y = SCORES, FLAGS[:, 0]
    options = {"rounds": 1, "test": Examples(x, y), "task": "binary"}
    metric = BinaryFBetaScore(2.0)
    model = torch.nn.Linear(4, 1)
    round = list(
        coterie.federate(coterie.fedavg(lr=0.1), model, {"a": Examples(x, y)}, metrics={"f2": metric}, **options)
    )[-1]
    model.load_state_dict(round.weights())
    assert round.record()["test_f2"] == pytest.approx(float(metric(model(x)[:, 0].detach(), y)), abs=1e-6)
    with pytest.raises(Mistake, match="metrics: BinaryCalibrationError keeps confidences, which is not a sum"):
        coterie.plan(
            coterie.fedavg(lr=0.1), model, {"a": Examples(x, y)}, metrics={"c": BinaryCalibrationError()}, **options
        )


@pytest.mark.parametrize(
    ("name", "kind", "sentence"),
    [
        ("auc", "binary", 'metrics = "auc": '),
        ("rmse", "binary", 'metrics = "rmse": a binary task is not measured by it, but by one of accuracy'),
        ("f1", "regression", "a regression task is not measured by it, but by one of rmse, mse, mae, r2, mape"),
    ],
)
def test_names_that_do_not_fit_are_refused(name: str, kind: str, sentence: str) -> None:
    with pytest.raises(Mistake) as caught:
        make_metric(name, KINDS[kind], 1)
    assert sentence in str(caught.value)


def test_an_algorithm_of_posteriors_refuses_a_task_without_classes() -> None:
    clients = {"a": Examples(SCORES, FLAGS[:, 0]), "b": Examples(SCORES, FLAGS[:, 0])}
    seed_set = Examples(SCORES[:8], FLAGS[:8, 0])
    with pytest.raises(Mistake, match='kind = "binary": the algorithm compares posteriors'):
        coterie.plan(coterie.fedh2l(lr=0.1), torch.nn.Linear(4, 1), clients, rounds=1, seed_set=seed_set, task="binary")


def test_balanced_weights_count_the_labels_of_all_clients() -> None:
    """30 zeros and 10 ones: 40 / (2 * 30) and 40 / (2 * 10), whichever client has them."""
    y = torch.tensor([0] * 30 + [1] * 10)
    x = draw(40, 3)
    clients = {"a": Examples(x[:25], y[:25]), "b": Examples(x[25:], y[25:])}
    plans = [
        coterie.plan(
            coterie.fedavg(lr=0.1), torch.nn.Linear(3, 2), clients, rounds=1, task=TaskOptions(class_weights=w)
        )
        for w in ("balanced", [40 / 60, 40 / 20])
    ]
    outputs = draw(40, 2)
    ours, given = (next(iter(plan.tasks.values())).loss(outputs, y) for plan in plans)
    assert torch.allclose(ours[0], given[0])
    assert torch.allclose(ours[1], given[1])
