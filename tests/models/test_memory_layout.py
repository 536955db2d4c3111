"""The layout of images in memory changes only the speed of a model."""

import pytest
import torch
from torch import Tensor, nn
from torch.func import vmap

from coterie.core.rng import key
from coterie.models.functional import initial_weights, make_task
from coterie.models.memory_layout import ImageLayout
from coterie.objectives import cross_entropy


class Flattening(nn.Module):
    """Two convolutions with dropout between them, flattened in one of two ways."""

    def __init__(self, reshape: str) -> None:
        super().__init__()
        self.a, self.drop, self.b = nn.Conv2d(3, 4, 3), nn.Dropout(0.5), nn.Conv2d(4, 2, 3)
        self.reshape = reshape

    def forward(self, x: Tensor) -> Tensor:
        return getattr(self.b(self.drop(self.a(x))), self.reshape)(len(x), -1)


def gradient(model: nn.Module, x: Tensor) -> dict[str, Tensor]:
    task, weights = make_task(model, loss=cross_entropy), initial_weights(model)
    params = {name: p.requires_grad_() for name, p in weights["params"].items()}
    for _ in range(2):
        total = task.apply(params, {}, x, None, key("test"))[0].square().sum()
        grads = dict(zip(params, torch.autograd.grad(total, list(params.values())), strict=True))
    return {**grads, "outputs": task.predict(params, {}, x)}


def test_both_layouts_give_the_same_and_view_needs_the_plain_one() -> None:
    """`view` fails in channels last, at first in the middle of a forward: dropout must not notice the second try."""
    torch.manual_seed(0)
    flexible = Flattening("reshape").double()
    strict = Flattening("view").double()
    strict.load_state_dict(flexible.state_dict())
    x = torch.randn(5, 3, 6, 6, dtype=torch.float64)
    one, other = gradient(flexible, x), gradient(strict, x)
    assert all(torch.allclose(one[name], other[name], atol=1e-12) for name in one)


@pytest.mark.parametrize(("model", "x", "wanted"), [
    (nn.Conv2d(3, 1, 1), torch.randn(2, 3, 4, 4), True),
    (nn.Conv2d(1, 1, 1), torch.randn(2, 1, 4, 4), True),
    (nn.Linear(4, 1), torch.randn(2, 3, 4, 4), False),
    (nn.Conv2d(3, 1, 1), torch.randn(3, 4, 4), False),
])  # fmt: skip
def test_which_models_and_images_get_channels_last(model: nn.Module, x: Tensor, wanted: bool) -> None:
    """One channel fits both layouts; it is the strides that make PyTorch choose."""
    given: list[Tensor] = []
    ImageLayout(model)(given.append, x)
    assert torch.equal(given[0], x)
    assert (given[0].stride() == x.stride()) != wanted


def test_other_failures_are_raised() -> None:
    def forward(x: Tensor) -> None:
        raise RuntimeError("shapes cannot be multiplied")

    layout = ImageLayout(nn.Conv2d(3, 1, 1))
    with pytest.raises(RuntimeError, match="cannot be multiplied"):
        layout(forward, torch.randn(2, 3, 4, 4))
    assert layout.channels_last


def test_many_clients_at_once_keep_the_plain_layout() -> None:
    layout, conv, x = ImageLayout(nn.Conv2d(3, 1, 1)), nn.Conv2d(3, 1, 1), torch.randn(4, 2, 3, 5, 5)
    assert torch.allclose(vmap(lambda x: layout(conv, x))(x)[1], conv(x[1]), atol=1e-6)


class NormFirst(nn.Module):
    """GroupNorm directly on the pictures, though another layer was made first."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(2, 4, 3), nn.GroupNorm(1, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(self.norm(x)).flatten(1)


def test_a_group_norm_trains_on_inputs_without_a_gradient() -> None:
    """With channels last the process would crash: behind frozen layers, and where the layer is the first that runs."""
    torch.manual_seed(0)
    behind = nn.Sequential(nn.Conv2d(2, 4, 3), nn.GroupNorm(2, 4), nn.Flatten())
    behind[0].requires_grad_(False)
    for model in (behind.double(), NormFirst().double()):
        x = torch.randn(3, 2, 6, 6, dtype=torch.float64)
        trained = [p for p in model.parameters() if p.requires_grad]
        by_hand = torch.autograd.grad(model(x).square().sum(), trained)
        ours = gradient(model, x)
        names = [name for name, p in model.named_parameters() if p.requires_grad]
        assert all(torch.allclose(ours[name], g, atol=1e-12) for name, g in zip(names, by_hand, strict=True))
