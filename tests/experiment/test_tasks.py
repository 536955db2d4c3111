"""Tasks from a file: other labels than classes, what is asked for, and the same measures between silos."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn

from coterie.core.errors import Mistake
from coterie.experiment.describe_predictions import describe_predictions
from coterie.experiment.run import run
from coterie.experiment.settings import load_settings
from coterie.experiment.trained_model import load_trained_model
from coterie.report import write_report
from tests.experiment.silos.exchange import settings_of
from tests.experiment.silos.test_rounds import both


class Pixels(nn.Module):
    """A small model of each pixel, in PyTorch's order [B, C, H, W]."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Conv2d(1, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, num_classes, 1))

    def forward(self, x: Tensor) -> Tensor:
        scores: Tensor = self.layers(x)
        return scores


def pixels(num_classes: int) -> nn.Module:
    return Pixels(num_classes)


def run_file(folder: Path, text: str, *overrides: str) -> dict[str, Any]:
    path = folder / "file.toml"
    path.write_text(text)
    run(load_settings(path, overrides), folder / "out")
    summary: dict[str, Any] = json.loads((folder / "out" / "summary.json").read_text())
    return summary


HEAD = '{task}\nrounds = {rounds}\n[data]\nsource = "npz"\npath = "data.npz"\nnum_clients = 3\n'
TAIL = '[model]\nname = "{model}"\n[algorithm]\nname = "fedavg"\nlr = 0.5\n'


def test_several_digits_in_a_picture_are_several_labels(tmp_path: Path) -> None:
    """Two digits side by side; the labels say which of the ten digits are there. f1 of guessing is below 0.35."""
    pytest.importorskip("torchmetrics")
    digits, draw = load_digits(), np.random.default_rng(0)
    left, right = draw.permutation(1797)[:800], draw.permutation(1797)[:800]
    x = np.concatenate([digits.images[left], digits.images[right]], axis=2).astype(np.float32)[:, None] / 16
    y = np.zeros((800, 10), dtype=np.int64)
    y[np.arange(800), digits.target[left]] = y[np.arange(800), digits.target[right]] = 1
    np.savez(tmp_path / "data.npz", x=x, y=y)
    with pytest.raises(Mistake, match=r'^task\.kind: the labels are rows of 0 and 1, .* "multilabel" or "sequence"'):
        run_file(tmp_path, HEAD.format(task="", rounds=1) + TAIL.format(model="mlp"))
    text = HEAD.format(task='task.kind = "multilabel"\ntask.class_weights = "balanced"', rounds=12)
    end = run_file(tmp_path, text + TAIL.format(model="mlp") + '[evaluate]\nmetrics = ["f1", "auroc"]\n')
    assert end["test_f1"] > 0.6
    assert end["test_auroc"] > 0.85
    assert end["bytes_once"]["class_weights"] == 3 * 8 * (20 + 10)
    panel = json.loads((tmp_path / "out" / "predictions.json").read_text())
    assert np.mean([label["auroc"] for label in panel["labels"]]) == pytest.approx(end["test_auroc"], abs=1e-3)
    assert "<th>with it</th>" in (tmp_path / "out" / "report.html").read_text()


@pytest.mark.pictures
def test_the_pixels_of_digits_are_found_by_a_model_in_pytorch_s_order(tmp_path: Path) -> None:
    digits = load_digits().images[:300].astype(np.float32) / 16
    noisy = digits + np.random.default_rng(0).normal(0, 0.2, digits.shape).astype(np.float32)
    np.savez(tmp_path / "data.npz", x=noisy[:, None], y=(digits > 0.5).astype(np.int64))
    tail = TAIL.format(model="tests.experiment.test_tasks:pixels")
    end = run_file(tmp_path, HEAD.format(task="", rounds=8) + tail)
    assert 'kind = "segmentation"' in (tmp_path / "out" / "config.toml").read_text()
    assert end["test_accuracy"] > 0.85
    panel = json.loads((tmp_path / "out" / "predictions.json").read_text())
    shown = [np.frombuffer(base64.b64decode(panel["pictures"][0][name]), np.uint8) for name in ("labels", "predicted")]
    assert (shown[0] == shown[1]).mean() > 0.7
    assert "data:image/png;base64," in (tmp_path / "out" / "report.html").read_text()


