"""Loading weights: names must match, except a prefix and the head; everything else is refused with a sentence."""

import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import safetensors.torch
import torch
from torch import Tensor, nn

from coterie import Mistake
from coterie.models import registry
from coterie.models.normalisation import convert_normalisation
from coterie.pretrain.pretrained_weights import CONVERSION_PROGRAM, load_weights, load_weights_file, read_safetensors

Weights = dict[str, Tensor]


def resnet(classes: int = 4, rng_seed: int = 0, width: int = 2) -> nn.Module:
    return registry.build("resnet20", [3, 8, 8], classes, rng_seed=rng_seed, width=width)


def weights(**options: int) -> Weights:
    """Weights of another rng seed, with statistics that no new model has."""
    model = resnet(rng_seed=7, **options)
    model(torch.randn(3, 3, 8, 8))
    return dict(model.state_dict())


@pytest.fixture
def file(tmp_path: Path) -> Callable[[Weights], Path]:
    def write(tensors: Weights) -> Path:
        path = tmp_path / "model.safetensors"
        safetensors.torch.save_file({name: value.contiguous() for name, value in tensors.items()}, path)
        return path

    return write


def is_head(name: str) -> bool:
    return name.startswith("output.")


def test_the_same_model_is_loaded_whole(file: Callable[[Weights], Path]) -> None:
    model, there = resnet(), weights()
    loaded = load_weights_file(model, file(there))
    assert all(torch.equal(value, there[name]) for name, value in model.state_dict().items())
    assert (set(loaded.loaded), loaded.total) == (there.keys(), len(there))
    assert (loaded.new, loaded.resized, loaded.skipped, loaded.prefix) == ((), {}, (), "")
    assert len(loaded.sha256 or "") == 64
    assert load_weights_file(resnet(), file(there).parent).sha256 == loaded.sha256  # a folder is its model.safetensors


@pytest.mark.parametrize("how", ["absent", "of another size", "not asked for"])
def test_a_missing_head_is_the_models_own(how: str) -> None:
    """The file of `coterie pretrain` has no head; a model for other classes has another one."""
    there = weights(classes=6 if how == "of another size" else 4)
    there = {name: value for name, value in there.items() if how != "absent" or not is_head(name)}
    model, own = resnet(), resnet().state_dict()
    loaded = load_weights(model, there, "there", head="fresh" if how == "not asked for" else None)
    for name, value in model.state_dict().items():
        assert torch.equal(value, own[name] if is_head(name) else there[name])
    assert loaded.new == ("output.weight", "output.bias")
    assert loaded.resized.keys() == (set(loaded.new) if how == "of another size" else set())
    assert loaded.skipped == (loaded.new if how == "not asked for" else ())


def test_half_a_head_is_loaded() -> None:
    there = {name: value for name, value in weights().items() if name != "output.bias"}
    assert load_weights(resnet(), there, "there").new == ("output.bias",)


@pytest.mark.parametrize("prefix", ["module.", "backbone.", "module.encoder_q."])
def test_a_prefix_of_all_names_is_removed_and_reported(prefix: str) -> None:
    there = {prefix + name: value for name, value in weights().items()} | {"projector.weight": torch.ones(2)}
    model = resnet()
    loaded = load_weights(model, there, "there")
    assert torch.equal(model.state_dict()["conv.weight"], there[f"{prefix}conv.weight"])
    assert (loaded.prefix, loaded.skipped) == (prefix, ("projector.weight",))
    assert f'its names without "{prefix}"' in str(loaded)


def test_of_two_models_in_one_file_one_must_be_named() -> None:
    there = {
        f"{p}.{name}": value + k for k, p in enumerate(("student", "teacher")) for name, value in weights().items()
    }
    with pytest.raises(
        Mistake,
        match=r"^weights: there holds the model more than once.* student. or teacher.; .*with prefix$",
    ):
        load_weights(resnet(), there, "there")
    model = resnet()
    loaded = load_weights(model, there, "there", prefix="teacher.")
    assert torch.equal(model.state_dict()["conv.weight"], there["teacher.conv.weight"])
    assert len(loaded.skipped) == len(there) / 2


