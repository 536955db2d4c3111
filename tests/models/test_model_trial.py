"""A model's forward must depend on its weights, its batch and a key alone."""

import itertools
import random
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from coterie import Mistake
from coterie.models import build
from coterie.models.functional import initial_weights, make_task
from coterie.models.model_trial import try_model
from coterie.objectives import cross_entropy

X = torch.randn(2, 4, generator=torch.Generator().manual_seed(0))


class Own(nn.Module):
    """A linear layer, and a forward and attributes that a test gives."""

    def __init__(self, forward: Callable[[Any, Tensor], Any], **attributes: Any) -> None:
        super().__init__()
        self.layer, self.own = nn.Linear(4, 3), forward
        for name, value in attributes.items():
            setattr(self, name, value)

    def forward(self, x: Tensor) -> Any:
        return self.own(self, x)


def count(self: Any, x: Tensor) -> Tensor:
    self.calls += 1
    return self.layer(x)


def anneal(self: Any, x: Tensor) -> Tensor:
    return self.layer(x) * (1 if self.training else next(self.steps))


def keep_hidden(self: Any, x: Tensor) -> Tensor:
    self.hidden = 0.5 * self.hidden + self.layer(x).detach().mean(0)
    return self.layer(x) + self.hidden


def append(self: Any, x: Tensor) -> Tensor:
    self.seen["x"].append(float(x.mean()))
    return self.layer(x)


def keep_first_weights(self: Any, x: Tensor) -> Tensor:
    if self.scale is None:
        self.scale = self.layer.weight.detach().norm()
    return self.layer(x) / self.scale


def answer_from_memory(self: Any, x: Tensor) -> Tensor:
    before, self.last = self.last, x.detach().clone()
    return self.layer(x if before is None else x + before)


KEEPS = [
    (Own(count, calls=0), "its attribute calls changes in every forward"),
    (Own(anneal, steps=itertools.count(1)), "its attribute steps changes in every forward"),
    (Own(keep_hidden, hidden=torch.zeros(3)), "its attribute hidden changes in every forward"),
    (Own(append, seen={"x": []}), "its attribute seen changes in every forward"),
    (nn.Sequential(nn.Linear(4, 4), Own(count, calls=0)), "its attribute 1.calls changes in every forward"),
    (Own(keep_first_weights, scale=None), "through what it keeps in its attribute scale"),
    (Own(answer_from_memory, last=None), "through what it keeps in its attribute last"),
]


@pytest.mark.parametrize(
    ("model", "sentence"), KEEPS, ids=[sentence.split()[-1] + str(k) for k, (_, sentence) in enumerate(KEEPS)]
)
def test_what_a_forward_keeps_for_the_next_is_refused_by_name(model: nn.Module, sentence: str) -> None:
    with pytest.raises(Mistake) as caught:
        try_model(model, X)
    assert sentence in str(caught.value)
    assert "self.register_buffer" in str(caught.value)


def cache_positions(self: Any, x: Tensor) -> Tensor:
    if self.positions.get(x.shape[1]) is None:
        self.positions[x.shape[1]] = torch.arange(x.shape[1])
    return self.layer(x + self.positions[x.shape[1]])


def keep_features(self: Any, x: Tensor) -> Tensor:
    self.features = x * 2  # written, never read
    return self.layer(x)


def write_buffer(self: Any, x: Tensor) -> Tensor:
    self.total += 1
    return self.layer(x)


def with_buffer() -> nn.Module:
    model = Own(write_buffer)
    model.register_buffer("total", torch.zeros(()))
    return model


HARMLESS = [
    Own(cache_positions, positions={}),
    Own(keep_features, features=None),
    with_buffer(),
    nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Dropout(0.5), nn.Linear(4, 3)),
    torch.nn.utils.parametrizations.weight_norm(nn.Linear(4, 3)),
    torch.nn.utils.parametrizations.spectral_norm(nn.Linear(4, 3)),
    torch.nn.utils.spectral_norm(nn.Linear(4, 3)),
    torch.nn.utils.parametrizations.orthogonal(nn.Linear(4, 3)),
    build("mlp", [4], 3, 0),
    build("logistic", [4], 3, 0),
]


