"""Numbers worked out by hand: accuracy, loss, by class, by a client's shares, and the worst tenth."""

import math

import pytest
import torch
from torch import nn

from coterie import Evaluation, Examples, Mistake
from coterie.engines.sequential import Sequential
from coterie.loop import evaluate
from coterie.models.functional import initial_weights, make_task
from coterie.objectives import accuracy, cross_entropy

X = torch.eye(2)[[0, 0, 0, 1]]
Y = torch.tensor([0, 0, 1, 1])
TEST = Examples(X, Y)


def identity(classes: int = 2) -> nn.Module:
    """Predicts the place of the 1 in its input."""
    model = nn.Linear(2, classes, bias=False)
    nn.init.eye_(model.weight)
    return model


def scored(model: nn.Module, examples: Examples, batch: int = 1000, **metrics: object) -> evaluate.Scores:
    task = make_task(model, loss=cross_entropy, metrics={"accuracy": accuracy} | metrics)
    return evaluate.scores(task, initial_weights(model), examples, Sequential(), batch)


def test_accuracy_and_loss() -> None:
    """Logits (1, 0) three times and (0, 1): right are the first, second and fourth. -log p is log(1 + 1/e) where right
    and one more where wrong."""
    found = evaluate.mean(scored(identity(), TEST))
    assert found["accuracy"] == 3 / 4
    assert found["loss"] == pytest.approx(math.log(1 + math.exp(-1)) + 1 / 4)


@pytest.mark.parametrize("batch", [1, 3, 4, 1000])
def test_the_batch_changes_nothing(batch: int) -> None:
    whole, cut = scored(identity(), TEST), scored(identity(), TEST, batch)
    assert all(torch.equal(whole.each[name][0], cut.each[name][0]) for name in whole.each)


