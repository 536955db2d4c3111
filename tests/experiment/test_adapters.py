"""Runs that train adapters, from a file: what travels, what the folder holds, and what goes on from there."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import safetensors.torch
import torch

from coterie import Mistake
from coterie.core import tree
from coterie.experiment import folder_jobs
from coterie.experiment.finished_run import load_comparable_runs, load_finished_run, loss_surface
from coterie.experiment.pretraining_settings import load_pretraining
from coterie.experiment.run import run
from coterie.experiment.settings import load_settings
from coterie.experiment.trained_model import load_trained_model
from coterie.models import build
from coterie.models.lora import add_adapters

FILE = """
rounds = 3
[data]
source = "digits"
num_clients = 3
[model]
name = "mlp"
hidden = [16]
adapter = "lora"
rank = 2
[algorithm]
name = "fedavg"
lr = 0.1
"""


def settings(tmp_path: Path, *overrides: str):
    path = tmp_path / "file.toml"
    path.write_text(FILE)
    return load_settings(path, overrides)


def tensors(path: Path) -> dict[str, torch.Tensor]:
    return safetensors.torch.load_file(path)


@pytest.fixture(autouse=True, scope="module")
def quick() -> Iterator[None]:
    """Skip the report, which takes longer than a run."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(folder_jobs, "write_report", lambda folder: (folder / "report.html").write_text("page"))
        yield


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("finished")
    run(settings(folder), folder / "run")
    return folder / "run"


def test_only_adapters_and_head_travel(finished: Path) -> None:
    """mlp is 64 -> 16 -> 10: the adapter has 2 (64 + 16) numbers and the head 16 * 10 + 10, of four bytes each."""
    rounds = [json.loads(line) for line in (finished / "rounds.jsonl").read_text().splitlines()]
    sent = 4 * 3 * (2 * (64 + 16) + 170)
    assert [(each["bytes_up"], each["bytes_down"]) for each in rounds] == [(sent, sent)] * 3
    state = tensors(next(iter(sorted((finished / "checkpoint").glob("state-*")))))
    assert not any("1.weight" in name for name in state)


def test_the_folder_has_the_merged_model_and_the_adapter(finished: Path) -> None:
    model = build("mlp", [1, 8, 8], 10, rng_seed=0, hidden=[16])
    end, adapter = tensors(finished / "model.safetensors"), tensors(finished / "adapter" / "adapter_model.safetensors")
    assert end.keys() == model.state_dict().keys()
    names = {"1.lora_A.weight", "1.lora_B.weight", "3.weight", "3.bias"}
    assert adapter.keys() == {f"base_model.model.{name}" for name in names}
    a, b = (adapter[f"base_model.model.1.lora_{factor}.weight"] for factor in "AB")
    torch.testing.assert_close(end["1.weight"], model.state_dict()["1.weight"] + 8 / 2 * b @ a)
    assert not torch.equal(end["1.weight"], model.state_dict()["1.weight"])
    assert torch.equal(end["1.bias"], model.state_dict()["1.bias"])
    trained = load_trained_model(finished).model
    assert all(torch.equal(trained.state_dict()[name], value) for name, value in end.items())


def test_config_toml_says_which_layers_and_runs_again(finished: Path, tmp_path: Path) -> None:
    again = load_settings(finished / "config.toml")
    table = {key: again.model[key] for key in ("adapter", "rank", "alpha", "targets", "aggregate")}
    assert table == {"adapter": "lora", "rank": 2, "alpha": 8.0, "targets": ["1"], "aggregate": "factors"}
    run(again, tmp_path / "again")
    for name in ("model.safetensors", "adapter/adapter_model.safetensors"):
        assert (tmp_path / "again" / name).read_bytes() == (finished / name).read_bytes()


def test_a_run_that_goes_on_ends_as_one_that_never_stopped(finished: Path, tmp_path: Path) -> None:
    run(settings(tmp_path, "rounds=1"), tmp_path / "run")
    run(settings(tmp_path), tmp_path / "run", resume=True)
    for name in ("model.safetensors", "adapter/adapter_model.safetensors"):
        assert (tmp_path / "run" / name).read_bytes() == (finished / name).read_bytes()
    assert not run(settings(tmp_path), tmp_path / "run", resume=True).ran
    with pytest.raises(Mistake, match=r"model\.rank"):
        run(settings(tmp_path, "model.rank=3"), tmp_path / "run", resume=True)


def test_an_adapter_goes_on_from_its_folder(finished: Path, tmp_path: Path) -> None:
    """The first round of the second run starts where the first run ended; nothing of rank or targets is repeated."""
    shutil.copytree(finished / "adapter", tmp_path / "adapter")
    path = tmp_path / "more.toml"
    path.write_text(FILE.replace("rank = 2", 'adapter_weights = "adapter"').replace("lr = 0.1", "lr = 1e-9"))
    run(load_settings(path, ["rounds=1"]), tmp_path / "run")
    shutil.rmtree(tmp_path / "adapter")  # a run that has begun does not need it
    run(load_settings(path, ["rounds=2"]), tmp_path / "run", resume=True)
    ended = tensors(finished / "model.safetensors")
    for name, value in tensors(tmp_path / "run" / "model.safetensors").items():
        torch.testing.assert_close(value, ended[name])
    assert load_settings(tmp_path / "run" / "config.toml").model["rank"] == 2