def test_counts_of_batches_and_tied_names_may_be_missing() -> None:
    there = {name: value for name, value in weights().items() if not name.endswith("num_batches_tracked")}
    assert not load_weights(resnet(), there, "there").new
    model = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3), nn.Linear(3, 2))
    model[1].weight = model[0].weight
    tied = {name: torch.ones_like(value) for name, value in model.state_dict().items()}
    for absent in ("0.weight", "1.weight"):
        loaded = load_weights(model, {name: value for name, value in tied.items() if name != absent}, "there")
        assert not loaded.new
        assert bool((model[0].weight == 1).all())


def test_half_precision_becomes_the_models_type() -> None:
    model = resnet()
    load_weights(model, {name: v.half() if v.is_floating_point() else v for name, v in weights().items()}, "there")
    assert model.state_dict()["conv.weight"].dtype == torch.float32


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (
            lambda there: {n: v for n, v in there.items() if not n.startswith("stage2.1.conv")},
            r"it lacks stage2.1.conv1.weight, stage2.1.conv2.weight, and has conv.weight, .* and \d+ more; .*prefix",
        ),
        (
            lambda there: there | {"conv.weight": torch.zeros(4, 3, 3, 3)},
            r"conv.weight is \[4, 3, 3, 3\] there and \[2, 3, 3, 3\] in the model; give the model the sizes",
        ),
        (
            lambda there: there | {"stage1.3.conv1.weight": torch.zeros(1)},
            r"which has no stage1.3.conv1.weight; .* with skip$",
        ),
        (
            lambda there: there | {"conv.weight": torch.full((2, 3, 3, 3), torch.nan)},
            "conv.weight that are not finite",
        ),
        (lambda there: {"other": torch.zeros(1)}, "lacks conv.weight, norm.weight, norm.bias and .* has other;"),
        (lambda there: {}, "and has nothing"),
    ],
)
def test_a_mismatch_is_refused_and_nothing_is_loaded(change: Callable[[Weights], Weights], sentence: str) -> None:
    model, own = resnet(), resnet().state_dict()
    with pytest.raises(Mistake, match=f"^weights: there .*{sentence}"):
        load_weights(model, change(weights()), "there")
    assert all(torch.equal(value, own[name]) for name, value in model.state_dict().items())


def test_weights_of_batchnorm_fit_a_model_that_was_converted_from_it() -> None:
    there = weights()
    model = convert_normalisation(resnet(), "group", groups=2)
    loaded = load_weights(model, there, "there")
    assert all(torch.equal(value, there[name]) for name, value in model.state_dict().items())
    assert {name.rpartition(".")[2] for name in loaded.skipped} == {
        "running_mean",
        "running_var",
        "num_batches_tracked",
    }


def test_names_may_be_skipped() -> None:
    there = weights() | {"stage1.3.conv1.weight": torch.zeros(1)}
    assert load_weights(resnet(), there, "there", skip=["stage1.3"]).skipped == ("stage1.3.conv1.weight",)


def test_skipped_names_keep_the_models_own_values() -> None:
    """Weights of grey images in a model for colour; the names in the file have a prefix."""
    model, own = resnet(), resnet().state_dict()
    there = {f"net.{name}": value for name, value in weights().items()}
    there["net.conv.weight"] = there["net.conv.weight"][:, :1]
    with pytest.raises(Mistake, match=r"conv\.weight is \[2, 1, 3, 3\] there and \[2, 3, 3, 3\] in the model"):
        load_weights(model, there, "there")
    loaded = load_weights(model, there, "there", skip=["net.conv."])
    assert (loaded.new, loaded.skipped) == (("conv.weight",), ("net.conv.weight",))
    assert torch.equal(model.state_dict()["conv.weight"], own["conv.weight"])
    assert torch.equal(model.state_dict()["norm.weight"], there["net.norm.weight"])


