"""HBN: what a layer does with its factor, whole rounds by a plain loop, and what stays with a client."""

import copy
from collections.abc import Iterable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import coterie
from coterie import Examples, Mistake
from coterie.algorithms.batchnorm import hbn as module
from coterie.algorithms.batchnorm.gradients import constant_gradient
from coterie.algorithms.batchnorm.hbn import mix
from coterie.core.normaliser import LayerInput, Moments, Normaliser, normalise
from tests.algorithms.normed import FULL, PAPER, batch, dense, every_engine, run, task_of
from tests.federations import distance, ragged


def outputs(phi: float, normaliser: Normaliser, x: Tensor) -> Tensor:
    """What the model gives in training by statistics of its own, each layer with this factor."""
    task, weights = task_of(dense(), normaliser)
    given = {f"{layer}.phi": torch.full_like(weights["buffers"][f"{layer}.running_mean"], phi) for layer in ("1", "5")}
    factors = given if normaliser is mix else {}
    return task.apply(weights["params"] | factors, weights["buffers"], x, None, torch.tensor(0))[0]


def test_at_its_ends_the_mixture_is_fbn_and_batchnorm() -> None:
    x = batch((6,))
    assert torch.allclose(outputs(-60.0, mix, x), outputs(0.0, constant_gradient, x), rtol=0, atol=1e-10)
    assert torch.allclose(outputs(60.0, mix, x), dense().train()(x), rtol=0, atol=1e-10)


def test_the_gradient_by_the_factor() -> None:
    """With v = V + a (s_B - V) + eps, y = (x - M - a (mu_B - M)) / sqrt(v) and the sum of g y for a loss, dl/da is

    -sum(g) (mu_B - M) / sqrt(v) - sum(g y) (s_B - V) / (2 v), and dl/dphi is a (1 - a) times that.
    """
    model, x = nn.BatchNorm1d(3, affine=False).double(), batch((3,))
    task, weights = task_of(model, mix)
    mean, var = weights["buffers"]["running_mean"], weights["buffers"]["running_var"]
    g = torch.randn(x.shape, generator=torch.Generator().manual_seed(1), dtype=x.dtype)
    phi = torch.tensor([-1.0, 0.0, 2.0], dtype=x.dtype, requires_grad=True)
    y, _ = task.apply({"phi": phi}, weights["buffers"], x, None, torch.tensor(0))
    (g * y).sum().backward()
    a, to_mean, to_var = phi.detach().sigmoid(), x.mean(0) - mean, x.var(0, correction=0) - var
    v, y = var + a * to_var + 1e-5, y.detach()
    by_a = -g.sum(0) * to_mean / v.sqrt() - (g * y).sum(0) * to_var / (2 * v)
    assert phi.grad is not None
    assert torch.allclose(phi.grad, a * (1 - a) * by_a, rtol=0, atol=1e-12)


class Hybrid(nn.BatchNorm1d):
    """A plain layer: in training it mixes, and remembers the mixture."""

    def __init__(self, like: nn.BatchNorm1d):
        super().__init__(like.num_features)
        self.load_state_dict(like.state_dict())
        self.phi = nn.Parameter(torch.zeros(like.num_features, dtype=torch.float64))
        self.double()

    def forward(self, x: Tensor) -> Tensor:
        a = torch.sigmoid(self.phi)
        self.seen = (
            (1 - a) * self.running_mean + a * x.mean(0),
            (1 - a) * self.running_var + a * x.var(0, correction=0),
        )
        return (x - self.seen[0]) / (self.seen[1] + self.eps).sqrt() * self.weight + self.bias


def plain() -> nn.Module:
    model = dense()
    return nn.Sequential(*(Hybrid(m) if isinstance(m, nn.BatchNorm1d) else m for m in model))


def layers(model: nn.Module) -> list[Hybrid]:
    return [m for m in model if isinstance(m, Hybrid)]


def trained(server: nn.Module, own: nn.Module, examples: Examples) -> None:
    """One step of SGD from the server's weights and the client's own factors, left in `own`."""
    own.load_state_dict(server.state_dict() | {name: x for name, x in own.state_dict().items() if name.endswith("phi")})
    x, y = examples.tensors()
    descent = torch.optim.SGD(own.parameters(), lr=0.05)
    descent.zero_grad()
    F.cross_entropy(own(x), y).backward()
    descent.step()


def averaged(server: nn.Module, owns: Iterable[nn.Module], shares: list[float]) -> None:
    parameters = [dict(own.named_parameters()) for own in owns]
    for name, w in server.named_parameters():
        w.data = sum(s * p[name].detach() for s, p in zip(shares, parameters, strict=True))


def pooled(own: list[nn.Module], sizes: list[int], k: int) -> tuple[Tensor, Tensor]:
    """Mean and unbiased variance of what layer k's values were taken for, over all clients."""
    n, seen = sum(sizes), [layers(m)[k].seen for m in own]
    mean = sum(size / n * mu for size, (mu, _) in zip(sizes, seen, strict=True))
    square = sum(size / n * (s + (mu - mean) ** 2) for size, (mu, s) in zip(sizes, seen, strict=True))
    return mean, square * n / (n - 1)


