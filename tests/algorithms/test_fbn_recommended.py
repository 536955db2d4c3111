"""FBN's recommended variant: the round with own batches, centred gradients, Muon, and which options mean which."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import coterie
from coterie import Mistake, plan
from coterie.algorithms.batchnorm.centring import take_out_means
from coterie.algorithms.batchnorm.variants import complete_variant
from coterie.algorithms.optimizers import muon, orthogonalise
from coterie.models.kernels_before_norms import kernels_before_norms
from coterie.models.registry import build
from tests.algorithms.normed import MODELS, dense, every_engine, every_model, one_label_each, run, together
from tests.federations import distance, ragged

STEP: dict[str, Any] = {"lr": 0.05, "batch_size": "full", "local_steps": 1}


@every_model
@every_engine
@pytest.mark.parametrize("server", ["sgd", "muon"])
def test_from_equal_statistics_on_many_clients_are_one_client(model: str, engine: str, server: str) -> None:
    """Nine rounds after the one with own batches, which alone depends on how examples are dealt.

    Centring is linear, and the clip and the server's step see the average alone.
    """
    make, shape = MODELS[model]
    clients = one_label_each(shape)
    measured = run(coterie.fbn(**STEP), make(), clients, rounds=1, engine=engine).weights()
    start = make()
    start.load_state_dict(measured)
    gradient: Any = {"sgd": "pooled", "muon": "constant"}[server]
    recipe = coterie.fbn(**STEP, variant="recommended", warm_start=0, server=server, gradient=gradient)
    apart, pooled = (run(recipe, start, each, rounds=9, engine=engine) for each in (clients, together(clients)))
    assert distance(apart.weights(), pooled.weights()) < 1e-6
    assert distance(apart.weights(), measured) > 0.05  # they moved


def test_in_the_first_round_clients_normalise_by_their_own_batch() -> None:
    """By hand: the second layer's statistics are those of what the first one gives, normalised client by client."""
    torch.manual_seed(0)
    first, second = nn.BatchNorm1d(2).double(), nn.BatchNorm1d(2).double()
    clients = ragged(sizes=(4, 6), shape=(2,))
    last = run(coterie.fbn(**STEP), nn.Sequential(first, second, nn.Linear(2, 3).double()), clients, rounds=1).weights()
    x = [examples.tensors()[0].double() for examples in clients.values()]
    y = torch.cat([(b - b.mean(0)) / (b.var(0, correction=0) + first.eps).sqrt() for b in x])
    for layer, values in (("0", torch.cat(x)), ("1", y)):
        torch.testing.assert_close(last[f"{layer}.running_mean"], values.mean(0))
        torch.testing.assert_close(last[f"{layer}.running_var"], values.var(0))


def test_after_the_first_round_every_variance_is_near_that_of_fresh_examples() -> None:
    """ResNet-20 of width 4 on noise, clients alike: each V within a factor of 1.5 of BatchNorm's on a fresh batch."""
    draw = torch.Generator().manual_seed(0)
    noise = torch.randn(200, 3, 8, 8, generator=draw)
    labels = torch.arange(200) % 3
    clients = {str(k): coterie.Examples(noise[25 * k : 25 * k + 25], labels[25 * k : 25 * k + 25]) for k in range(4)}
    model = build("resnet20", [3, 8, 8], 3, 0, width=4)
    recipe = coterie.fbn(lr=0.1, batch_size="full", local_steps=1)
    (last,) = coterie.federate(recipe, model, clients, rounds=1)
    weights = last.weights()
    norms = {name: layer for name, layer in model.named_modules() if isinstance(layer, nn.BatchNorm2d)}
    for layer in norms.values():
        layer.momentum = 1.0
    with torch.no_grad():
        model.train()(noise[100:])
    assert len(norms) == 19
    for name, layer in norms.items():
        ratio = weights[f"{name}.running_var"].mean() / layer.running_var.mean()  # type: ignore[union-attr]
        assert 1 / 1.5 < float(ratio) < 1.5, name


def test_further_measuring_rounds_move_by_the_momentum() -> None:
    """Weights stay, and (M, V) of the second layer moves by 0.3 towards what the second round sees."""
    clients = ragged(sizes=(4, 6), shape=(2,))
    model = nn.Sequential(nn.BatchNorm1d(2), nn.BatchNorm1d(2), nn.Linear(2, 3)).double()
    rounds = [run(coterie.fbn(**STEP, variant="recommended", warm_start=n), model, clients, rounds=n) for n in (1, 2)]
    first, second = (round.weights() for round in rounds)
    x = torch.cat([examples.tensors()[0].double() for examples in clients.values()])
    torch.testing.assert_close(second["0.running_mean"], first["0.running_mean"])
    normal = (x - first["0.running_mean"]) / (first["0.running_var"] + 1e-5).sqrt()
    moved = 0.7 * first["1.running_var"] + 0.3 * normal.var(0)
    torch.testing.assert_close(second["1.running_var"], moved)
    assert torch.equal(second["2.weight"], model[2].weight)  # type: ignore[arg-type]


def test_the_means_of_filters_stay_where_a_norm_follows_and_move_elsewhere() -> None:
    make, shape = MODELS["images"]
    before = {name: w.clone() for name, w in make().state_dict().items()}
    after = run(coterie.fbn(**STEP, variant="recommended"), make(), one_label_each(shape), rounds=3).weights()
    centred = kernels_before_norms(make())
    assert centred == ("0.3.main.0.weight", "0.3.downsample.0.weight")
    for name in ("0.0.weight", *centred):
        shift = (after[name] - before[name]).mean((1, 2, 3)).abs().max()
        assert (float(shift) < 1e-12) == (name in centred), name
        assert not torch.equal(after[name], before[name])