def test_numbers_are_predicted_until_they_no_longer_improve_and_a_resumed_run_is_finished(tmp_path: Path) -> None:
    x = np.random.default_rng(0).normal(size=(200, 2)).astype(np.float32)
    np.savez(tmp_path / "data.npz", x=x, y=x[:, 0] * 2 - x[:, 1])
    text = HEAD.format(task="", rounds=300) + TAIL.format(model="logistic") + "[evaluate]\npatience = 3\n"
    end = run_file(tmp_path, text, "algorithm.lr=0.1")
    assert end["stopped"] == "patience"
    assert end["rounds"] < 300
    assert end["test_rmse"] < 0.01
    assert end["test_accuracy"] is None
    run(load_settings(tmp_path / "file.toml", ["algorithm.lr=0.1"]), tmp_path / "out", resume=True)
    assert json.loads((tmp_path / "out" / "summary.json").read_text()) == end
    panel = tmp_path / "out" / "predictions.json"
    (column,) = json.loads(panel.read_text())["columns"]
    errors = np.subtract(column["true"], column["predicted"])
    assert np.sqrt((errors**2).mean()) == pytest.approx(end["test_rmse"], rel=1e-3)
    whole = panel.read_bytes()
    panel.write_bytes(whole[:-20])
    with pytest.raises(Mistake, match=r"predictions\.json: is damaged"):
        write_report(tmp_path / "out")
    run(load_settings(tmp_path / "file.toml", ["algorithm.lr=0.1"]), tmp_path / "out", resume=True)
    assert panel.read_bytes() == whole


@pytest.mark.parametrize(
    ("task", "extra", "sentence"),
    [
        ('task.kind = "binary"', "", r'^task\.kind = "binary": a label is 2; a binary task needs 0 or 1'),
        (
            'task.loss = "mse"',
            "",
            r'^task\.loss = "mse": it must be for the kind "classification" one of',
        ),
        ("task.class_weights = [1.0]", "", r"^task\.class_weights = \[1\.0\]: it must be 3 numbers"),
        ("", 'metrics = ["rmse"]', r'^evaluate\.metrics = "rmse": a classification task is not measured by it'),
        ("", 'target = {metric = "auroc", value = 0.9}', r"^evaluate\.target = .*is not measured; name it in evaluate"),
    ],
)
def test_what_does_not_fit_is_one_sentence(tmp_path: Path, task: str, extra: str, sentence: str) -> None:
    x, y = np.random.default_rng(0).normal(size=(60, 2)).astype(np.float32), np.arange(60) % 3
    np.savez(tmp_path / "data.npz", x=x, y=y)
    text = HEAD.format(task=task, rounds=1) + TAIL.format(model="logistic") + f"[evaluate]\n{extra}\n"
    with pytest.raises(Mistake, match=sentence):
        run_file(tmp_path, text)
    assert not (tmp_path / "out").exists()


def test_silos_measure_an_area_as_if_all_rows_lay_in_one_place(tmp_path: Path) -> None:
    settings = settings_of(
        tmp_path,
        task={"kind": "binary", "class_weights": "balanced"},
        data={"source": "tests.experiment.test_tasks:two_classes", "num_clients": 3},
        model={"name": "logistic"},
        evaluate={"metrics": ["auroc"]},
    )
    simulated, at_silos, experiment = both(tmp_path, settings)
    weights = experiment.plan.evaluated_weights(at_silos[-1].state, at_silos[-1].store, experiment.plan.ids[0])
    assert describe_predictions(experiment.settings, experiment.plan, weights) is None
    ours, theirs = (rounds[-1].record() for rounds in (simulated, at_silos))
    assert ours["test_auroc"] == theirs["test_auroc"]
    assert 0.5 < float(str(ours["test_auroc"])) < 1
    low, high = ours["intervals"]["test_auroc"]  # type: ignore[index]
    assert low < ours["test_auroc"] < high  # type: ignore[operator]
    assert ours["intervals"] == theirs["intervals"]
    assert all(torch.equal(w, at_silos[-1].weights()[n]) for n, w in simulated[-1].weights().items())


