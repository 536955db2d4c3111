"""Examples from the updates that they gave rise to, in closed form and by search."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import coterie
from coterie import Examples
from coterie.core import rng, tree
from coterie.core.errors import Mistake
from coterie.core.tree import Tree
from coterie.engines.sequential import Sequential
from coterie.models.functional import initial_weights
from coterie.privacy.accountant import Event, spent
from coterie.privacy.noise import add_noise
from coterie.probes.closed_forms import (
    classifier_bias,
    dense_inputs,
    first_dense_layer,
    first_embedding,
    recover_labels,
    recover_tokens,
)
from coterie.probes.inversion import Inversion, Range, total_variation
from coterie.probes.local_work import LocalWork
from coterie.probes.noised_work import can_hide_examples
from coterie.probes.protections import DELTA, see
from tests.federations import dense, ragged

UNIT = Range(torch.tensor(0.0).double(), torch.tensor(1.0).double())


def local_work(model: nn.Module, examples: Examples, steps: int | None = 1, recipe=None) -> LocalWork:
    """The work of two clients in float64, whose data say only what the model takes."""
    clients = {"a": examples, "b": examples}
    recipe = recipe or coterie.fedavg(lr=0.1)
    engine = Sequential(dtype=torch.float64)
    plan = coterie.plan(recipe, model.double(), clients, rounds=1, engine=engine)
    return LocalWork(plan, initial_weights(model), steps)


def dense_network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(12, 20), nn.ReLU(), nn.Linear(20, 5))


def draw_examples(n: int, classes: int = 5, seed: int = 1) -> Examples:
    g = torch.Generator().manual_seed(seed)
    x = torch.rand((n, 1, 3, 4), generator=g, dtype=torch.float64)
    return Examples(x, torch.randint(classes, (n,), generator=g))


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 1000), st.sampled_from([1, 3]))
def test_one_example_follows_exactly_from_a_dense_layer(seed: int, steps: int) -> None:
    """x = dW_i / db_i: with the output's gradient d, dl/dW = d x^T and dl/db = d.

    So the update is lr sum_k d_k x^T and lr sum_k d_k over the local steps, and the quotient is x for any number of
    them. Least squares over the units, sum_i db_i dW_i / sum_i db_i^2, gives x too.
    """
    examples = draw_examples(1, seed=seed)
    update = local_work(dense_network(), examples, steps).send("a", examples)
    layer = first_dense_layer(dense_network(), (1, 3, 4))
    assert layer == "1"
    assert torch.allclose(dense_inputs(update, layer, 1)[0], examples.x.flatten(), atol=1e-10)


def test_a_unit_that_one_example_alone_lights_gives_it_away() -> None:
    """Of two examples, two units each light for one: their rows are each example times its own gradient."""
    dW = torch.tensor([[2.0, 4.0], [-3.0, 0.0], [0.0, 0.0]])
    db = torch.tensor([2.0, -1.0, 0.0])
    found = dense_inputs({"l.weight": dW, "l.bias": db}, "l", 2)
    assert found.tolist() == [[1.0, 2.0], [3.0, 0.0]]


def test_labels_by_hand() -> None:
    """Three classes, examples of the labels 0, 0 and 2, and p = 1/3 everywhere.

    The gradient of the bias is the mean of p - onehot: (1/3 - 2/3, 1/3, 1/3 - 1/3) = (-1/3, 1/3, 0). The pull is
    -1/3 / 3 * 4/3 = -0.148: 0 is taken (-0.185 is left), 0 again (-0.037), 0 a third time: two of three are right.
    One example of label 2 gives (1/3, 1/3, -2/3), whose least entry is the label.
    """
    assert recover_labels(torch.tensor([-1 / 3, 1 / 3, 0.0]), 3).tolist() == [0, 0, 0]
    assert recover_labels(torch.tensor([1 / 3, 1 / 3, -2 / 3]), 1).tolist() == [2]


def test_labels_of_a_network_with_many_classes_follow_from_its_bias() -> None:
    examples = draw_examples(4)
    update = local_work(dense_network(), examples).send("a", examples)
    bias = classifier_bias(dense_network(), 5)
    assert bias == "3.bias"
    assert sorted(recover_labels(update[bias], 4).tolist()) == sorted(examples.y.tolist())


def test_tokens_follow_from_the_embedding() -> None:
    """Only rows of tokens in the text have a gradient."""

    class Mean(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.words = nn.Embedding(30, 4)
            self.out = nn.Linear(4, 3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.out(self.words(x).mean(1))

    torch.manual_seed(0)
    examples = Examples(torch.tensor([[3, 17, 17, 29]]), torch.tensor([1]))
    update = local_work(Mean(), examples).send("a", examples)
    assert first_embedding(Mean()) == "words"
    assert first_embedding(dense_network()) is None
    assert sorted(recover_tokens(update, "words", 3).tolist()) == [3, 17, 29]


@pytest.mark.parametrize(
    "recipe",
    [
        coterie.fedavg(lr=0.1, local_epochs=3, momentum=0.9, weight_decay=0.01),
        coterie.fedprox(lr=0.1, local_epochs=2, proximal_weight=0.5),
        coterie.scaffold(lr=0.1, local_epochs=2),
    ],
)
def test_an_attacker_computes_what_the_engine_sends(recipe) -> None:
    """The client half of any algorithm, differentiated another way, sends the same, and has a gradient in x."""
    examples = draw_examples(3)
    work = local_work(dense_network(), examples, None, recipe)
    x, y = work.batch(examples)
    x.requires_grad_()
    update = work.as_function("a", examples, 3)(x, y)
    apart = tree.sub(update, work.send("a", examples))
    assert float(tree.norm(apart).detach()) < 1e-10
    (gradient,) = torch.autograd.grad(tree.norm(update), [x])
    assert float(gradient.abs().sum()) > 0


def smooth_network() -> nn.Module:
    torch.manual_seed(1)
    return nn.Sequential(nn.Conv2d(1, 8, 3, padding=1), nn.Sigmoid(), nn.Flatten(), nn.Linear(96, 5))


def error_of(how: Inversion, seen: Tree, work: LocalWork, examples: Examples) -> float:
    x, y = work.batch(examples)
    f = work.as_function("a", examples, len(x))
    found = how.invert(f, seen, y, x.shape, UNIT, rng.key(0, "test"))
    return float((found - x).square().mean())


@pytest.mark.parametrize("match", ["cosine", "squared"])
def test_a_search_finds_the_example_and_noise_hides_it(match: str) -> None:
    """Guessing grey, 1/2, has the error 1/12 for uniform pixels. Fixed draws: the search comes 100 times as near.

    With noise as long as the update itself, z C = |U| / sqrt(d), it does not even halve the error of that guess.
    """
    examples = draw_examples(1)
    work = local_work(smooth_network(), examples)
    update = work.send("a", examples)
    how = Inversion(match, iterations=150, variation=0.0)  # type: ignore[arg-type]
    grey = float((examples.x - 0.5).square().mean())
    assert error_of(how, update, work, examples) < grey / 100
    length = float(tree.norm(update)) / sum(x.numel() for x in update.values()) ** 0.5
    blurred = tree.map(lambda x, like: x.to(like), add_noise(update, length, "a secret"), update)
    assert error_of(how, blurred, work, examples) > grey / 2


def test_steps_that_have_no_derivative_are_refused() -> None:
    """Adam divides by the root of a squared gradient, which has no derivative where a unit is dark."""
    examples = draw_examples(1)
    work = local_work(dense_network(), examples, recipe=coterie.fedavg(lr=0.01, optimizer="adam"))
    with pytest.raises(Mistake, match="have no derivative"):
        error_of(Inversion(iterations=2), work.send("a", examples), work, examples)


def test_rows_of_noised_gradients_are_left_out_where_examples_mix() -> None:
    """BatchNorm by the batch mixes them; a linear layer does not."""
    for model, possible in ((dense(), False), (nn.Linear(6, 3).double(), True)):
        plan = coterie.plan(coterie.fedavg(lr=0.1), model, ragged(), rounds=1, engine=Sequential(dtype=torch.float64))
        assert can_hide_examples(plan) == possible


def test_what_is_seen_under_each_protection() -> None:
    """Two clients, (3, 4) and (0, -1); C = 1: clipped to (0.6, 0.8) and (0, -1); top-k of a half sends the 4."""
    updates = [{"w": torch.tensor([3.0, 4.0])}, {"w": torch.tensor([0.0, -1.0])}]
    sights = {sight.name: sight for sight in see(updates, 1.0, [0.5], 0.5, rng.key(0))}
    values = {name: sight.update["w"].tolist() for name, sight in sights.items()}
    assert values["none"] == values["float16"] == [3.0, 4.0]
    assert values["clip 1"] == pytest.approx([0.6, 0.8])
    assert values["top-k 0.5"] == [0.0, 4.0]
    assert values["sum of 2 clients"] == [3.0, 3.0]
    assert sights["sum of 2 clients"].clients == 2
    apart = torch.tensor(values["sum of 2 clients, noise 0.5"]) - torch.tensor([0.6, -0.2])
    assert 0 < float(apart.norm()) < 4
    assert values["noise 0.5 at the client"] != values["clip 1"]
    assert sights["noise 0.5 at the client"].update["w"].dtype == torch.float32
    costs = {name: sight.epsilon for name, sight in sights.items() if sight.epsilon is not None}
    assert costs == dict.fromkeys(
        ["noise 0.5 at the client", "sum of 2 clients, noise 0.5"], spent({Event(0.5): 1}, DELTA)
    )


def test_a_probes_noise_has_the_deviation_that_is_asked_for() -> None:
    """Of 40,000 draws the deviation is within 2 % (its own standard error is 0.35 %)."""
    blurred = see([{"w": torch.zeros(40_000)}], 0.6, [0.5], 0.5, rng.key(5))[2]
    assert blurred.name == "noise 0.5 at the client"
    assert float(blurred.update["w"].std()) == pytest.approx(0.3, rel=0.02)
    assert float(blurred.update["w"].mean()) == pytest.approx(0.0, abs=0.01)


def test_total_variation_of_a_chessboard() -> None:
    assert float(total_variation(torch.tensor([[[[0.0, 1.0], [1.0, 0.0]]]]))) == 2.0


def test_a_range_without_width_is_zero() -> None:
    box = Range(torch.tensor([1.0, 0.0]), torch.tensor([1.0, 2.0]))
    assert box.unscale(torch.tensor([[1.0, 1.0]])).tolist() == [[0.0, 0.5]]
    assert box.scale(torch.tensor([[0.3, 0.5]])).tolist() == [[1.0, 1.0]]


def test_an_algorithm_that_sends_no_weights_is_refused() -> None:
    examples = draw_examples(4)
    with pytest.raises(Mistake, match="does not follow from one client's own examples"):
        local_work(dense_network(), examples, recipe=coterie.centralized(lr=0.1)).send("pooled", examples)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"match": "best"}, "match"),
        ({"iterations": 0}, "iterations"),
        ({"restarts": 0}, "restarts"),
        ({"variation": -1.0}, "variation"),
    ],
)
def test_an_option_out_of_its_range_is_refused(options: dict, sentence: str) -> None:
    with pytest.raises(Mistake, match=f"{sentence} = "):
        Inversion(**options)
