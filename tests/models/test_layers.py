"""The swapped layers against torch's own: equal where torch's can be used, and right where they cannot."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.func import vmap

from coterie.core import rng, tree
from coterie.core.tree import Tree
from coterie.models.functional import initial_weights, make_task
from coterie.models.layers import KeyedDropout, MaskedBatchNorm, Scope, swap_layers
from coterie.objectives import cross_entropy

SHAPES: dict[str, tuple[type[nn.Module], tuple[int, ...]]] = {
    "1d": (nn.BatchNorm1d, ()),
    "1d over a length": (nn.BatchNorm1d, (5,)),
    "2d": (nn.BatchNorm2d, (3, 2)),
    "3d": (nn.BatchNorm3d, (2, 3, 2)),
}
OPTIONS: dict[str, dict[str, Any]] = {
    "as it comes": {},
    "cumulative": {"momentum": None},
    "momentum 0.5, eps 0.1": {"momentum": 0.5, "eps": 0.1},
    "not affine": {"affine": False},
    "no bias": {"bias": False},
    "no statistics": {"track_running_stats": False},
    "bare": {"track_running_stats": False, "affine": False},
}
every_shape = pytest.mark.parametrize(("kind", "extent"), SHAPES.values(), ids=SHAPES)
every_option = pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)


def pair(kind: type[nn.Module], options: dict[str, Any]) -> tuple[nn.Module, MaskedBatchNorm, Scope]:
    """One of torch's with random parameters, and ours made from an equal one."""

    def make() -> nn.Module:
        torch.manual_seed(0)
        layer = kind(4, **{name: value for name, value in options.items() if name != "bias"}).double()
        if options.get("bias") is False:  # an argument of torch's only since lately
            layer.register_parameter("bias", None)
        for p in layer.parameters():
            nn.init.normal_(p)
        return layer

    scope = Scope()
    ours = swap_layers(make(), scope)
    assert isinstance(ours, MaskedBatchNorm)
    return make(), ours, scope


def inputs(n: int, extent: tuple[int, ...], seed: int = 1) -> Tensor:
    g = torch.Generator().manual_seed(seed)
    centres = torch.arange(4.0).reshape(4, *[1] * len(extent))
    return 3 * torch.randn(n, 4, *extent, generator=g, dtype=torch.float64) + centres


def gradients(layer: nn.Module, outputs: Tensor, x: Tensor) -> list[Tensor]:
    """Of a sum that weighs every output differently, by the inputs and the parameters."""
    weights = torch.linspace(-1, 1, outputs.numel(), dtype=outputs.dtype).reshape(outputs.shape)
    return list(torch.autograd.grad((outputs * weights).sum(), [x, *layer.parameters()]))


def assert_alike(torchs: nn.Module, ours: nn.Module) -> None:
    theirs = torchs.state_dict()
    assert list(theirs) == list(ours.state_dict())
    for name, value in ours.state_dict().items():
        assert torch.allclose(value, theirs[name], rtol=1e-12, atol=1e-12), name


@every_shape
@every_option
def test_without_a_mask_it_is_torch_s(kind: type[nn.Module], extent: tuple[int, ...], options: dict[str, Any]) -> None:
    """Outputs, gradients and running statistics in three training steps, then in evaluation."""
    torchs, ours, _ = pair(kind, options)
    for mode in ("train", "train", "train", "eval"):
        torchs.train(mode == "train"), ours.train(mode == "train")
        x = inputs(6, extent, seed=len(mode)).requires_grad_()
        a, b = torchs(x), ours(x)
        assert torch.allclose(a, b, rtol=1e-10, atol=1e-10)
        for g, h in zip(gradients(torchs, a, x), gradients(ours, b, x), strict=True):
            assert torch.allclose(g, h, rtol=1e-8, atol=1e-9)
        assert_alike(torchs, ours)


