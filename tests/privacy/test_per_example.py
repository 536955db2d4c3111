"""Gradients that hide each example: against loops, hand-made sums, Opacus, and whatever a client may hold."""

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from coterie.algorithms.batchnorm.gradients import constant_gradient
from coterie.algorithms.batchnorm.tasks import with_normaliser
from coterie.core import rng
from coterie.core.errors import Mistake
from coterie.core.task import Batch, Task
from coterie.core.tree import Tree
from coterie.models.functional import initial_weights, make_task
from coterie.objectives import cross_entropy
from coterie.privacy import per_example
from coterie.privacy.per_example import EPS, LEAST_BOUND, ExampleLevel, example_gradients, noise_numbers, sum_clipped
from tests.federations import convolutional, distance


class Recurrent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.lstm, self.head = nn.LSTM(3, 5, batch_first=True), nn.Linear(5, 3)

    def forward(self, x: Tensor) -> Tensor:
        outputs: Tensor = self.head(self.lstm(x)[0][:, -1])
        return outputs


class Attentive(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed, self.head = nn.Embedding(7, 8), nn.Linear(8, 7)
        self.layer = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        outputs: Tensor = self.head(self.layer(self.embed(x)))
        return outputs


def cnn() -> nn.Module:
    return nn.Sequential(nn.Conv2d(1, 4, 3), nn.GroupNorm(2, 4), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 36, 3))


MODELS: dict[str, tuple[Any, Any, Any]] = {
    "cnn": (cnn, lambda: torch.randn(6, 1, 8, 8).double(), lambda: torch.arange(6) % 3),
    "fbn": (convolutional, lambda: torch.randn(6, 1, 8, 8).double(), lambda: torch.arange(6) % 3),
    "lstm": (Recurrent, lambda: torch.randn(6, 4, 3).double(), lambda: torch.arange(6) % 3),
    "transformer": (Attentive, lambda: torch.arange(24).reshape(6, 4) % 7, lambda: torch.arange(24).reshape(6, 4) % 5),
}


def make(name: str) -> tuple[Task, Tree, Batch]:
    torch.manual_seed(3)
    model, x, y = MODELS[name]
    network = model().double()
    task, weights = make_task(network, loss=cross_entropy), initial_weights(network)
    if name == "fbn":
        task = with_normaliser(task, constant_gradient)
        task = replace(task, unbatchable=None)
    batch = Batch(x(), y(), torch.arange(6), None, rng.key("step"), torch.tensor(4.0).double())
    return task, weights, batch


def alone(task: Task, weights: Tree, batch: Batch, i: int) -> tuple[Tree, Tree]:
    """The plain gradient of a batch of one example, with its own key, and the buffers after it."""
    key = rng.fold(batch.key, i)
    one = Batch(
        batch.x[i : i + 1], batch.y[i : i + 1] if batch.y is not None else None, batch.rows[i : i + 1], None, key
    )
    grads, buffers, _ = replace(task, gradient_rule=None).gradient(weights["params"], weights["buffers"], one)
    return grads, buffers


@pytest.mark.parametrize("name", MODELS)
def test_gradients_of_single_examples_are_those_of_a_loop_over_them(name: str) -> None:
    """Also with dropout, which draws for each example by a key of its own."""
    task, weights, batch = make(name)
    grads, after = example_gradients(task, weights["params"], weights["buffers"], batch, torch.arange(6))
    for i in range(6):
        expected, buffers = alone(task, weights, batch, i)
        assert distance({k: g[i] for k, g in grads.items()}, expected) < 1e-10
        assert not buffers or distance({k: b[i] for k, b in after.items()}, buffers) < 1e-10


