"""Converting a model's BatchNorm to GroupNorm or LayerNorm, and back."""

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from coterie import Mistake
from coterie.models.normalisation import convert_normalisation
from tests.algorithms.normed import MODELS, batch, every_model

kinds = pytest.mark.parametrize("to", ["group", "layer"])


def disturb(model: nn.Module, key: int = 0) -> nn.Module:
    """Change weights, biases and statistics of the model's layers, as training might."""
    g = torch.Generator().manual_seed(key)
    for tensor in model.state_dict().values():
        if tensor.is_floating_point():
            tensor.add_(torch.rand(tensor.shape, generator=g))
    return model


@every_model
@kinds
def test_converting_there_and_back_gives_the_same_model(model: str, to: str) -> None:
    make, shape = MODELS[model]
    before = disturb(make()).eval()
    after = convert_normalisation(convert_normalisation(before, to), "batch").eval()
    assert str(after) == str(before)
    assert before.state_dict().keys() == after.state_dict().keys()
    assert all(torch.equal(value, after.state_dict()[name]) for name, value in before.state_dict().items())
    assert torch.equal(before(batch(shape)), after(batch(shape)))


@every_model
@kinds
def test_no_batchnorm_is_left_and_the_original_is_unchanged(model: str, to: str) -> None:
    before = disturb(MODELS[model][0]())
    held = copy.deepcopy(before.state_dict())
    after = convert_normalisation(before, to)
    assert not [m for m in after.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    assert not [name for name in after.state_dict() if "running" in name]
    with torch.no_grad():
        for p in after.parameters():
            p.add_(1)
    assert all(torch.equal(value, before.state_dict()[name]) for name, value in held.items())


@every_model
@kinds
def test_each_example_is_normalised_by_itself(model: str, to: str) -> None:
    make, shape = MODELS[model]
    converted, x = convert_normalisation(make(), to).train(), batch(shape)
    assert torch.allclose(converted(x)[:1], converted(x[:1]), rtol=0, atol=1e-12)


def test_one_group_is_layer_normalisation_over_channels() -> None:
    model = disturb(nn.Sequential(nn.BatchNorm1d(6)).double())
    x = batch((6,))
    expected = F.layer_norm(x, [6], model[0].weight, model[0].bias, model[0].eps)
    assert torch.allclose(convert_normalisation(model, "layer")(x), expected, rtol=0, atol=1e-12)


def test_trained_weights_are_converted_back() -> None:
    model = convert_normalisation(nn.Sequential(nn.BatchNorm2d(4), nn.BatchNorm2d(4, affine=False)), "group")
    with torch.no_grad():
        model[0].weight.fill_(3.0)
    back = convert_normalisation(model, "batch")
    assert (back[0].weight == 3).all()
    assert back[1].weight is None


def test_one_kind_is_converted_to_another() -> None:
    model = nn.Sequential(nn.BatchNorm2d(4))
    assert convert_normalisation(convert_normalisation(model, "group", groups=4), "layer")[0].num_groups == 1


def test_a_layer_in_two_places_stays_one_layer() -> None:
    layer = nn.BatchNorm1d(4)
    converted = convert_normalisation(nn.Sequential(layer, nn.Linear(4, 4), layer), "group")
    assert converted[0] is converted[2]


def test_other_normalisation_layers_stay() -> None:
    model = nn.Sequential(nn.GroupNorm(2, 4), nn.LayerNorm(4))
    assert str(convert_normalisation(model, "batch")) == str(model) == str(convert_normalisation(model, "layer"))


@pytest.mark.parametrize(
    ("to", "groups", "sentence"),
    [
        ("instance", 2, r'^normalisation = "instance": it must be "batch", "group" or "layer"$'),
        ("group", 3, r"^groups = 3: it must divide the channels of every layer, and one has 4"),
        ("group", 0, r"^groups = 0: it must be 1 or more$"),
    ],
)
def test_arguments_out_of_range_are_refused(to, groups: int, sentence: str) -> None:
    with pytest.raises(Mistake, match=sentence):
        convert_normalisation(nn.Sequential(nn.BatchNorm1d(4)), to, groups)