@every_shape
@every_option
def test_with_a_mask_only_real_rows_count(
    kind: type[nn.Module], extent: tuple[int, ...], options: dict[str, Any]
) -> None:
    """Ours gives rows 0, 2 and 3 what torch's gives them alone, for any values in the other rows."""
    torchs, ours, scope = pair(kind, options)
    real = torch.tensor([True, False, True, True, False])
    for step in range(3):
        x = inputs(5, extent, seed=step)
        x[1], x[4] = 1e6, x[0]
        x.requires_grad_()
        scope.mask = real
        padded, alone = ours(x)[real], x.detach()[real].requires_grad_()
        expected = torchs(alone)
        assert torch.allclose(padded, expected, rtol=1e-10, atol=1e-10)
        by_x, *by_params = gradients(ours, padded, x)
        expected_by_x, *expected_by_params = gradients(torchs, expected, alone)
        assert torch.allclose(by_x[real], expected_by_x, rtol=1e-8, atol=1e-9)
        assert (by_x[~real] == 0).all()
        for g, h in zip(by_params, expected_by_params, strict=True):
            assert torch.allclose(g, h, rtol=1e-8, atol=1e-9)
        assert_alike(torchs, ours)


@every_shape
def test_a_mask_of_ones_is_no_mask(kind: type[nn.Module], extent: tuple[int, ...]) -> None:
    _, ours, _ = pair(kind, {})
    _, masked, scope = pair(kind, {})
    scope.mask = torch.ones(6, dtype=torch.bool)
    assert torch.allclose(ours(inputs(6, extent)), masked(inputs(6, extent)), rtol=1e-12, atol=1e-12)
    assert_alike(ours, masked)


@pytest.mark.parametrize("mask", [None, torch.tensor([True])])
def test_one_value_has_no_variance(mask: Tensor | None) -> None:
    """One row without extent: the output is the bias, the running mean moves a tenth of the way and the running
    variance stays; with an extent, one row is a batch like any other."""
    _, ours, scope = pair(nn.BatchNorm1d, {})
    scope.mask = mask
    x = inputs(1, ())
    assert torch.allclose(ours(x)[0], ours.bias)
    assert torch.allclose(ours.running_mean, 0.1 * x[0])
    assert ours.running_var.tolist() == [1, 1, 1, 1]
    assert ours.num_batches_tracked == 1
    torchs, ours, scope = pair(nn.BatchNorm2d, {})
    scope.mask = mask
    x = inputs(1, (3, 2))
    assert torch.allclose(ours(x), torchs(x), rtol=1e-10, atol=1e-10)
    assert_alike(torchs, ours)


@pytest.mark.parametrize("momentum", [0.1, None])
def test_padding_alone_changes_nothing(momentum: float | None) -> None:
    """The statistics stay, the outputs are finite, and no gradient reaches the parameters' sum over real rows."""
    _, ours, scope = pair(nn.BatchNorm1d, {"momentum": momentum})
    ours(inputs(6, ()))
    before = {name: value.clone() for name, value in ours.state_dict().items()}
    scope.mask = torch.zeros(6, dtype=torch.bool)
    assert ours(inputs(6, (), seed=2)).isfinite().all()
    assert all(torch.equal(value, before[name]) for name, value in ours.state_dict().items())


def test_statistics_that_were_switched_off_stay() -> None:
    """`layer.track_running_stats = False` on a layer that has them, as torch's: used in evaluation, moved never."""
    torchs, source = nn.BatchNorm1d(4).double(), nn.BatchNorm1d(4).double()
    torchs.track_running_stats = source.track_running_stats = False
    ours = swap_layers(source, Scope())
    x = inputs(6, ())
    for mode in (True, False):
        assert torch.allclose(torchs.train(mode)(x), ours.train(mode)(x), rtol=1e-12, atol=1e-12)
    assert_alike(torchs, ours)


def test_a_batch_of_clients_is_each_client_alone() -> None:
    """Under vmap, with ragged masks: statistics and outputs client by client."""
    model = nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3)).double()
    task, start = make_task(model, loss=cross_entropy), initial_weights(model)
    x = torch.stack([inputs(5, (), seed=k) for k in range(3)])
    mask = torch.arange(5) < torch.tensor([5, 2, 1])[:, None]
    own_buffers = tree.stack([start["buffers"]] * 3)
    step = vmap(task.apply, in_dims=(None, 0, 0, 0, None))
    batched, buffers = step(start["params"], own_buffers, x, mask, rng.key(0))
    for k, n in enumerate((5, 2, 1)):
        alone, own = task.apply(start["params"], start["buffers"], x[k, :n], None, rng.key(0))
        assert torch.allclose(batched[k, :n], alone, rtol=1e-10, atol=1e-10)
        for name, value in own.items():
            assert torch.allclose(buffers[name][k], value, rtol=1e-12), name