@pytest.mark.parametrize("name", ["cnn", "lstm"])
def test_a_step_clips_each_example_and_divides_by_the_expected_size(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """(sum_e g_e min(1, C / |g_e|) + z C noise) / B by a loop; the same in parts of two examples, with a mask."""
    task, weights, batch = make(name)
    number, mask = noise_numbers(task, weights), torch.tensor([True, True, False, True, True, False])
    noise = torch.randn(number).double()
    rule = ExampleLevel(0.7, 1.3, number)
    total = torch.zeros(number).double()
    for i in torch.arange(6)[mask].tolist():
        flat = torch.cat([g.flatten() for g in alone(task, weights, batch, i)[0].values()])
        total += flat * min(1.0, 0.7 / float(flat.norm()))
    expected = (total + 1.3 * 0.7 * noise) / 4
    size = sum(p.numel() * 8 for p in weights["params"].values())
    for bytes_at_a_time in (2**27, 2 * size):
        monkeypatch.setattr(per_example, "GRADIENT_BYTES", bytes_at_a_time)
        grads, _, logs = rule(task, weights["params"], weights["buffers"], batch._replace(mask=mask, noise=noise))
        assert float((torch.cat([g.flatten() for g in grads.values()]) - expected).abs().max()) < 1e-12
    assert (float(logs["loss"]), float(logs["count"])) == (0, 4)


def test_a_batch_without_an_example_is_noise_alone() -> None:
    task, weights, batch = make("cnn")
    number = noise_numbers(task, weights)
    empty = batch._replace(mask=torch.zeros(6, dtype=torch.bool), noise=torch.ones(number).double())
    grads, _, _ = ExampleLevel(0.7, 1.3, number)(task, weights["params"], weights["buffers"], empty)
    assert all(torch.allclose(g, torch.tensor(1.3 * 0.7 / 4).double(), rtol=1e-12) for g in grads.values())


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.lists(st.floats(width=32), min_size=3, max_size=3), min_size=1, max_size=4),
    st.floats(1e-3, 1e3),
)
def test_no_example_moves_the_sum_by_more_than_the_bound(vectors: list[list[float]], bound: float) -> None:
    """Whatever its gradient: NaN, infinities and numbers whose squares overflow count as 0 or are clipped."""
    v = torch.tensor(vectors)
    without = sum_clipped({"a": v[1:, :1], "b": v[1:, 1:]}, bound, None)
    whole = sum_clipped({"a": v[:, :1], "b": v[:, 1:]}, bound, None)
    moved = torch.cat([whole["a"] - without["a"], whole["b"] - without["b"]])
    assert moved.isfinite().all()
    assert float(moved.norm()) <= bound * (1 + 1e-5 * len(vectors))


def test_the_least_bound_can_be_measured_in_float32() -> None:
    """A million numbers of 1e-17, whose squares are near the smallest float32, have the norm 1e-14, not 0."""
    small = torch.full((1, 1_000_000), 1e-17)
    for scale in (1e-3, 1.0, 1e5, 1e9):
        moved = sum_clipped({"a": small * scale}, LEAST_BOUND, None)["a"].double()
        assert float(moved.norm()) <= LEAST_BOUND * (1 + 1e-5)


def test_the_statistics_of_fbn_s_layers_are_a_clipped_and_noised_sum() -> None:
    """Without clipping and with almost no noise they are the batch's own, as the plain step reports them."""
    task, weights, batch = make("fbn")
    number = noise_numbers(task, weights)
    batch = batch._replace(expected=torch.tensor(6.0).double(), noise=torch.zeros(number).double())
    rule = ExampleLevel(1.0, 1.0, number, statistics_clip=1e6)
    _, reported, _ = rule(task, weights["params"], weights["buffers"], batch)
    measured, _ = rule.measure(task, weights["params"], weights["buffers"], batch)
    keyed = [alone(task, weights, batch, i)[1] for i in range(6)]
    for layer in task.batch_norms:
        mean = torch.stack([b[f"{layer}.running_mean"] for b in keyed])
        var = torch.stack([b[f"{layer}.running_var"] for b in keyed])
        pooled = mean.mean(0), (var + mean**2).mean(0) - mean.mean(0) ** 2
        for buffers in (reported, measured):
            assert torch.allclose(buffers[f"{layer}.running_mean"], pooled[0], atol=1e-10)
            assert torch.allclose(buffers[f"{layer}.running_var"], pooled[1], atol=1e-10)
        values = {"1": 36, "5": 16}[layer]
        assert int(reported[f"{layer}.num_batches_tracked"]) == 6 * values