def test_the_summary_has_the_interval_and_the_report_each_client_s_area(tmp_path: Path) -> None:
    """Client 1 has test rows of one class alone, and client 2 a single one of class 0."""
    draw = np.random.default_rng(0)
    x, y, client = draw.normal(size=(180, 3)).astype(np.float32), np.arange(180) % 2, np.arange(180) // 2 % 3
    x[:, 0] += y
    y[client > 0] = 1
    test = np.arange(180) % 5 == 0
    y[np.flatnonzero(test & (client == 2))[:1]] = 0
    np.savez(tmp_path / "data.npz", x=x, y=y, ward=client, test=test)
    text = HEAD.format(task='task.kind = "binary"', rounds=2).replace("num_clients = 3", 'client_column = "ward"')
    end = run_file(tmp_path, text + TAIL.format(model="logistic") + '[evaluate]\nmetrics = ["auroc"]\nclients = true\n')
    assert end["test_auroc_low"] < end["test_auroc"] < end["test_auroc_high"]
    page = (tmp_path / "out" / "report.html").read_text()
    assert f"95 %: {end['test_auroc_low']:.3g} to {end['test_auroc_high']:.3g}" in page
    assert "share that came true against predicted probability" in page
    assert page.count("<td>none: it needs two or more examples of each class</td>") == 2
    last = json.loads((tmp_path / "out" / "rounds.jsonl").read_text().splitlines()[-1])
    own = {client: found["test_auroc"] for client, found in last["own_tests"].items()}
    assert own["1"] is own["2"] is None
    assert last["own_test_auroc"] == own["0"]


def two_classes() -> Any:
    from coterie.core.examples import Examples
    from coterie.data.source import Source

    draw = torch.Generator().manual_seed(0)
    x = torch.randn(120, 3, generator=draw)
    y = (x[:, 0] + torch.randn(120, generator=draw) > 0.5).long()
    return Source("two_classes", Examples(x[:90], y[:90]), Examples(x[90:], y[90:]), 2)


def test_a_binary_model_predicts_the_probability_of_both_classes(tmp_path: Path) -> None:
    """The logit's sigmoid is that of class 1."""
    x = np.random.default_rng(0).normal(size=(60, 2)).astype(np.float32)
    np.savez(tmp_path / "data.npz", x=x, y=(x[:, 0] > 0).astype(np.int64))
    run_file(tmp_path, HEAD.format(task='task.kind = "binary"', rounds=2) + TAIL.format(model="logistic"))
    trained = load_trained_model(tmp_path / "out")
    found = trained.probabilities(torch.from_numpy(x))
    assert torch.allclose(found[:, 1], trained.model(torch.from_numpy(x))[:, 0].sigmoid(), atol=1e-6)
    assert torch.allclose(found.sum(1), torch.ones(60))


def test_two_classes_have_a_panel_and_each_client_s_own_model_too(tmp_path: Path) -> None:
    """A client's true numbers are those of its own test rows, where it has some; otherwise all test rows."""
    draw = np.random.default_rng(0)
    x, ward = draw.normal(size=(120, 2)).astype(np.float32), np.arange(120) % 2
    test = np.arange(120) % 6 < 2
    np.savez(tmp_path / "data.npz", x=x, y=x[:, 0] * 2 - ward, ward=ward, test=test)
    text = HEAD.format(task="", rounds=2).replace("num_clients = 3", 'client_column = "ward"')
    text += TAIL.format(model="logistic").replace("fedavg", "independent")
    run_file(tmp_path, text)
    found = json.loads((tmp_path / "out" / "predictions.json").read_text())
    assert found["task"] == "regression"
    assert list(found["clients"]) == ["0", "1"]
    for client, panel in found["clients"].items():
        own = test & (ward == int(client))
        assert panel["columns"][0]["true"] == pytest.approx((x[:, 0] * 2 - ward)[own], abs=1e-5)
    page = (tmp_path / "out" / "report.html").read_text()
    assert page.count("<h3>The model of client ") == 2
    np.savez(tmp_path / "data.npz", x=x, y=(x[:, 0] > 0).astype(np.int64))
    (tmp_path / "out").rename(tmp_path / "before")
    run_file(tmp_path, HEAD.format(task="", rounds=2) + TAIL.format(model="logistic"))
    curves = json.loads((tmp_path / "out" / "predictions.json").read_text())
    assert curves["task"] == "binary"
    assert 'kind = "classification"' in (tmp_path / "out" / "config.toml").read_text()
    assert np.trapezoid(curves["true_positive"], curves["false_positive"]) > 0.9
    assert "share that came true against predicted probability" in (tmp_path / "out" / "report.html").read_text()