def dropping(layer: nn.Module) -> Callable[[Tensor, int], Tensor]:
    """The swapped layer as a function of its inputs and a key."""
    scope = Scope()
    ours = swap_layers(layer, scope)
    assert isinstance(ours, KeyedDropout)

    def call(x: Tensor, key: int = 0) -> Tensor:
        scope.enter(None, rng.key("dropout", key))
        return ours(x)

    return call


@pytest.mark.parametrize("p", [0.1, 0.5, 0.9])
def test_dropout_zeroes_a_share_p_and_scales_the_rest(p: float) -> None:
    """Of n = 20000 entries n p are zero, within five standard deviations; the others are 1 / (1 - p)."""
    y = dropping(nn.Dropout(p))(torch.ones(200, 100))
    zero = y == 0
    assert abs(int(zero.sum()) - 20000 * p) < 5 * (20000 * p * (1 - p)) ** 0.5
    assert torch.allclose(y[~zero], torch.tensor(1 / (1 - p)))


def test_dropout_is_even_over_places_and_keys() -> None:
    """Over 2000 keys every one of 12 places is dropped 1000 times, within five standard deviations of 22.4."""
    layer = dropping(nn.Dropout(0.5))
    dropped = sum((layer(torch.ones(4, 3), key) == 0).long() for key in range(2000))
    assert isinstance(dropped, Tensor)
    assert ((dropped - 1000).abs() < 5 * 22.4).all()


def test_gradients_are_dropped_with_their_entries() -> None:
    x = torch.randn(5, 6, requires_grad=True)
    y = dropping(nn.Dropout(0.4))(x)
    (gradient,) = torch.autograd.grad(y.sum(), x)
    assert torch.equal(gradient, torch.where(y == 0, 0.0, 1 / 0.6))


@pytest.mark.parametrize(
    ("layer", "extent"), [(nn.Dropout1d(0.5), (7,)), (nn.Dropout2d(0.5), (3, 4)), (nn.Dropout3d(0.5), (2, 3, 2))]
)
def test_whole_channels_go_together(layer: nn.Module, extent: tuple[int, ...]) -> None:
    y = dropping(layer)(torch.ones(20, 30, *extent)).flatten(2)  # [B, C, ...]
    kept = y[:, :, 0] != 0
    assert torch.equal(y != 0, kept[:, :, None].expand_as(y))
    assert abs(int(kept.sum()) - 300) < 5 * 12.3
    assert len({tuple(row) for row in kept.tolist()}) > 15  # each example has channels of its own


def test_p_of_0_and_of_1() -> None:
    x = torch.randn(5, 6)
    assert torch.equal(dropping(nn.Dropout(0.0))(x), x)
    assert torch.equal(dropping(nn.Dropout(1.0))(x), torch.zeros(5, 6))


def run(model: nn.Module, x: Tensor, key: int = 0, training: bool = True) -> Tensor:
    task, weights = make_task(model, loss=cross_entropy), initial_weights(model)
    if not training:
        return task.predict(weights["params"], weights["buffers"], x)
    return task.apply(weights["params"], weights["buffers"], x, None, rng.key(key))[0]