@pytest.mark.parametrize("model", HARMLESS, ids=range(len(HARMLESS)))
def test_caches_and_layers_of_torch_are_not_refused(model: nn.Module) -> None:
    assert try_model(model, X).habits.drawing_layer is None


@pytest.mark.parametrize("name", ["cnn", "cifar_cnn", "resnet20", "2nn"])
def test_models_of_the_box_are_not_refused(name: str) -> None:
    shape = [1, 28, 28] if name in ("cnn", "2nn") else [3, 32, 32]
    trial = try_model(build(name, shape, 10, 0), torch.rand(2, *shape))
    assert trial.outputs.shape == (2, 10)
    assert trial.habits.drawing_layer is None


def test_a_text_as_long_as_the_vocabulary_is_large_is_read_rightly() -> None:
    model = build("char_lstm", [5], 5, 0, hidden=3, peepholes=False)
    assert try_model(model, torch.randint(5, (2, 5))).outputs.shape == (2, 5, 5)


def test_the_layer_that_draws_from_torch_s_generator_is_named() -> None:
    layer = nn.TransformerEncoderLayer(4, 2, 8, dropout=0.5, batch_first=True)
    model = nn.Sequential(nn.Unflatten(1, (1, 4)), nn.TransformerEncoder(layer, 1), nn.Flatten(), nn.Linear(4, 3))
    assert try_model(model, X).habits.drawing_layer == "1.layers.0.self_attn"
    assert try_model(Own(lambda self, x: F.dropout(self.layer(x), 0.5, self.training)), X).habits.drawing_layer == ""


def test_draws_in_evaluation_are_the_same_in_every_evaluation() -> None:
    model = Own(lambda self, x: self.layer(x) + torch.rand(len(x), 3))
    habits = try_model(model, X).habits
    task, weights = make_task(model, loss=cross_entropy, habits=habits), initial_weights(model)
    first = task.predict(weights["params"], weights["buffers"], X)
    torch.rand(1)  # somebody else draws
    assert torch.equal(task.predict(weights["params"], weights["buffers"], X), first)


@pytest.mark.parametrize(
    ("draw", "library"),
    [(random.random, "Python's random"), (np.random.random, "numpy.random")],
    ids=["python", "numpy"],
)
def test_draws_that_no_seed_sets_are_refused(draw: Callable[[], float], library: str) -> None:
    with pytest.raises(Mistake, match=f"its forward draws from {library}, which no seed of the federation sets"):
        try_model(Own(lambda self, x: self.layer(x) * (1 + draw())), X)


def test_the_trial_changes_no_random_state_and_no_model() -> None:
    model = Own(lambda self, x: F.dropout(self.layer(x)))
    before = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].tolist()  # type: ignore[index]
    weights = {name: value.clone() for name, value in model.state_dict().items()}
    try_model(model, X)
    assert torch.equal(torch.get_rng_state(), before[0])
    assert random.getstate() == before[1]
    assert np.random.get_state()[1].tolist() == before[2]  # type: ignore[index]
    assert all(torch.equal(value, weights[name]) for name, value in model.state_dict().items())
    assert model.training


def test_a_forward_that_writes_into_its_input_gets_a_copy() -> None:
    model = nn.Sequential(nn.ReLU(inplace=True), nn.Linear(4, 3))
    trial = try_model(model, X)
    assert trial.habits.writes_input
    task, weights, x = make_task(model, loss=cross_entropy, habits=trial.habits), initial_weights(model), X.clone()
    task.predict(weights["params"], weights["buffers"], x)
    task.apply(weights["params"], weights["buffers"], x, None, torch.tensor(0))
    assert torch.equal(x, X)


WRONG = [
    (Own(lambda self, x: self.layer(x).detach()), "no gradient reaches its parameters"),
    (Own(lambda self, x: self.layer(x).squeeze()), "[2, 3] for 2 examples, but [3] for one"),
    (nn.Linear(5, 3), "it cannot take examples of shape [4] (mat1 and mat2"),
    (Own(lambda self, x: self.absent(x)), "it cannot take examples of shape [4] ('Own' object has no attribute"),
    (
        Own(lambda self, x: F.embedding(x.long().clamp(0, 2), self.layer.weight, sparse=True).sum(1)),
        "the gradient of layer.weight is sparse",
    ),
]


