"""Models of torchvision and timm. Stand-ins replace the packages, so that the tests do not need them: they have the
functions that we call, with the same arguments and results.
"""

import enum
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import safetensors.torch
import torch
from torch import Tensor, nn

from coterie import Mistake
from coterie.experiment import folder_jobs
from coterie.experiment.run import run
from coterie.experiment.settings import load_settings
from coterie.models import libraries, registry
from coterie.models.model_parts import head_names
from tests.experiment.files import written


class Small(nn.Module):
    """A library's network, with names of its own and a BatchNorm layer."""

    def __init__(self, num_classes: int = 1000) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, 4, 3, bias=False), nn.BatchNorm2d(4)
        self.fc = nn.Linear(4, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        assert x.shape[1] == 3
        return self.fc(self.bn1(self.conv1(x)).mean((2, 3)))


def trained_small() -> Small:
    torch.manual_seed(3)
    return Small()


class Weights(enum.Enum):
    """Two sets of published weights, trained on images that were normalised in different ways."""

    V1 = 0.5
    V2 = 0.25
    DEFAULT = V2

    def transforms(self) -> Any:
        return SimpleNamespace(mean=[self.value] * 3, std=[2.0] * 3)

    def get_state_dict(self, progress: bool, check_hash: bool, weights_only: bool) -> dict[str, Tensor]:
        assert (progress, check_hash, weights_only) == (False, True, True)
        return {name: value + self.value for name, value in trained_small().state_dict().items()}


def torchvision() -> dict[str, ModuleType]:
    models = ModuleType("torchvision.models")

    def get_model(name: str, weights: None, num_classes: int) -> nn.Module:
        assert (name, weights) == ("small", None)
        return Small(num_classes)

    models.list_models = lambda module: ["small", "large"]  # type: ignore[attr-defined]
    models.get_model = get_model  # type: ignore[attr-defined]
    models.get_model_weights = lambda name: Weights  # type: ignore[attr-defined]
    package = ModuleType("torchvision")
    package.models = models  # type: ignore[attr-defined]
    return {"torchvision": package, "torchvision.models": models}


def timm() -> dict[str, ModuleType]:
    package = ModuleType("timm")

    def create_model(name: str, pretrained: bool, num_classes: int = 1000) -> nn.Module:
        if name.partition(".")[0] != "small":
            raise RuntimeError(f"Unknown model ({name})")
        tag = name.partition(".")[2] or "V2"
        made = trained_small() if pretrained else Small(num_classes)
        if pretrained:
            made.load_state_dict(Weights[tag].get_state_dict(False, True, True))
        made.pretrained_cfg = {"mean": [Weights[tag].value] * 3, "std": [2.0] * 3, "input_size": (3, 9, 9)}
        made.pretrained_cfg["fixed_input_size"] = tag == "V1"
        return made

    package.create_model = create_model  # type: ignore[attr-defined]
    package.list_models = lambda pretrained: ["small", "large"]  # type: ignore[attr-defined]
    return {"timm": package}


STAND_INS: dict[str, Callable[[], dict[str, ModuleType]]] = {"torchvision": torchvision, "timm": timm}
every_library = pytest.mark.parametrize("library", STAND_INS)


@pytest.fixture(autouse=True)
def stand_ins(monkeypatch: pytest.MonkeyPatch) -> None:
    for make in STAND_INS.values():
        for name, package in make().items():
            monkeypatch.setitem(sys.modules, name, package)


@every_library
@pytest.mark.parametrize(("which", "mean"), [("V1", 0.5), ("", 0.25)])
def test_images_are_normalised_as_the_weights_require(library: str, which: str, mean: float) -> None:
    """Grey images become three channels, normalised by the weights' mean and deviation; names are the library's."""
    model = registry.build(f"{library}:small", [1, 6, 6], 5, rng_seed=0, published=which).eval()
    assert model.state_dict().keys() == Small().state_dict().keys()
    plain, x = Small(5).eval(), torch.rand(2, 1, 6, 6)
    plain.load_state_dict(model.state_dict())
    images = x.expand(-1, 3, -1, -1)
    if library == "timm" and which == "V1":  # a model for images of one size
        images = nn.functional.interpolate(images, (9, 9), mode="bilinear", antialias=True)
    assert torch.allclose(model(x), plain((images - mean) / 2), atol=1e-6)
    assert head_names(model) == {"fc.weight", "fc.bias"}


@every_library
def test_initial_weights_depend_on_the_rng_seed_alone(library: str) -> None:
    first, again, other = (registry.build(f"{library}:small", [3, 6, 6], 5, rng_seed=k) for k in (0, 0, 1))
    assert torch.equal(first.conv1.weight, again.conv1.weight)
    assert not torch.equal(first.conv1.weight, other.conv1.weight)


@every_library
@pytest.mark.parametrize(
    ("weights", "shift"),
    [("published", 0.25), ("published:V1", 0.5), ("LIBRARY:small", 0.25), ("LIBRARY:small.V1", 0.5)],
)
def test_a_run_starts_from_published_weights(
    library: str, weights: str, shift: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its model loads into the library's class unchanged, and a resume fetches no weights."""
    monkeypatch.setattr(folder_jobs, "write_report", lambda folder: (folder / "report.html").write_text("page"))
    weights = weights.replace("LIBRARY", library)
    settings = load_settings(
        written(tmp_path),
        [f"model.name={library}:small", "rounds=1", f"pretrain.weights={weights}", 'pretrain.freeze=["conv1"]'],
    )
    run(settings, tmp_path / "run")
    begun = safetensors.torch.load_file(tmp_path / "run" / "start" / "model.safetensors")
    ended = safetensors.torch.load_file(tmp_path / "run" / "model.safetensors")
    assert torch.equal(begun["bn1.bias"], trained_small().bn1.bias + shift)
    assert begun["fc.weight"].shape == (10, 4)
    assert torch.equal(begun["conv1.weight"], ended["conv1.weight"])
    assert not torch.equal(begun["bn1.bias"], ended["bn1.bias"])
    Small(10).load_state_dict(ended)

    def refuse(*arguments: object) -> None:
        raise AssertionError("a resume loads no published weights")

    monkeypatch.setattr(libraries, "published_weights", refuse)
    run(load_settings(tmp_path / "run" / "config.toml", ["rounds=2"]), tmp_path / "run", resume=True)


@pytest.mark.parametrize(
    ("name", "options", "sentence"),
    [
        ("torchvision:smal", {}, '^name = "torchvision:smal": torchvision has no such classifier; did you mean small'),
        (
            "torchvision:small",
            {"published": "V3"},
            '^published = "V3": torchvision has no weights .*small; .* V1, V2',
        ),
        ("timm:smal", {}, r'^name = "timm:smal": timm cannot make it \(Unknown model \(smal\)\); did you mean small'),
        ("torchvision:small", {"width": 3}, "^width = 3: torchvision:small has no such option; it takes .*size"),
    ],
)
def test_a_name_that_a_library_lacks_is_refused(name: str, options: dict[str, Any], sentence: str) -> None:
    with pytest.raises(Mistake, match=sentence):
        registry.build(name, [3, 6, 6], 5, rng_seed=0, **options)


@every_library
def test_examples_that_are_not_images_are_refused(library: str) -> None:
    refused = {(2, 6, 6): "images of 1 or 3 channels, but these have 2", (5,): "takes images of shape"}
    for shape, sentence in refused.items():
        with pytest.raises(Mistake, match=sentence):
            registry.build(f"{library}:small", shape, 5, rng_seed=0)


@every_library
def test_an_image_size_is_one_or_more(library: str, tmp_path: Path) -> None:
    with pytest.raises(Mistake, match=r"model\.image_size = 0: it must be a whole number, 1 or more"):
        load_settings(written(tmp_path), [f"model.name={library}:small", "model.image_size=0"])


@pytest.mark.parametrize("library", [*STAND_INS, "huggingface"])
def test_a_missing_package_is_named(library: str, monkeypatch: pytest.MonkeyPatch) -> None:
    package = "transformers" if library == "huggingface" else library
    for name in (package, f"{package}.models"):
        monkeypatch.setitem(sys.modules, name, None)  # type: ignore[arg-type]
    with pytest.raises(Mistake, match=rf"needs the package {package}, .*; pip install 'coterie\[{library}\]'"):
        registry.build(f"{library}:small", [3, 6, 6], 5, rng_seed=0)