def test_centring_by_hand() -> None:
    gradient = {"a": torch.tensor([[1.0, 2.0, 6.0], [0.0, 0.0, 3.0]]), "b": torch.tensor([[1.0, 2.0]])}
    centred = take_out_means(gradient, {"a"})
    assert centred["a"].tolist() == [[-2.0, -1.0, 3.0], [-1.0, -1.0, 2.0]]
    assert centred["b"] is gradient["b"]


class Twice(nn.Module):
    """Convolutions into a norm and past it, into a frozen norm, and transposed: none of them is centred."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = nn.Conv2d(2, 2, 1), nn.Conv2d(2, 2, 1), nn.Conv2d(2, 2, 1)
        self.up = nn.ConvTranspose2d(2, 2, 1)
        self.norms = nn.ModuleList(nn.BatchNorm2d(2) for _ in range(3))
        for p in self.norms[1].parameters():
            p.requires_grad_(False)

    def forward(self, x: Tensor) -> Tensor:
        y = self.b(self.a(x).relu())
        y = self.norms[0](y) + y
        return self.norms[2](self.up(self.norms[1](self.c(y))))


class Branching(nn.Module):
    """A model whose graph depends on its input."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(6, 3), nn.BatchNorm1d(3))

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x) if x.sum() > 0 else self.layers(-x)


def test_kernels_are_found_from_the_graph() -> None:
    assert kernels_before_norms(Twice()) == ()
    net = nn.Sequential(nn.Conv1d(2, 2, 1), nn.ReLU(), nn.Conv1d(2, 2, 1), nn.BatchNorm1d(2), nn.Conv1d(2, 2, 1))
    assert kernels_before_norms(net) == ("2.weight",)
    assert len(kernels_before_norms(build("resnet20", [3, 32, 32], 10, 0))) == 18


def test_a_graph_that_cannot_be_read_is_not_centred_and_said() -> None:
    with pytest.raises(Mistake, match="graph cannot be read"):
        kernels_before_norms(Branching())
    recipe, clients = coterie.fbn(lr=0.05, batch_size="full"), ragged()
    with pytest.warns(UserWarning, match=r"graph cannot be read .* not centred"):
        coterie.federate(recipe, Branching(), clients, rounds=3)


def test_orthogonal_steps_have_the_length_that_was_asked_for() -> None:
    draw = torch.Generator().manual_seed(0)
    for shape in ((8, 30), (30, 8)):
        values = torch.linalg.svdvals(orthogonalise(torch.randn(shape, generator=draw)))
        assert 0.6 < float(values.min()) <= float(values.max()) < 1.3
    assert orthogonalise(torch.zeros(3, 4)).eq(0).all()
    params = {"kernel": torch.randn(4, 3, 3, 3, generator=draw), "bias": torch.randn(4, generator=draw)}
    gradient = {name: torch.randn(w.shape, generator=draw) for name, w in params.items()}
    optimizer = muon(lr=0.5, momentum=0.9, kernel_step=0.03)
    moved, state = optimizer.apply(params, gradient, optimizer.init(params))
    step = moved["kernel"] - params["kernel"]
    assert float(step.norm()) == pytest.approx(0.5 * 0.03 * float(params["kernel"].norm()), rel=1e-5)
    torch.testing.assert_close(moved["bias"], params["bias"] - 0.5 * gradient["bias"])
    torch.testing.assert_close(state["momentum"], gradient)


@pytest.mark.parametrize(
    ("given", "variant"),
    [
        ({}, "recommended"),
        ({"server_clip_norm": 2.0, "centre": False}, "recommended"),
        ({"gradient": "renorm"}, "paper"),
        ({"statistics_momentum": 0.1}, "paper"),
        ({"warm_start": 0}, "paper"),
        ({"warm_start": 3, "variant": "recommended"}, "recommended"),
    ],
)
def test_what_is_given_says_which_variant_is_meant(given: dict[str, Any], variant: str) -> None:
    complete = complete_variant(given)
    assert complete["variant"] == variant
    assert complete | given == complete
    assert complete_variant(complete) == complete


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"variant": "best"}, r'variant = "best": it must be "recommended" or "paper"'),
        ({"warm_start": "yes"}, r'warm_start = "yes": it must be .*0 or more, or "own"'),
        ({"server": "adam"}, r'server = "adam": it must be "sgd" or "muon"'),
        ({"server_clip_norm": -1.0}, r"server_clip_norm = -1\.0: it must be a number above 0"),
    ],
)
def test_what_cannot_be_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(Mistake, match=message):
        coterie.fbn(lr=0.1, **options)


@pytest.mark.parametrize(
    ("options", "warns"),
    [
        ({"local_steps": 1}, False),
        ({"local_epochs": 1, "batch_size": "full"}, False),
        ({"local_steps": 2, "batch_size": "full"}, True),
        ({"local_epochs": 2, "batch_size": "full"}, True),
        ({"local_epochs": 1, "batch_size": 4}, True),
    ],
)
@pytest.mark.parametrize("variant", ["recommended", "paper"])
def test_a_round_of_several_steps_is_warned_of(variant: Any, options: dict[str, Any], warns: bool) -> None:
    recipe = coterie.fbn(lr=0.1, variant=variant, **options)
    warnings = plan(recipe, dense(), ragged(), rounds=10).algorithm.warnings(10)
    assert any("local_steps = 1" in warning for warning in warnings) == warns
