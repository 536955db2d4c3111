"""Models by name, and their initial weights."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from coterie.core.errors import Mistake
from coterie.models import MODELS, build


def weights(name="mlp", rng_seed=0, **options):
    return torch.cat([p.flatten() for p in build(name, [1, 8, 8], 10, rng_seed, **options).parameters()])


def test_weights_depend_on_the_rng_seed_alone():
    first = weights()
    torch.manual_seed(123)
    torch.randn(7)
    assert torch.equal(weights(), first)
    assert not torch.equal(weights(rng_seed=1), first)


def test_building_leaves_torchs_random_state_alone():
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    weights()
    assert torch.equal(torch.rand(3), expected)


def test_options_reach_the_model():
    assert build("mlp", [4], 3, 0, hidden=[7])[1].out_features == 7


def test_a_function_gets_what_its_signature_takes():
    def bare():
        return nn.Linear(1, 1)

    def shaped(in_shape, width=3):
        return nn.Linear(in_shape[0], width)

    def anything(**given):
        return nn.Linear(given["in_shape"][0], given["num_classes"] + given["extra"])

    assert build(bare, [5], 2, 0).in_features == 1
    assert build(shaped, [5], 2, 0, width=4).weight.shape == (4, 5)
    assert build(shaped, [5], None, 0).weight.shape == (3, 5)
    assert build(anything, [5], 2, 0, extra=1).weight.shape == (3, 5)


def test_a_function_of_ones_own_is_imported_from_the_given_folders(tmp_path):
    (tmp_path / "own_house.py").write_text(
        "from torch import nn\n\n\ndef net(num_classes):\n    return nn.Linear(1, num_classes)\n"
    )
    assert build("own_house:net", [5], 2, 0, folders=[tmp_path]).out_features == 2
    with pytest.raises(Mistake, match=r'^name = "own_house:nets": .*own_house.py has no function "nets"$'):
        build("own_house:nets", [5], 2, 0, folders=[tmp_path])


READ = """
import sys, types
package = types.ModuleType("coterie")
package.__path__ = [sys.argv[1]]
sys.modules |= {"coterie": package, "torch": None}  # importing torch fails
from coterie.models import MODELS
print(*MODELS)
try:
    MODELS.find("mpl", key="model.name")
except ValueError as mistake:
    print(mistake)
"""


def test_names_are_checked_without_pytorch():
    package = Path(__file__).parents[2] / "coterie"
    done = subprocess.run([sys.executable, "-c", READ, str(package)], capture_output=True, text=True, check=False)
    names, mistake = done.stdout.splitlines()
    assert names.split() == list(MODELS)
    assert mistake.startswith('model.name = "mpl": did you mean "mlp"? It must be one of 2nn, ')
    assert mistake.endswith('"timm:NAME", "huggingface:NAME", or "package.module:function"')


@pytest.mark.parametrize(("name", "near"), [("cn", "cnn"), ("CNN", "cnn"), ("mpl", "mlp"), ("logistics", "logistic")])
def test_an_unknown_name_lists_the_names_and_the_nearest(name, near):
    with pytest.raises(Mistake, match=rf'^name = "{name}": did you mean "{near}"\? It must be one of 2nn, '):
        build(name, [1, 8, 8], 10, 0)


def test_a_name_like_no_other_gets_no_suggestion():
    with pytest.raises(Mistake, match=r'^name = "perceiver": it must be one of 2nn, '):
        build("perceiver", [1, 8, 8], 10, 0)


def test_mistakes_are_one_sentence():
    with pytest.raises(Mistake, match=r"^width = 3: mlp has no such option; it takes hidden$"):
        build("mlp", [4], 3, 0, width=3)
    with pytest.raises(Mistake, match=r"^width = 3: 2nn has no such option; it takes none$"):
        build("2nn", [4], 3, 0, width=3)
    with pytest.raises(
        Mistake, match=r'"mlp": it cannot be made without num_classes; there are no classes in these data$'
    ):
        build("mlp", [4], None, 0)
    with pytest.raises(Mistake, match=r"cannot be made without depth; give depth$"):
        build(lambda depth: nn.Linear(depth, 1), [4], 3, 0)
    with pytest.raises(Mistake, match=r"gave a int; it must return a torch.nn.Module$"):
        build(lambda: 3, [4], 3, 0)
    with pytest.raises(Mistake, match=r"its layer 0 learns its size from its first input, but .* give the layer its"):
        build(lambda: nn.Sequential(nn.LazyBatchNorm1d(), nn.Linear(4, 3)), [4], 3, 0)


IMAGES = [name for name in MODELS if "lstm" not in name and name != "transformer"]


@pytest.mark.parametrize("name", IMAGES)
@pytest.mark.parametrize("in_shape", [[1, 8, 8], [3, 17, 24]])
def test_every_image_model_adapts_to_the_shape(name, in_shape):
    patch = {"patch": 1} if name == "vit" and in_shape[1] % 4 else {}  # patches divide the image
    model = build(name, in_shape, 5, 0, **patch).eval()
    out = model(torch.rand(2, *in_shape))
    assert out.shape == (2, 5)
    assert torch.isfinite(out).all()
    assert not torch.equal(out[0], out[1])