def test_a_further_metric_is_its_sums_over_its_counts() -> None:
    """Counts 1, 2, 3, 4 of sums 1, 0, 0, 4: 5 / 10, not the mean of the quotients."""

    def odd(outputs: torch.Tensor, y: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return torch.tensor([1.0, 0, 0, 4]), torch.tensor([1.0, 2, 3, 4])

    assert evaluate.mean(scored(identity(), TEST, odd=odd))["odd"] == 0.5


def test_sequences_count_their_real_positions() -> None:
    """[B, T] labels with -100 for padding: right are 1 of 2 and 1 of 1 positions, which is 2 of 3."""

    class Everywhere(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x  # [B, T, C]

    x = torch.eye(2)[torch.tensor([[0, 1], [1, 1]])]
    y = torch.tensor([[0, 0], [1, -100]])
    task = make_task(Everywhere(), loss=cross_entropy, metrics={"accuracy": accuracy})
    found = evaluate.scores(task, {"params": {}, "buffers": {}}, Examples(x, y), Sequential())
    assert evaluate.mean(found)["accuracy"] == pytest.approx(2 / 3)


def test_the_model_is_in_evaluation_mode_and_nothing_is_kept() -> None:
    """BatchNorm with running mean 0 and variance 1 - eps, and dropout: both change nothing."""
    model = nn.Sequential(nn.BatchNorm1d(2, affine=False), nn.Dropout(0.9), identity())
    model[0].running_var.fill_(1 - model[0].eps)
    weights = initial_weights(model)
    task = make_task(model, loss=cross_entropy, metrics={"accuracy": accuracy})
    found = evaluate.scores(task, weights, TEST, Sequential())
    assert torch.allclose(found.each["loss"][0], scored(identity(), TEST).each["loss"][0])
    assert weights["buffers"]["0.running_mean"].tolist() == [0, 0]


def test_outputs_that_are_not_numbers_are_wrong_and_counted() -> None:
    """argmax takes the place of a NaN, so class 0's share of the test data was shown as an accuracy."""
    model = identity()
    nn.init.constant_(model.weight, math.nan)
    found = scored(model, TEST)
    assert evaluate.mean(found)["accuracy"] == 0
    assert evaluate.count_broken(found) == 4
    assert evaluate.count_broken(scored(identity(), TEST)) == 0


def test_one_nan_among_the_scores_of_an_example_makes_it_wrong() -> None:
    outputs = torch.tensor([[2.0, 1.0], [math.nan, 1.0], [1.0, math.nan], [math.inf, 0.0], [0.0, -math.inf]])
    right, _ = accuracy(outputs, torch.tensor([0, 0, 1, 0, 0]))
    assert right.tolist() == [1, 0, 0, 0, 1]  # the last rules a class out, as some models do


def test_by_class() -> None:
    """Of class 0 both are right, of class 1 one of two, and class 2 does not occur."""
    found = evaluate.accuracy_by_class(scored(identity(), TEST), Y, 3)
    assert found[:2].tolist() == [1, 0.5]
    assert found[2].isnan()


def test_labels_that_do_not_count_are_in_no_class() -> None:
    y = torch.tensor([0, -100, 1, 1])
    assert evaluate.accuracy_by_class(scored(identity(), Examples(X, y)), y, 2).tolist() == [1, 0.5]


def test_label_shares() -> None:
    """Three examples of class 0 and one of 2; a label beyond the classes takes its share away from the others."""
    pool = Examples(torch.zeros(7, 1), torch.tensor([0, 0, 1, 0, 2, 5, -100]))
    clients = {"a": pool.take(torch.tensor([0, 1, 3, 4])), "b": pool.take(torch.tensor([2, 5, 6]))}
    shares = evaluate.label_shares(clients, 3)
    assert shares is not None
    assert shares["a"].tolist() == [0.75, 0, 0.25]
    assert shares["b"].tolist() == [0, 0.5, 0]


@pytest.mark.parametrize("y", [None, torch.zeros(2, 3, dtype=torch.int64), torch.zeros(2)])
def test_no_shares_without_one_class_label_per_example(y: torch.Tensor | None) -> None:
    assert evaluate.label_shares({"a": Examples(torch.zeros(2, 1), y)}, 3) is None


def test_expected_accuracy_weighs_the_classes_as_in_the_training_data() -> None:
    """0.75 * 1 + 0.25 * 0.5; of classes that were not tested nothing is known, so the others make up the whole."""
    nan = float("nan")
    assert evaluate.expected_accuracy(torch.tensor([1, 0.5]), torch.tensor([0.75, 0.25])) == 0.875
    assert evaluate.expected_accuracy(torch.tensor([1, 0.5, nan]), torch.tensor([0.3, 0.1, 0.6])) == pytest.approx(
        0.875
    )
    assert math.isnan(evaluate.expected_accuracy(torch.tensor([1, nan]), torch.tensor([0.0, 1.0])))


def test_expected_accuracy_is_that_on_a_test_set_of_the_client_s_own() -> None:
    """For a test set that holds class 0 three times as often as class 1, cut from the common one."""
    by_class = evaluate.accuracy_by_class(scored(identity(), TEST), Y, 2)
    own = TEST.take(torch.tensor([0, 1, 0, 1, 0, 1, 2, 3]))
    expected = evaluate.expected_accuracy(by_class, torch.tensor([0.75, 0.25], dtype=torch.float64))
    assert expected == pytest.approx(evaluate.mean(scored(identity(), own))["accuracy"])


@pytest.mark.parametrize(("n", "mean"), [(1, 0), (5, 0), (10, 0), (19, 0), (20, 0.5), (30, 1.0)])
def test_the_worst_tenth(n: int, mean: float) -> None:
    """Of 0, 1, ..., n - 1 the lowest floor(n / 10), but at least one."""
    assert evaluate.worst_tenth([float(v) for v in reversed(range(n))]) == mean


def test_every_and_last() -> None:
    """Every second of five rounds, and the fifth because it is the last."""
    assert [r for r in range(1, 6) if Evaluation(TEST, every=2).due(r, 5)] == [2, 4, 5]
    assert [r for r in range(1, 6) if Evaluation(TEST, every=9).due(r, 5)] == [5]
    assert not Evaluation().due(5, 5)


def test_mistakes() -> None:
    with pytest.raises(Mistake, match=r"^every = 0: it must be 1 or more"):
        Evaluation(TEST, every=0)
    with pytest.raises(Mistake, match=r"^clients = true: needs test data"):
        Evaluation(TEST, clients=True)
