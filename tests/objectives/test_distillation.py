"""Distillation: its value, its gradient, and why one mean teacher can replace many."""

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given
from torch import Tensor

from coterie.objectives.distillation import absolute_difference, distillation, soften


def logits(rng_seed: int, *shape: int) -> Tensor:
    return 3 * torch.randn(*shape, generator=torch.Generator().manual_seed(rng_seed), dtype=torch.float64)


def gradient(outputs: Tensor, teachers: list[Tensor], temperature: float) -> Tensor:
    """Return the gradient of the summed distillation, its mean over the teachers."""
    outputs = outputs.clone().requires_grad_()
    loss = torch.stack([distillation(outputs, t, temperature)[0].sum() for t in teachers]).mean()
    return torch.autograd.grad(loss, outputs)[0]


def test_the_value_by_hand():
    """p = (3/4, 1/4), q = (1/2, 1/2): KL = 3/4 log 3/2 + 1/4 log 1/2. At T = 2 the student (log 9, 0) has q = (3/4,
    1/4), and the teacher (1/2, 1/2) is off by 1/2 log 2/3 + 1/2 log 2, times 4."""
    p, q = torch.tensor([[0.75, 0.25]]), torch.tensor([[0.0, 0.0]])
    sums, counts = distillation(q, p)
    expected = 0.75 * torch.tensor(1.5).log() + 0.25 * torch.tensor(0.5).log()
    assert sums.item() == pytest.approx(expected.item())
    assert counts.tolist() == [1.0]
    sums, _ = distillation(torch.tensor([[9.0, 1.0]]).log(), torch.tensor([[0.5, 0.5]]), temperature=2.0)
    expected = 4 * (0.5 * torch.tensor(2 / 3).log() + 0.5 * torch.tensor(2.0).log())
    assert sums.item() == pytest.approx(expected.item())


@given(st.integers(1, 5), st.sampled_from([0.5, 1.0, 3.0]), st.integers(0, 1000))
def test_the_mean_of_divergences_has_the_gradient_of_the_divergence_from_the_mean(n, temperature, rng_seed):
    """KL(p || q) is cross-entropy, linear in p, less the entropy of p, which does not depend on the student."""
    teachers = [soften(logits(rng_seed + 1 + j, 6, 4), temperature) for j in range(n)]
    outputs = logits(rng_seed, 6, 4)
    one = gradient(outputs, [torch.stack(teachers).mean(0)], temperature)
    assert torch.allclose(gradient(outputs, teachers, temperature), one, rtol=0, atol=1e-12)


@given(st.sampled_from([0.5, 1.0, 3.0]), st.integers(0, 1000))
def test_a_student_that_agrees_with_its_teacher_has_nothing_to_learn(temperature, rng_seed):
    outputs = logits(rng_seed, 6, 4)
    teacher = soften(outputs, temperature)
    assert distillation(outputs, teacher, temperature)[0].abs().max() < 1e-12
    assert gradient(outputs, [teacher], temperature).abs().max() < 1e-12


def test_a_teacher_that_is_certain_is_cross_entropy():
    outputs, y = logits(0, 5, 3), torch.tensor([0, 2, 1, 1, 0])
    sums, _ = distillation(outputs, torch.nn.functional.one_hot(y, 3).double())
    assert torch.allclose(sums, torch.nn.functional.cross_entropy(outputs, y, reduction="none"))


def test_a_teacher_may_be_slightly_below_zero_by_rounding():
    """Rounding leaves -1e-9 where a class has no mass; it counts as 0, whose logarithm is not taken."""
    sums, _ = distillation(torch.zeros(1, 2), torch.tensor([[1.0, -1e-9]]))
    assert sums.item() == pytest.approx(torch.tensor(2.0).log().item())


def test_sequences_count_their_positions():
    outputs = logits(0, 2, 5, 3)
    sums, counts = distillation(outputs, soften(logits(1, 2, 5, 3)))
    each, _ = distillation(outputs.reshape(10, 3), soften(logits(1, 2, 5, 3)).reshape(10, 3))
    assert counts.tolist() == [5.0, 5.0]
    assert torch.allclose(sums, each.reshape(2, 5).sum(1))


def test_absolute_difference_is_a_mean_over_classes():
    sums, counts = absolute_difference(torch.tensor([[1.0, 2.0], [0.0, 0.0]]), torch.tensor([[0.0, 4.0], [0.0, 0.0]]))
    assert sums.tolist() == [1.5, 0.0]
    assert counts.tolist() == [1.0, 1.0]
