"""[pretrain]: a run that starts from weights, with parts frozen or slowed down, and what its folder keeps of that."""

import json
import tomllib
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch

from coterie import Mistake
from coterie.cli.run_display import RunDisplay
from coterie.experiment import folder_jobs
from coterie.experiment.finished_run import load_finished_run
from coterie.experiment.run import SilentRun, run
from coterie.experiment.settings import load_settings
from coterie.models import registry
from coterie.track.weights_file import pack_weights
from tests.experiment.conftest import Start
from tests.experiment.files import written
from tests.experiment.test_run import StopAfter, same


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """No report is drawn, which takes longer than a run."""
    monkeypatch.setattr(folder_jobs, "write_report", lambda folder: (folder / "report.html").write_text("page"))


def tensors(path: Path) -> dict[str, torch.Tensor]:
    return safetensors.torch.load_file(path)


def told(folder: Path) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads((folder / "start" / "start.json").read_text())
    return found


def test_a_run_starts_where_another_ended(start: Start, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first = start(out="first")
    second = start("pretrain.weights=first", out="second", watch=RunDisplay()).folder
    assert (second / "start" / "model.safetensors").read_bytes() == (first.folder / "model.safetensors").read_bytes()
    (about,) = told(second)
    assert about["test_accuracy"] == pytest.approx(first.summary["test_accuracy"], abs=1e-12)
    assert about["test_loss"] == pytest.approx(first.summary["test_loss"], rel=1e-6)
    assert (about["model"], len(about["loaded"]["loaded"]), about["frozen"]) == ("mlp", 4, [])
    out = capsys.readouterr().out
    assert f"start: {tmp_path / 'first'}: 4 of 4 loaded\nbefore the first round: accuracy " in out
    config = tomllib.loads((second / "config.toml").read_text())
    assert config["pretrain"] == {"weights": str(tmp_path / "first")}
    run(load_settings(second / "config.toml"), tmp_path / "again")
    same(second, tmp_path / "again")


def test_an_encoder_without_a_head_is_what_a_pretraining_writes(start: Start, tmp_path: Path) -> None:
    model = registry.build("mlp", [1, 8, 8], 10, rng_seed=9, hidden=[16])
    body = {name: value for name, value in model.state_dict().items() if not name.startswith("3.")}
    (tmp_path / "encoder.safetensors").write_bytes(pack_weights(model, body, part=True))
    folder = start("pretrain.weights=encoder.safetensors").folder
    begun, own = tensors(folder / "start" / "model.safetensors"), registry.build("mlp", [1, 8, 8], 10, 0, hidden=[16])
    assert torch.equal(begun["1.weight"], body["1.weight"])
    assert torch.equal(begun["3.weight"], own.state_dict()["3.weight"])
    assert told(folder)[0]["loaded"]["new"] == ["3.weight", "3.bias"]


@pytest.mark.parametrize("algorithm", ["fedavg", "scaffold"])
def test_a_resume_does_not_reload(algorithm: str, start: Start, tmp_path: Path) -> None:
    """The file is gone, and what was frozen is in no checkpoint; the run goes on bit for bit."""
    start("rng_seed=5", out="first")
    keys = (f"algorithm.name={algorithm}", "pretrain.weights=first/model.safetensors", 'pretrain.freeze=["1.weight"]')
    whole = start(*keys, out="whole").folder
    with pytest.raises(KeyboardInterrupt):
        start(*keys, out="stopped", watch=StopAfter(1))
    frozen = tensors(tmp_path / "first" / "model.safetensors")["1.weight"]
    (tmp_path / "first" / "model.safetensors").unlink()
    start(*keys, out="stopped", resume=True)
    same(whole, tmp_path / "stopped")
    assert torch.equal(tensors(whole / "model.safetensors")["1.weight"], frozen)


def test_what_is_frozen_is_neither_sent_nor_moved(start: Start, capsys: pytest.CaptureFixture[str]) -> None:
    """Without weights too: random features are a start like any other, and are kept."""
    plain, frozen = start(out="plain"), start("pretrain.freeze=all but head", out="frozen", watch=RunDisplay())
    assert frozen.summary["bytes_up"] == plain.summary["bytes_up"] * 170 / 1210
    begun, ended = (tensors(frozen.folder / name) for name in ("start/model.safetensors", "model.safetensors"))
    assert [name for name in begun if torch.equal(begun[name], ended[name])] == ["1.bias", "1.weight"]
    assert not (plain.folder / "start").exists()
    out = capsys.readouterr().out
    assert "mlp with 1,210 parameters" in out
    assert "frozen: 1.weight, 1.bias (1,040 of 1,210 numbers)" in out
    assert "before the first round" not in out
    probed = load_finished_run(frozen.folder)
    assert probed.start["params"].keys() == {"3.weight", "3.bias"}


def test_half_the_rate_of_every_part_is_half_the_rate(start: Start) -> None:
    half = start('pretrain.lr_scale={"1"=0.5, "3"=0.5}', out="half").folder
    whole = start("algorithm.lr=0.05", out="whole").folder
    same(half, whole)
    assert not (half / "start").exists()


def test_each_of_several_models_has_weights_of_its_own(start: Start, tmp_path: Path) -> None:
    start("rng_seed=5", out="first")
    keys = ["algorithm.name=fedmd", "seed_set.source=digits", "seed_set.examples=20", 'model.names=["logistic","mlp"]']
    model = registry.build("mlp", [1, 8, 8], 10, rng_seed=9)
    (tmp_path / "mlp.safetensors").write_bytes(pack_weights(model, dict(model.state_dict())))
    outcome = start(*keys, 'pretrain.weights={"mlp"="mlp.safetensors"}', 'pretrain.freeze=["1.weight"]', out="two")
    assert [about["model"] for about in told(outcome.folder)] == ["logistic", "mlp"]
    assert told(outcome.folder)[0]["loaded"] is None
    client = tensors(outcome.folder / "clients" / "1.safetensors")
    assert torch.equal(client["1.weight"], model.state_dict()["1.weight"])
    assert torch.equal(tensors(outcome.folder / "start" / "1.safetensors")["3.bias"], model.state_dict()["3.bias"])
    assert not torch.equal(client["3.weight"], model.state_dict()["3.weight"])


@pytest.mark.parametrize(
    ("overrides", "sentence"),
    [
        (["pretrain.weights=absent.safetensors"], r'pretrain.weights = ".*absent.safetensors": there is no such file'),
        (["pretrain.weights=published"], "nobody has published weights of mlp"),
        (
            ["pretrain.weights=timm:resnet18"],
            'weights = "timm:resnet18": these weights belong to a model of that name, .* is "mlp"',
        ),
        (["pretrain.weights=3"], "pretrain.weights = 3: it must be text in quotes, or a table"),
        (['pretrain.weights={"cnn"="a"}'], 'pretrain.weights."cnn": there is no such model here; there is mlp'),
        (["pretrain.head=new"], 'pretrain.head = "new": it must be "fresh"'),
        (["pretrain.frezze=all"], "did you mean pretrain.freeze?"),
        (["pretrain.freeze=all"], 'pretrain.freeze = "all": it must be "all but head", or a list, of text in quotes'),
        (
            ['pretrain.freeze=["2"]'],
            r'pretrain.freeze = \["2"\]: the model has no part "2" .* there are 1, 3',
        ),
        (['pretrain.lr_scale={"4"=0.1}'], 'pretrain.lr_scale."4" = 0.1: the model has no part "4" with'),
        (['pretrain.lr_scale={"3"=0.0}'], 'pretrain.lr_scale."3" = 0.0: it must be a number above 0'),
        (["algorithm.name=fedmd", 'model.names=["mlp","2nn"]', "pretrain.weights=x"], "there are several models; give"),
    ],
)
def test_a_mistake_is_one_sentence_and_nothing_is_written(
    overrides: list[str], sentence: str, start: Start, tmp_path: Path
) -> None:
    with pytest.raises(Mistake, match=sentence):
        start(*overrides)
    assert not (tmp_path / "run").exists()


def test_weights_that_were_named_can_be_left_out_again(tmp_path: Path) -> None:
    path = written(tmp_path, name="from.toml")
    path.write_text(path.read_text() + '[pretrain]\nweights = "gone.safetensors"\n')
    run(load_settings(path, ["pretrain.weights=none", "rounds=1"]), tmp_path / "run", watch=SilentRun())
    assert not (tmp_path / "run" / "start").exists()