@pytest.mark.parametrize("trains", [True, False])
def test_one_example_moves_gradient_and_statistics_together_by_one_over_z(trains: bool) -> None:
    """In standard deviations of their noise; with bounds that cut everything it is exactly that.

    |g| / (z C / sqrt(1 - a)) and |report| / (z C_s / sqrt(a)) are sqrt(1 - a) / z and sqrt(a) / z, and 1 / z together.
    """
    task, weights, batch = make("fbn")
    number, z, a = noise_numbers(task, weights), 1.7, 0.3
    rule = ExampleLevel(1e-6, z, number, statistics_clip=1e-6, statistics_share=a)

    def release(mask: list[bool], noise: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        given = batch._replace(mask=torch.tensor(mask), noise=noise)
        if trains:
            grads, after, _ = rule(task, weights["params"], weights["buffers"], given)
        else:
            grads, (after, _) = {}, rule.measure(task, weights["params"], weights["buffers"], given)
        means = [after[f"{n}.running_mean"] / (weights["buffers"][f"{n}.running_var"] + EPS).sqrt() for n in ("1", "5")]
        seconds = [
            (after[f"{n}.running_var"] + after[f"{n}.running_mean"] ** 2 - weights["buffers"][f"{n}.running_var"])
            / (weights["buffers"][f"{n}.running_var"] + EPS)
            for n in ("1", "5")
        ]
        flat = torch.cat([torch.zeros(0).double(), *(g.flatten() for g in grads.values())])
        return flat, {"u": torch.cat(means), "s": torch.cat(seconds)}

    none, zeros, ones = [False] * 6, torch.zeros(number).double(), torch.ones(number).double()
    grad, report = release([True, *none[1:]], zeros)
    grad_0, report_0 = release(none, zeros)
    grad_1, report_1 = release(none, ones)
    shares = [((report[k] - report_0[k]) / (report_1[k] - report_0[k])) ** 2 for k in ("u", "s")]
    moved = sum(float(x.sum()) for x in shares)
    if trains:
        moved += float((((grad - grad_0) / (grad_1 - grad_0)) ** 2).sum())
    assert math.sqrt(moved) == pytest.approx(1 / z, rel=1e-3)


def test_opacus_takes_the_same_step() -> None:
    """Its clipped sum over a batch, without noise, on a network with GroupNorm."""
    opacus = pytest.importorskip("opacus")
    torch.manual_seed(0)
    model = cnn().double()
    task, weights = make_task(model, loss=cross_entropy), initial_weights(model)
    x, y, size = torch.randn(8, 1, 8, 8).double(), torch.arange(8) % 3, torch.tensor(8.0).double()
    number = noise_numbers(task, weights)
    noise = torch.zeros(number).double()
    batch = Batch(x, y, torch.arange(8), None, rng.key("step"), size, noise)
    grads, _, _ = ExampleLevel(0.5, 1.0, number)(task, weights["params"], weights["buffers"], batch)
    wrapped = opacus.GradSampleModule(model)
    optimizer = opacus.optimizers.DPOptimizer(
        torch.optim.SGD(wrapped.parameters(), lr=1.0), noise_multiplier=0.0, max_grad_norm=0.5, expected_batch_size=8
    )
    nn.functional.cross_entropy(wrapped(x), y).backward()
    optimizer.pre_step()
    theirs = {name.removeprefix("_module."): p.grad for name, p in wrapped.named_parameters()}
    assert distance(grads, theirs) < 1e-6  # Opacus adds 1e-6 to the norm that it divides by


def test_values_out_of_range_and_batches_without_noise_are_refused() -> None:
    for wrong in (
        {"clip_norm": 0.0},
        {"clip_norm": 1e-20},
        {"statistics_clip": 1e-20},
        {"noise_multiplier": math.inf},
        {"statistics_share": 1.0},
    ):
        with pytest.raises(Mistake, match="must be"):
            ExampleLevel(**({"clip_norm": 1.0, "noise_multiplier": 1.0, "numbers": 3} | wrong))
    task, weights, batch = make("cnn")
    rule = ExampleLevel(1.0, 1.0, noise_numbers(task, weights))
    with pytest.raises(RuntimeError, match="without noise"):
        rule(task, weights["params"], weights["buffers"], batch)