@pytest.mark.parametrize(("model", "sentence"), WRONG, ids=["detached", "squeezed", "misfit", "raises", "sparse"])
def test_what_cannot_be_trained_is_said_in_a_sentence(model: nn.Module, sentence: str) -> None:
    with pytest.raises(Mistake) as caught:
        try_model(model, X)
    assert sentence in str(caught.value)


class Checkpointed(nn.Module):
    """A model whose backward computes its forward again."""

    def __init__(self, activation: nn.Module) -> None:
        super().__init__()
        self.inner, self.outer = nn.Sequential(nn.Linear(4, 4), activation), nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Any:
        return self.outer(checkpoint(self.inner, x, use_reentrant=False))


@pytest.mark.parametrize("activation", [nn.Tanh(), nn.ReLU()])
def test_a_checkpointed_model_is_refused_since_its_gradients_were_those_of_the_first_weights(
    activation: nn.Module,
) -> None:
    with pytest.raises(Mistake, match=r"is computed from other weights than the outputs: .* torch.utils.checkpoint"):
        try_model(Checkpointed(activation), X)


class UsedTwice(nn.Module):
    """A model that has one layer under two names."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(4, 4)
        self.second, self.last = self.first, nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Any:
        return self.last(self.second(self.first(x)))


def test_a_layer_under_two_names_is_not_refused() -> None:
    assert not try_model(UsedTwice(), X).habits.counts_padding


def keep_first_mean(self: Any, x: Tensor) -> Tensor:
    if self.mean is None:
        self.mean = x.mean(0)
    return self.layer(x - self.mean)


@pytest.mark.parametrize("x", [X, X[:1].expand(2, 4)], ids=["two examples", "one example twice"])
def test_the_mean_of_the_first_batch_that_a_model_keeps_for_all_clients_is_refused(x: Tensor) -> None:
    with pytest.raises(Mistake, match="through what it keeps in its attribute mean"):
        try_model(Own(keep_first_mean, mean=None), x)


def move_average(self: Any, x: Tensor) -> Tensor:
    if self.training:
        self.average.mul_(0.9).add_(0.1 * x.detach().mean(0))
    return self.layer(x - self.average)


def subtract_mean(self: Any, x: Tensor) -> Tensor:
    return self.layer(x - x.mean(0))


def with_average(forward: Callable[[Any, Tensor], Tensor]) -> nn.Module:
    model = Own(forward)
    model.register_buffer("average", torch.zeros(4))
    return model


@pytest.mark.parametrize("forward", [move_average, subtract_mean, lambda self, x: move_average(self, F.dropout(x))])
def test_a_forward_that_would_count_padding_is_found(forward: Callable[[Any, Tensor], Tensor]) -> None:
    assert try_model(with_average(forward), X).habits.counts_padding


@pytest.mark.parametrize("k", range(len(HARMLESS)))
def test_a_forward_that_keeps_examples_apart_is_not_said_to_count_padding(k: int) -> None:
    assert not try_model(HARMLESS[k], X).habits.counts_padding


def start_once(self: Any, x: Tensor) -> Tensor:
    if self.training:
        self.began.fill_(True)
        self.calls += 1
    return self.layer(x)


def test_a_buffer_that_changes_but_is_not_sent_is_found() -> None:
    """A flag "has begun" was false again in each round, so that a layer took its first values from data again."""
    model = nn.Sequential(Own(start_once), nn.BatchNorm1d(3))
    model[0].register_buffer("began", torch.tensor(False))
    model[0].register_buffer("calls", torch.tensor(0))
    assert try_model(model, X).habits.unsent_buffers == ("0.began", "0.calls")


def test_a_buffer_that_is_not_persistent_is_named() -> None:
    model = Own(move_average)
    model.register_buffer("average", torch.zeros(4), persistent=False)
    with pytest.raises(Mistake, match=r"average \(a buffer with persistent=False\) changes in every forward"):
        try_model(model, X)
