"""Losses on two views, against numbers worked out by hand."""

import math

import pytest
import torch

from coterie.objectives.self_supervised_losses import enqueue, info_nce, simsiam, spread

P1, Z2 = torch.tensor([[3.0, 4.0]]), torch.tensor([[1.0, 0.0]])
P2, Z1 = torch.tensor([[0.0, 2.0]]), torch.tensor([[1.0, 1.0]])


def test_simsiam_by_hand() -> None:
    """cos(p1, z2) = 3 / 5 and cos(p2, z1) = 2 / (2 sqrt 2), so the loss is -(0.6 + 0.70711) / 2 = -0.65355."""
    assert simsiam(P1, Z1, P2, Z2).tolist() == pytest.approx([-(0.6 + 1 / math.sqrt(2)) / 2])
    same = torch.randn(5, 7)
    assert simsiam(same, 2 * same, same, 3 * same).tolist() == pytest.approx([-1.0] * 5)
    assert simsiam(same, -same, same, -same).tolist() == pytest.approx([1.0] * 5)


def test_no_gradient_goes_through_the_targets() -> None:
    """d cos(p, z) / dp = z / (|p| |z|) - cos p / |p|^2, and the loss has -1/2 of it.

    For p1 = (3, 4), z2 = (1, 0) that is (1, 0) / 5 - 0.6 (3, 4) / 25 = (0.128, -0.096). For p2 = (0, 2), z1 = (1, 1),
    which are 45 degrees apart, it is (1, 1) / (2 sqrt 2) - (0, 2) / (4 sqrt 2) = (0.35355, 0).
    """
    inputs = [x.clone().requires_grad_() for x in (P1, Z1, P2, Z2)]
    found = torch.autograd.grad(simsiam(*inputs).sum(), inputs, allow_unused=True)
    assert found[1] is None
    assert found[3] is None
    assert found[0].tolist()[0] == pytest.approx([-0.064, 0.048], abs=1e-6)
    assert found[2].tolist()[0] == pytest.approx([-0.5 / (2 * math.sqrt(2)), 0.0], abs=1e-6)


def test_outputs_of_zero_have_a_loss_and_a_gradient() -> None:
    """A batch of one example has such outputs behind BatchNorm."""
    zero = torch.zeros(1, 3, requires_grad=True)
    loss = simsiam(zero, torch.zeros(1, 3), zero, torch.zeros(1, 3))
    assert loss.tolist() == [0]
    assert torch.isfinite(torch.autograd.grad(loss.sum(), zero)[0]).all()


def test_info_nce_by_hand() -> None:
    """q.k = 0.6, q.queue = 0 and -1; over T = 1/2 the logits are 1.2, 0 and -2, so the loss is
    log(e^1.2 + 1 + e^-2) - 1.2 = log(3.32012 + 1 + 0.13534) - 1.2 = 0.29411.
    """
    q, k = torch.tensor([[1.0, 0.0]]), torch.tensor([[0.6, 0.8]], requires_grad=True)
    queue = torch.tensor([[0.0, 1.0], [-1.0, 0.0]], requires_grad=True)
    loss = info_nce(q, k, queue, temperature=0.5)
    assert loss.tolist() == pytest.approx([0.29411], abs=1e-4)
    q = q.clone().requires_grad_()
    found = torch.autograd.grad(info_nce(q, k, queue, 0.5).sum(), [q, k, queue], allow_unused=True)
    assert found[0] is not None
    assert found[1] is found[2] is None


def test_spread_by_hand() -> None:
    """(1, 0) and (-1, 0) deviate by 1 in one place of two, by 1/2 on average, over 1 / sqrt 2. All alike: 0."""
    assert float(spread(torch.tensor([[2.0, 0.0], [-5.0, 0.0]]))) == pytest.approx(0.5 * 2**0.5)
    assert float(spread(torch.ones(8, 4) * torch.arange(1.0, 9)[:, None])) == pytest.approx(0, abs=1e-3)
    assert float(spread(torch.zeros(8, 4))) == 0


def test_evenly_spread_directions_have_a_spread_of_one() -> None:
    """4096 random directions in 64 dimensions: each number deviates by 1/8, known to about 1 / sqrt(2 4096 64)."""
    z = torch.randn(4096, 64, generator=torch.Generator().manual_seed(0))
    assert float(spread(z)) == pytest.approx(1, abs=0.01)


def test_spread_counts_real_rows_only() -> None:
    z = torch.randn(6, 3, generator=torch.Generator().manual_seed(1))
    mask = torch.tensor([True, True, True, True, False, False])
    assert float(spread(z, mask)) == pytest.approx(float(spread(z[:4])))


def test_keys_take_the_places_of_the_oldest() -> None:
    """A queue of five, the next place the fourth: two keys go to the fourth and fifth, the third to the first."""
    queue, keys = torch.zeros(5, 2), torch.tensor([[1.0, 1.0], [2.0, 2.0], [3.0, 3.0]])
    after, place = enqueue(queue, torch.tensor(3), keys)
    assert after[:, 0].tolist() == [3, 0, 0, 1, 2]
    assert int(place) == 1
    assert not queue.any()


def test_padding_is_not_enqueued() -> None:
    keys = torch.tensor([[1.0], [9.0], [2.0], [9.0]])
    after, place = enqueue(torch.zeros(4, 1), torch.tensor(1), keys, torch.tensor([True, False, True, False]))
    assert after[:, 0].tolist() == [0, 1, 2, 0]
    assert int(place) == 3


def test_queues_of_many_clients_at_once() -> None:
    g = torch.Generator().manual_seed(2)
    queue, keys = torch.randn(3, 7, 2, generator=g), torch.randn(3, 4, 2, generator=g)
    place, mask = torch.tensor([0, 5, 6]), torch.rand(3, 4, generator=g) < 0.6
    both, places = torch.func.vmap(enqueue)(queue, place, keys, mask)
    for k in range(3):
        alone, at = enqueue(queue[k], place[k], keys[k], mask[k])
        assert torch.equal(both[k], alone)
        assert int(places[k]) == int(at)