@every_engine
def test_whole_rounds_by_a_plain_loop(engine: str) -> None:
    """Three times two rounds, each client's batches whole: the factors last, what is mixed moves by 0.3, what is
    evaluated is the new.
    """
    clients = ragged(sizes=(7, 12, 9))
    recipe = coterie.hbn(**FULL, statistics_batch=12, statistics_momentum=0.3)
    last = run(recipe, dense(), clients, rounds=6, engine=engine)
    server, owns, sizes = plain(), [plain() for _ in clients], [7, 12, 9]
    for _ in range(3):
        for own, examples in zip(owns, clients.values(), strict=True):
            trained(server, own, examples)
        averaged(server, owns, [size / 28 for size in sizes])
        factors = [[layer.phi.detach() for layer in layers(own)] for own in owns]
        looked = [copy.deepcopy(server) for _ in owns]
        for model, phis, examples in zip(looked, factors, clients.values(), strict=True):
            for layer, phi in zip(layers(model), phis, strict=True):
                layer.phi.data = phi
            model(examples.tensors()[0])
        evaluated = [pooled(looked, sizes, k) for k in range(2)]
        for layer, (mean, var) in zip(layers(server), evaluated, strict=True):
            layer.running_mean.lerp_(mean.detach(), 0.3)
            layer.running_var.lerp_(var.detach(), 0.3)
    weights = {name: p.detach() for name, p in server.named_parameters() if not name.endswith("phi")}
    for place, (mean, var) in zip(("1", "5"), evaluated, strict=True):
        weights |= {f"{place}.running_mean": mean.detach(), f"{place}.running_var": var.detach()}
    found = {name: x for name, x in last.weights().items() if not name.endswith("tracked")}
    assert distance(found, weights) < 1e-10
    for client, phis in zip(clients, factors, strict=True):
        kept = last.plan.client_state(last.store, client)["algorithm"]["phi"]
        assert distance(kept, {"1.phi": phis[0], "5.phi": phis[1]}) < 1e-10
        assert all((phi.abs() > 1e-6).any() for phi in phis)


def mix_by_the_figure(layer: LayerInput) -> tuple[Tensor, Moments]:
    """As the authors draw it: sigmoid(phi) is the share of the shared statistics, 1 - sigmoid(phi) the batch's."""
    mean, var, number = layer.batch
    a = torch.sigmoid(layer.extra["phi"])
    mean, var = a * layer.running_mean + (1 - a) * mean, a * layer.running_var + (1 - a) * var
    return normalise(layer.x, mean, var, layer.eps), Moments(mean, var, number)


@every_engine
def test_the_factor_of_the_authors_figure_is_ours_with_the_other_sign(
    engine: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Four trained rounds of three steps with momentum, weight decay and clipping: the weights and the statistics
    agree, and the factors are each other's negatives.
    """
    clients = ragged(sizes=(7, 12, 9))
    local = {**FULL, "local_steps": 3, "momentum": 0.9, "keep_momentum": True, "weight_decay": 0.01, "clip_norm": 1.0}
    recipe = coterie.hbn(**local, statistics_batch=12, statistics_momentum=0.3)
    ours = run(recipe, dense(), clients, rounds=8, engine=engine)
    monkeypatch.setattr(module, "mix", mix_by_the_figure)
    theirs = run(recipe, dense(), clients, rounds=8, engine=engine)
    assert distance(ours.weights(), theirs.weights()) < 1e-12
    for client in clients:
        mine, other = (last.plan.client_state(last.store, client)["algorithm"]["phi"] for last in (ours, theirs))
        assert distance(mine, {name: -phi for name, phi in other.items()}) < 1e-12
        assert all((phi.abs() > 1e-3).any() for phi in mine.values())


def test_the_factors_are_not_sent() -> None:
    """Up go four bytes for each parameter in a round that trains, and in one that measures two numbers for each channel
    and a count for each layer. What is saved loads into the model as it was.
    """
    model, clients = dense(), ragged()
    first, second = coterie.federate(coterie.hbn(**FULL), model, clients, rounds=2)
    assert first.bytes_up == len(clients) * 4 * sum(p.numel() for p in model.parameters())
    assert second.bytes_up == len(clients) * 4 * (2 * 14 + 2)
    model.load_state_dict(second.weights())


def test_a_single_example_is_normalised_by_what_is_shared() -> None:
    model, clients = dense(), {"a": Examples(batch((6,), 1), torch.tensor([1]))}
    mixed = run(coterie.hbn(**FULL), model, clients, rounds=1).weights()
    given = run(coterie.fbn(**PAPER), model, clients, rounds=1).weights()
    for name, _ in model.named_parameters():
        assert torch.allclose(mixed[name], given[name], rtol=0, atol=1e-12)


def test_what_cannot_be_used() -> None:
    with pytest.raises(Mistake, match=r"statistics_batch = 0: it must be 1 or more"):
        coterie.hbn(lr=0.1, statistics_batch=0)
    with pytest.raises(Mistake, match=r"statistics_momentum = 1\.5: it must be from 0 to 1"):
        coterie.hbn(lr=0.1, statistics_momentum=1.5)
    with pytest.raises(Mistake, match="it has no BatchNorm layer"):
        coterie.plan(coterie.hbn(lr=0.1), nn.Linear(6, 3), ragged(), rounds=1)