def test_a_model_that_is_all_head_is_loaded_too() -> None:
    model = nn.Sequential(nn.Linear(3, 2))
    load_weights(model, {"0.weight": torch.ones(2, 3), "0.bias": torch.ones(2)}, "there")
    assert bool((model[0].weight == 1).all())
    with pytest.raises(Mistake, match="nothing of the model would come from there"):
        load_weights(model, {"0.weight": torch.ones(4, 3), "0.bias": torch.ones(4)}, "there")


class Trap:
    """An object that runs code when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("name", ["model.pt", "model.bin", "model.safetensors"])
@pytest.mark.parametrize("zipped", [True, False])
def test_a_pickle_is_never_opened(name: str, zipped: bool, tmp_path: Path) -> None:
    torch.save(Trap(tmp_path / "sprung"), tmp_path / name, _use_new_zipfile_serialization=zipped)
    with pytest.raises(Mistake, match=r"it is a pickle, which could run any code .* convert it: python -c"):
        load_weights_file(resnet(), tmp_path / name)
    assert not (tmp_path / "sprung").exists()


@pytest.mark.parametrize("first", [b"\x80", b"PK"])
def test_a_file_that_begins_like_a_pickle_is_read(first: bytes, tmp_path: Path) -> None:
    """Its first eight bytes are the length of its header, which may be any number."""
    header = b'{"w":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}'
    length = next(n for n in range(len(header), 1 << 16) if n.to_bytes(8, "little").startswith(first))
    path = tmp_path / "model.safetensors"
    path.write_bytes(length.to_bytes(8, "little") + header.ljust(length) + b"\x00\x00\x80\x3f")
    assert torch.equal(read_safetensors(path)["w"], torch.ones(1))


def test_the_conversion_program_works(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    there = weights()
    torch.save(there, tmp_path / "model.pt")
    monkeypatch.setattr(sys, "argv", ["-c", str(tmp_path / "model.pt")])
    exec(CONVERSION_PROGRAM, {})
    model = resnet()
    load_weights_file(model, tmp_path / "model.pt.safetensors")
    assert all(torch.equal(value, there[name]) for name, value in model.state_dict().items())


def test_other_files_and_folders_are_refused(tmp_path: Path) -> None:
    (tmp_path / "text.safetensors").write_text("hello")
    (tmp_path / "own" / "clients").mkdir(parents=True)
    (tmp_path / "own" / "clients" / "a.safetensors").touch()
    for name, sentence in {
        "text.safetensors": "it cannot be read as a safetensors file",
        "none.safetensors": "there is no such file",
        "own": r"the folder has no model.safetensors; name one, such as .*/clients/a.safetensors",
        ".": r"the folder has no model.safetensors; name a safetensors file",
    }.items():
        with pytest.raises(Mistake, match=f'^weights = "{tmp_path / name}": {sentence}'):
            load_weights_file(resnet(), tmp_path / name)


@pytest.mark.parametrize("kind", [torch.float8_e4m3fn, torch.float8_e5m2, torch.int8, torch.complex64], ids=str)
def test_quantised_and_complex_weights_are_refused(kind: torch.dtype) -> None:
    model = nn.Linear(2, 3)
    given = {"weight": torch.ones(3, 2).to(kind), "bias": torch.zeros(3)}
    with pytest.raises(Mistake, match=r"weight is \w+ there and float32 in the model; convert quantised weights"):
        load_weights(model, given, "the file")


@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16, torch.float64], ids=str)
def test_other_floats_are_loaded(kind: torch.dtype) -> None:
    model = nn.Linear(2, 3)
    load_weights(model, {"weight": torch.ones(3, 2).to(kind), "bias": torch.zeros(3)}, "the file")
    assert torch.equal(model.weight, torch.ones(3, 2))