def test_a_run_starts_from_the_merged_model_of_another(finished: Path, tmp_path: Path) -> None:
    weights = f'pretrain.weights="{finished}"'
    run(settings(tmp_path, weights, "rounds=1", "model.aggregate=exact", "algorithm.lr=1e-9"), tmp_path / "run")
    ended = tensors(finished / "model.safetensors")
    for name, value in tensors(tmp_path / "run" / "model.safetensors").items():
        torch.testing.assert_close(value, ended[name])


def test_a_finished_run_is_loaded_with_its_adapters(finished: Path) -> None:
    loaded = load_finished_run(finished)
    model = add_adapters(build("mlp", [1, 8, 8], 10, rng_seed=0, hidden=[16]), rank=2)
    assert loaded.end["params"].keys() == {name for name, p in model.named_parameters() if p.requires_grad}
    assert torch.equal(loaded.start["params"]["1.lora_A"], model[1].lora_A)
    assert bool(loaded.end["params"]["1.lora_B"].any())


def test_between_two_runs_lie_models_not_factors(finished: Path, tmp_path: Path) -> None:
    """Midway between two runs is the mean of their merged weights; the mean factors would make another model."""
    run(settings(tmp_path, "algorithm.lr=0.2"), tmp_path / "faster")
    runs = load_comparable_runs([finished, tmp_path / "faster"])
    surface = loss_surface(runs[0], "test", 200, "measured")
    (plain,) = runs[0].experiment.models.values()
    x, y = surface.examples.tensors()
    saved = [tensors(folder / "model.safetensors") for folder in (finished, tmp_path / "faster")]
    for t in (0.0, 0.5, 1.0):
        plain.load_state_dict({name: (1 - t) * w + t * saved[1][name] for name, w in saved[0].items()})
        expected = torch.nn.functional.cross_entropy(plain(x), y)
        place = tree.map(lambda a, b, t=t: (1 - t) * a + t * b, runs[0].end, runs[1].end)
        assert surface.at(place)["loss"] == pytest.approx(float(expected.detach()), abs=1e-5)
    run(settings(tmp_path, "rng_seed=1"), tmp_path / "other")
    with pytest.raises(Mistake, match=r"other: what is frozen in its model differs from .*must start from the same"):
        load_comparable_runs([finished, tmp_path / "other"])


@pytest.mark.parametrize(
    ("overrides", "sentence"),
    [
        (["model.rank=0"], "model.rank = 0"),
        (["model.aggregate=mean"], '"factors" or "exact"'),
        (["model.adapter=dora"], 'it must be "lora"'),
        (['model.targets=["conv1"]'], 'model.targets = .*no layer "conv1"; there are 1, 3'),
        (["model.adapter_weights=nowhere"], "model.adapter_weights = .*it has no adapter_config.json"),
        (["algorithm.name=fbn"], "no BatchNorm layer"),
        (["model.name=logistic"], "no layer of the model can have an adapter"),
    ],
)
def test_mistakes_are_sentences(tmp_path: Path, overrides: list[str], sentence: str) -> None:
    with pytest.raises(Mistake, match=sentence):
        run(settings(tmp_path, *overrides), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_key_of_adapters_needs_an_adapter(tmp_path: Path) -> None:
    path = tmp_path / "file.toml"
    path.write_text(FILE.replace('adapter = "lora"\n', ""))
    with pytest.raises(Mistake, match=r'model\.rank = 2: it belongs to model.adapter = "lora"'):
        load_settings(path)


def test_clients_with_models_of_their_own_end_with_them_merged(tmp_path: Path) -> None:
    run(settings(tmp_path, "algorithm.name=independent", "rounds=1"), tmp_path / "run")
    model = build("mlp", [1, 8, 8], 10, rng_seed=0, hidden=[16])
    ends = [tensors(file) for file in sorted((tmp_path / "run" / "clients").iterdir())]
    assert [end.keys() for end in ends] == [model.state_dict().keys()] * 3
    assert not torch.equal(ends[0]["1.weight"], ends[1]["1.weight"])
    assert not (tmp_path / "run" / "adapter").exists()
    trained = load_trained_model(tmp_path / "run", "1").model
    assert torch.equal(trained.state_dict()["1.weight"], ends[1]["1.weight"])


def test_factors_have_learning_rates_by_name(tmp_path: Path) -> None:
    """A factor of 1e-9 on B's rate keeps it at zero, and with it the layer as it was."""
    scale = 'pretrain.lr_scale={"1.lora_B" = 1e-9}'
    run(settings(tmp_path, "rounds=1", scale), tmp_path / "run")
    assert (
        tensors(tmp_path / "run/adapter/adapter_model.safetensors")["base_model.model.1.lora_B.weight"].abs().max()
        < 1e-8
    )


def test_a_pre_training_refuses_adapters(tmp_path: Path) -> None:
    path = tmp_path / "pre.toml"
    path.write_text('[pretrain]\nsteps = 1\n[model]\nname = "resnet20"\nadapter = "lora"\n')
    with pytest.raises(Mistake, match="a pre-training trains every weight"):
        load_pretraining(path)
