"""Parts of a model by name: freezing them, scaling their learning rates, and finding the head."""

from collections.abc import Mapping

import pytest
import torch
from torch import nn

import coterie
from coterie import Examples, Mistake
from coterie.core import tree
from coterie.models import registry
from coterie.models.model_parts import freeze_parts, head_names, lr_scales
from tests.algorithms.normed import every_engine, run
from tests.common.recipes import RECIPES
from tests.federations import dense, distance, ragged, seed_set

PARTS = {"0": 0.1, "1.bias": 3.0, "4": 0.5}


def trainable(model: nn.Module) -> set[str]:
    return {name for name, p in model.named_parameters() if p.requires_grad}


def test_freeze_by_name_and_all_but_the_head() -> None:
    model = registry.build("resnet20", [3, 8, 8], 10, rng_seed=0, width=2)
    freeze_parts({"resnet20": model}, ["conv", "norm.weight", "stage1.2"])
    names = {name for name, _ in model.named_parameters()}
    still = {name for name in names if name.startswith(("conv.", "norm.weight", "stage1.2."))}
    assert trainable(model) == names - still
    freeze_parts({"resnet20": model}, "all but head")
    assert trainable(model) == {"output.weight", "output.bias"}


def test_each_part_must_be_in_one_of_several_models() -> None:
    models = {"mlp": registry.build("mlp", [4], 3, rng_seed=0, hidden=[5]), "logistic": nn.Sequential(nn.Linear(4, 3))}
    freeze_parts(models, ["1"])
    assert trainable(models["mlp"]) == {"3.weight", "3.bias"}
    assert trainable(models["logistic"]) == {"0.weight", "0.bias"}


@pytest.mark.parametrize(
    ("parts", "sentence"),
    [
        (["stage"], r'^freeze = \["stage"\]: the model has no part "stage" with parameters; did you mean stage\d'),
        (["stage1.conv3"], r'no part "stage1.conv3" .* did you mean stage\d'),
        (["xyz"], "there are conv, norm, stage1, stage2, stage3, output, and the parts inside them"),
        ([""], 'no part ""'),
        (
            ["conv", "norm", "stage1", "stage2", "stage3", "output"],
            r"^freeze = \[.*: nothing is left to train; leave some",
        ),
    ],
)
def test_parts_that_cannot_be_frozen_are_refused(parts: list[str], sentence: str) -> None:
    with pytest.raises(Mistake, match=sentence):
        freeze_parts({"": registry.build("resnet20", [3, 8, 8], 10, rng_seed=0, width=2)}, parts)


class NamesItsHead(nn.Module):
    """A model that names its head itself."""

    head_parameters = frozenset({"first.bias"})

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(2, 2), nn.Linear(2, 2)


@pytest.mark.parametrize(
    ("model", "names"),
    [
        (nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 2), nn.BatchNorm1d(2)), {"1.weight", "1.bias"}),
        (nn.Sequential(nn.Conv2d(1, 2, 1), nn.Conv2d(2, 3, 1, bias=False), nn.ReLU()), {"1.weight"}),
        (nn.Linear(2, 2), {"weight", "bias"}),
        (NamesItsHead(), {"first.bias"}),
    ],
)
def test_the_head(model: nn.Module, names: set[str]) -> None:
    assert head_names(model) == names


@every_engine
@pytest.mark.parametrize("clip", [None, 0.05])
def test_scaled_rates_equal_torchs_parameter_groups(engine: str, clip: float | None) -> None:
    """One client, full batches, momentum and weight decay: as `torch.optim.SGD` with a group for each factor s, lr
    times s and weight decay over s, so that what is decayed per step stays the same; a gradient is clipped when it is
    scaled."""
    model, clients = dense()[:2], {"a": next(iter(ragged((9,)).values()))}
    options = {"lr": 0.1, "batch_size": "full", "local_steps": 4, "momentum": 0.5, "weight_decay": 0.01}
    scales = {"0": 0.1, "1.bias": 3.0}
    recipe = coterie.fedavg(**options, clip_norm=clip)  # type: ignore[arg-type]
    after = run(recipe, model, clients, rounds=1, engine=engine, lr_scale=scales, num_classes=8).weights()
    train_by_hand(model, clients["a"], lr_scales({"": model}, scales)[""], clip)
    assert distance(tree.floats(after), tree.floats(dict(model.state_dict()))) < 1e-12


def train_by_hand(model: nn.Module, examples: Examples, scales: Mapping[str, float], clip: float | None) -> None:
    groups = [
        {"params": [p], "lr": 0.1 * scales.get(name, 1), "weight_decay": 0.01 / scales.get(name, 1)}
        for name, p in model.named_parameters()
    ]
    optimizer, (x, y) = torch.optim.SGD(groups, momentum=0.5), examples.tensors()
    for _ in range(4):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(x), y).backward()
        if clip is not None:
            scaled = torch.stack([p.grad.norm() * scales.get(name, 1) for name, p in model.named_parameters()])
            for p in model.parameters():
                p.grad *= min(1.0, clip / float(scaled.norm()))
        optimizer.step()


@pytest.mark.parametrize("recipe", ["scaffold, option I", "fbn", "fedh2l", "feddf", "fedssl"])
def test_every_algorithm_applies_the_scales_on_both_engines(recipe: str) -> None:
    options = {"rounds": 2, "seed_set": seed_set(), "cohort": 0.7}
    plain, slow, batched = (
        run(RECIPES[recipe], dense(), ragged(), engine=engine, lr_scale=scales, **options).weights("0")
        for engine, scales in (("sequential", {}), ("sequential", PARTS), ("vectorised", PARTS))
    )
    assert distance(slow, batched) < 1e-9
    assert distance(plain, slow) > 1e-3


@pytest.mark.parametrize(
    ("scales", "sentence"),
    [
        ({"0": 0.0}, r'^lr_scale."0" = 0.0: it must be a number above 0; freeze stops a part$'),
        ({"0": float("inf")}, "a number above 0"),
        ({"7": 0.5}, '^lr_scale."7" = 0.5: the model has no part "7" with parameters; there are'),
        ({"1": 0.5}, r'^lr_scale."1" = 0.5: this part is frozen and has no learning rate'),
    ],
)
def test_parts_that_cannot_be_scaled_are_refused(scales: dict[str, float], sentence: str) -> None:
    model = dense()
    model[1].requires_grad_(False)
    with pytest.raises(Mistake, match=sentence):
        coterie.plan(coterie.fedavg(lr=0.1), model, ragged(), rounds=1, lr_scale=scales)
