"""Whether a model's outputs, the loss, the metrics and the labels fit together, and whether there is an accuracy."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import coterie
from coterie import Examples, Mistake
from coterie.loop.plan import Round
from coterie.objectives import accuracy

X = torch.randn(12, 4, generator=torch.Generator().manual_seed(3))
SIGN = (X[:, 0] > 0).long()


def bce(outputs: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    losses = F.binary_cross_entropy_with_logits(outputs.flatten(), y.flatten().float(), reduction="none")
    return losses, torch.ones_like(losses)


def squares(outputs: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    losses = (outputs - y).square().flatten(1).sum(1)
    return losses, torch.ones_like(losses)


def last_round(model: nn.Module, y: Tensor, x: Tensor = X, **options: Any) -> Round:
    examples = Examples(x, y)
    return list(
        coterie.federate(coterie.fedavg(lr=0.1), model, {"a": examples}, **{"rounds": 1, "test": examples, **options})
    )[-1]


NO_ACCURACY = {
    "one logit": (1, SIGN, bce),
    "one logit, labels in a column": (1, SIGN[:, None], bce),
    "one logit, labels that are floats": (1, SIGN.float(), bce),
    "a number to predict": (1, X[:, :1], squares),
    "two numbers to predict": (2, X[:, :2], squares),
    "several labels": (3, (X[:, :3] > 0).long(), lambda outputs, y: squares(outputs, y.float())),
    "counts beyond the outputs": (2, SIGN + 5, lambda outputs, y: squares(outputs, y[:, None].float())),
}


@pytest.mark.parametrize("case", NO_ACCURACY)
def test_no_accuracy_is_shown_where_it_means_nothing(case: str) -> None:
    outputs, y, loss = NO_ACCURACY[case]
    round = last_round(nn.Linear(4, outputs), y, loss=loss)
    assert round.test_accuracy is None
    assert round.record()["test_accuracy"] is None
    assert round.test_loss is not None


def test_an_accuracy_is_shown_for_an_own_loss_of_classes() -> None:
    def own(outputs: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        losses = F.cross_entropy(outputs, y, label_smoothing=0.1, reduction="none")
        return losses, torch.ones_like(losses)

    model = nn.Linear(4, 2)
    model.load_state_dict({"weight": torch.tensor([[-1.0, 0, 0, 0], [1, 0, 0, 0]]), "bias": torch.zeros(2)})
    assert last_round(model, SIGN, loss=own).test_accuracy == 1.0


def test_accuracy_itself_refuses_what_does_not_fit() -> None:
    with pytest.raises(Mistake, match="cannot tell classes apart"):
        accuracy(torch.zeros(4, 1), torch.zeros(4, dtype=torch.int64))
    with pytest.raises(Mistake, match=r"y.squeeze\(-1\)"):
        accuracy(torch.zeros(4, 2), torch.zeros(4, 1, dtype=torch.int64))


LABELS = {
    "float": (SIGN.float(), "the labels are float32; "),
    "one-hot": (F.one_hot(SIGN), "outputs and labels both have shape [2, 2]"),
    "beyond": (SIGN * 5, 'clients["a"]: its labels are from 0 to 5, but the model gives 2 outputs'),
    "negative": (SIGN - 1, 'clients["a"]: its labels are from -1 to 0, but the model gives 2 outputs'),
}


@pytest.mark.parametrize("case", LABELS)
def test_labels_that_are_no_classes_are_refused_in_a_sentence(case: str) -> None:
    y, sentence = LABELS[case]
    with pytest.raises(Mistake) as caught:
        last_round(nn.Linear(4, 2), y)
    assert sentence in str(caught.value)


def test_labels_of_another_client_are_looked_at_too() -> None:
    clients = {"a": Examples(X, SIGN), "b": Examples(X, SIGN.float())}
    with pytest.raises(Mistake, match=r'clients\["b"\]: the labels are float32'):
        coterie.plan(coterie.fedavg(lr=0.1), nn.Linear(4, 2), clients, rounds=1)


def test_labels_of_each_client_are_brought_into_one_form() -> None:
    """And those in it stay where they are."""
    clients = {"a": Examples(X, SIGN), "b": Examples(X, SIGN.int()), "c": Examples(X, SIGN.bool()[:, None])}
    plan = coterie.plan(coterie.fedavg(lr=0.1), nn.Linear(4, 2), clients, rounds=1, test=Examples(X, SIGN[:, None]))
    assert plan.clients["a"] is clients["a"]
    for each in (*plan.clients.values(), plan.evaluation.test):
        assert each is not None
        assert each.y is not None
        assert each.y.dtype == torch.int64
        assert each.y.tolist() == SIGN.tolist()


def test_rows_of_a_pool_that_nobody_holds_may_lack_labels() -> None:
    y = SIGN.clone()
    y[0] = -1
    clients = {"a": Examples(X, y, torch.arange(1, 6)), "b": Examples(X, y, torch.arange(6, 12))}
    coterie.plan(coterie.fedavg(lr=0.1), nn.Linear(4, 2), clients, rounds=1)


class Positions(nn.Module):
    """Scores of classes at each position, with the classes last, [B, T, C], or second, [B, C, T]."""

    def __init__(self, classes: int, second: bool) -> None:
        super().__init__()
        self.layer, self.second = nn.Linear(4, classes), second

    def forward(self, x: Tensor) -> Tensor:
        scores: Tensor = self.layer(x)
        return scores.movedim(-1, 1) if self.second else scores


def texts(positions: int, classes: int) -> tuple[Tensor, Tensor]:
    draw = torch.Generator().manual_seed(1)
    return torch.randn(6, positions, 4, generator=draw), torch.randint(classes, (6, positions), generator=draw)


def test_outputs_with_the_classes_second_are_understood() -> None:
    x, y = texts(7, 5)
    model = Positions(5, second=True)
    same = Positions(5, second=False)
    same.load_state_dict(model.state_dict())
    ours, theirs = last_round(model, y, x), last_round(same, y, x)
    assert (ours.test_loss, ours.test_accuracy) == (theirs.test_loss, theirs.test_accuracy)
    assert not hasattr(model, "class_axis")  # the user's model is never changed


def test_outputs_that_can_be_read_in_two_ways_are_never_guessed() -> None:
    x, y = texts(5, 5)
    for second in (True, False):
        model = Positions(5, second)
        with pytest.raises(Mistake, match=r"can be read with the classes last or second; .* class_axis: -1 if"):
            last_round(model, y, x)
    axes = {True: 1, False: -1}
    models = {second: Positions(5, second) for second in axes}
    models[True].load_state_dict(models[False].state_dict())
    for second, model in models.items():
        model.class_axis = axes[second]  # type: ignore[assignment]
    one, other = (last_round(model, y, x) for model in models.values())
    assert (one.test_loss, one.test_accuracy) == (other.test_loss, other.test_accuracy)


def test_segmentation_in_torch_s_order_is_trained_as_such() -> None:
    x = torch.rand(4, 1, 5, 5, generator=torch.Generator().manual_seed(2))
    y = (x[:, 0] > 0.5).long() * 4
    model = nn.Conv2d(1, 5, 1)
    with pytest.raises(Mistake, match="class_axis"):
        last_round(model, y, x)
    model.class_axis = 1  # type: ignore[assignment]
    assert last_round(model, y, x, rounds=1).test_loss == pytest.approx(
        float(F.cross_entropy(model_after(model, x, y)(x), y)), rel=1e-5
    )


def model_after(model: nn.Module, x: Tensor, y: Tensor) -> nn.Module:
    """The model after one full-batch step of plain PyTorch, which a round with one client is."""
    copy = nn.Conv2d(1, 5, 1)
    copy.load_state_dict(model.state_dict())
    F.cross_entropy(copy(x), y).backward()
    with torch.no_grad():
        for p in copy.parameters():
            p -= 0.1 * p.grad  # type: ignore[operator]
    return copy


class Returns(nn.Module):
    def __init__(self, what: str) -> None:
        super().__init__()
        self.layer, self.what = nn.Linear(4, 2), what

    def forward(self, x: Tensor) -> Any:
        y = self.layer(x)
        return {"tuple": (y, x), "dict": {"a": y, "b": x}, "one number": y.sum()}[self.what]


@pytest.mark.parametrize(
    ("what", "sentence"),
    [
        ("tuple", "model: its forward returns a tuple with 0, 1; say with outputs which"),
        ("dict", "model: its forward returns a dict with 'a', 'b'; say with outputs which"),
        ("one number", "model: it gives outputs of shape [] for 2 examples"),
    ],
)
def test_outputs_that_are_no_scores_are_refused(what: str, sentence: str) -> None:
    with pytest.raises(Mistake) as caught:
        last_round(Returns(what), SIGN)
    assert sentence in str(caught.value)


def test_a_loss_of_one_s_own_may_take_a_tuple() -> None:
    round = last_round(Returns("tuple"), SIGN, loss=lambda outputs, y: bce(outputs[0][:, 0], y), metrics={})
    assert round.reached == 1


@pytest.mark.parametrize(
    "loss", [F.cross_entropy, lambda outputs, y: (outputs, y), lambda outputs, y: (outputs.sum(), len(y))]
)
def test_a_loss_without_a_number_for_each_example_is_refused(loss: Any) -> None:
    with pytest.raises(Mistake, match=r"loss: it returns .*; it must be a function .* -> \(sums \[B\], counts \[B\]\)"):
        last_round(nn.Linear(4, 2), SIGN, loss=loss)
    with pytest.raises(Mistake, match=r"metrics\.own: it returns"):
        last_round(nn.Linear(4, 2), SIGN, metrics={"own": loss})


def test_several_models_are_named_as_they_were_given() -> None:
    models = [nn.Linear(4, 2), nn.Linear(5, 2)]
    clients = {"a": Examples(X, SIGN), "b": Examples(X, SIGN)}
    with pytest.raises(Mistake, match=r"model\[1\]: it cannot take examples of shape \[4\]"):
        coterie.plan(coterie.independent(lr=0.1), models, clients, rounds=1)
    with pytest.raises(Mistake, match=r'model\["b"\]: it cannot take examples of shape \[4\]'):
        coterie.plan(coterie.independent(lr=0.1), dict(zip("ab", models, strict=True)), clients, rounds=1)