class Twice(nn.Module):
    """The same dropout in two places of a forward, and another one."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.other = nn.Dropout(0.5), nn.Dropout(0.5)

    def forward(self, x: Tensor) -> Tensor:
        return torch.stack([self.one(x), self.one(x), self.other(x)])


def test_layers_calls_and_keys_differ_and_repeat() -> None:
    model, x = Twice(), torch.ones(1, 64)
    masks = [tuple(row) for key in (0, 1) for row in run(model, x, key).flatten(1).tolist()]
    assert len(set(masks)) == 6
    assert [tuple(row) for row in run(model, x, 0).flatten(1).tolist()] == masks[:3]


def test_evaluation_drops_nothing() -> None:
    x = torch.randn(5, 6)
    assert torch.equal(run(nn.Sequential(nn.Dropout(0.9), nn.Dropout2d(0.9)), x, training=False), x)


def test_a_padded_batch_drops_the_same_of_its_real_rows() -> None:
    layer = dropping(nn.Dropout(0.5))
    x = torch.randn(7, 6)
    assert torch.equal(layer(x)[:4], layer(x[:4]))


class Model(nn.Module):
    """Layers in a Sequential in a ModuleList in a ModuleDict, one of them in two places, and one twice in one place."""

    def __init__(self) -> None:
        super().__init__()
        shared, drop = nn.BatchNorm1d(4), nn.Dropout(0.5)
        self.blocks = nn.ModuleDict({"a": nn.ModuleList([nn.Sequential(nn.Linear(4, 4), shared, drop, drop)])})
        self.again = shared
        self.nothing = None
        self.register_module("absent", None)

    def forward(self, x: Tensor) -> Tensor:
        return self.again(self.blocks["a"][0](x))


def kinds(model: nn.Module) -> dict[str, str]:
    return {name: type(m).__name__ for name, m in model.named_modules(remove_duplicate=False) if not list(m.children())}


def test_swap_reaches_every_place() -> None:
    assert kinds(swap_layers(Model(), Scope())) == {
        "blocks.a.0.0": "Linear",
        "blocks.a.0.1": "MaskedBatchNorm",
        "blocks.a.0.2": "KeyedDropout",
        "blocks.a.0.3": "KeyedDropout",
        "again": "MaskedBatchNorm",
    }
    assert isinstance(swap_layers(nn.BatchNorm2d(3), Scope()), MaskedBatchNorm)
    assert isinstance(swap_layers(nn.SyncBatchNorm(3), Scope()), MaskedBatchNorm)


def test_shared_layers_stay_shared_and_names_stay() -> None:
    source = Model()
    names = list(source.state_dict())
    swapped = swap_layers(source, Scope())
    assert swapped.again is swapped.blocks["a"][0][1]
    assert swapped.blocks["a"][0][2] is swapped.blocks["a"][0][3]
    assert list(swapped.state_dict()) == names


def test_other_layers_are_kept() -> None:
    class Frozen(nn.BatchNorm1d):
        """A layer of the model's own, which normalises by its statistics in training too."""

        def forward(self, input: Tensor) -> Tensor:
            return nn.functional.batch_norm(input, self.running_mean, self.running_var)

    class Renamed(nn.BatchNorm1d):
        pass

    layers = nn.Sequential(
        nn.LayerNorm(4), nn.GroupNorm(2, 4), nn.InstanceNorm1d(4), nn.AlphaDropout(0.5), Frozen(4), Renamed(4)
    )
    found = [type(m).__name__ for m in swap_layers(layers, Scope())]
    assert found == ["LayerNorm", "GroupNorm", "InstanceNorm1d", "AlphaDropout", "Frozen", "MaskedBatchNorm"]


def test_the_user_s_model_is_untouched() -> None:
    model = Model()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    modules = list(model.modules())
    run(model, torch.randn(8, 4))
    assert list(model.modules()) == modules
    assert kinds(model)["again"] == "BatchNorm1d"
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


class Counting(nn.Module):
    """Writes into its buffers in place, and (torch's BatchNorm, swapped) so does its layer."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.BatchNorm1d(4)
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        return self.layer(x)


def test_what_a_forward_writes_goes_into_its_result_and_nowhere_else() -> None:
    model = Counting()
    task, weights = make_task(model, loss=cross_entropy), initial_weights(model)
    before = {name: b.clone() for name, b in weights["buffers"].items()}
    results: list[Tree] = [
        task.apply(weights["params"], weights["buffers"], torch.randn(8, 4) + k, None, rng.key(0))[1] for k in range(3)
    ]
    for result in results:
        assert result["calls"] == 1
        assert result["layer.num_batches_tracked"] == 1
    assert len({float(result["layer.running_mean"].sum()) for result in results}) == 3
    assert all(torch.equal(b, before[name]) for name, b in weights["buffers"].items())
    assert model.calls == 0
