"""Checkpoints of transformers, made by the test: they load, a run fine-tunes them, and they load back."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch

from coterie import Mistake
from coterie.cli.run_display import RunDisplay
from coterie.experiment import folder_jobs
from coterie.experiment.run import run
from coterie.experiment.settings import load_settings
from coterie.experiment.trained_model import load_trained_model
from coterie.models import huggingface_models, registry
from coterie.models.model_parts import head_names
from tests.experiment.files import written
from tests.pretrain.test_pretrained_weights import Trap

transformers = pytest.importorskip("transformers")

TEXT = """
rounds = 2
[data]
source = "npz"
path = "tokens.npz"
num_clients = 3
[model]
name = "huggingface:bert"
[algorithm]
name = "fedavg"
lr = 0.3
"""
SIZES = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Skip the report, which takes longer than a run."""
    monkeypatch.setattr(folder_jobs, "write_report", lambda folder: (folder / "report.html").write_text("page"))


@pytest.fixture
def vit(tmp_path: Path) -> Path:
    """A checkpoint for 7 classes of normalised images of 8 x 8 pixels."""
    torch.manual_seed(0)
    config = transformers.ViTConfig(**SIZES, image_size=8, patch_size=4, num_labels=7)
    transformers.ViTForImageClassification(config).save_pretrained(tmp_path / "vit")
    processor = {"image_mean": [0.1, 0.2, 0.3], "image_std": [0.5, 0.5, 0.5], "do_normalize": True}
    (tmp_path / "vit" / "preprocessor_config.json").write_text(json.dumps(processor))
    return tmp_path / "vit"


def bert_config() -> Any:
    return transformers.BertConfig(**SIZES, vocab_size=60, max_position_embeddings=20, num_labels=2, pad_token_id=0)


@pytest.fixture
def bert(tmp_path: Path) -> Path:
    """An encoder without a classifier, and without a pooler."""
    torch.manual_seed(1)
    transformers.BertModel(bert_config(), add_pooling_layer=False).save_pretrained(tmp_path / "bert")
    return tmp_path / "bert"


def tensors(path: Path) -> dict[str, torch.Tensor]:
    return safetensors.torch.load_file(path)


def load_back(original: Any, folder: Path) -> Any:
    """Load a folder with `from_pretrained` of a class, and check that no weight is left over or missing."""
    model, about = original.from_pretrained(folder, output_loading_info=True)
    assert not any(about[kind] for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    return model.eval()


def test_a_model_of_images_runs_and_loads_back(vit: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The head is new, since there are ten digits. The run's folder says how images are normalised, like the
    checkpoint's. A resume and a prediction do not read the checkpoint's weights again."""
    keys = ["model.name=huggingface:vit", "rounds=2", 'pretrain.freeze=["vit.embeddings"]']
    settings = load_settings(written(tmp_path), keys)
    run(settings, tmp_path / "run", watch=RunDisplay())
    model = load_back(transformers.ViTForImageClassification, tmp_path / "run" / "huggingface")
    ended, began = (tensors(tmp_path / "run" / name) for name in ("model.safetensors", "start/model.safetensors"))
    assert all(torch.equal(value, ended[name]) for name, value in model.state_dict().items())
    assert (model.config.num_labels, model.config.architectures) == (10, ["ViTForImageClassification"])
    processor = "preprocessor_config.json"
    assert (tmp_path / "run" / "huggingface" / processor).read_bytes() == (vit / processor).read_bytes()
    theirs = load_back(transformers.ViTForImageClassification, vit).state_dict()
    new = [name for name in began if not torch.equal(began[name], theirs[name])]
    assert set(new) == {"classifier.weight", "classifier.bias"}
    assert all(torch.equal(began[name], ended[name]) == name.startswith("vit.embeddings") for name in began)
    said = "38 of 40 loaded; new for its size: classifier.weight ([7, 16] there, [10, 16] here), "
    assert said in capsys.readouterr().out
    (vit / "model.safetensors").unlink()
    run(load_settings(tmp_path / "run" / "config.toml", ["rounds=3"]), tmp_path / "run", resume=True)
    x = torch.rand(2, 1, 8, 8)
    model = load_back(transformers.ViTForImageClassification, tmp_path / "run" / "huggingface")
    pixels = (x.expand(-1, 3, -1, -1) - torch.tensor([0.1, 0.2, 0.3]).reshape(1, 3, 1, 1)) / 0.5
    assert torch.allclose(
        load_trained_model(tmp_path / "run").probabilities(x), model(pixels).logits.softmax(1), atol=1e-6
    )
    name = f"huggingface:{tmp_path / 'run' / 'huggingface'}"
    again = {"model.name": name, "pretrain.weights": name, "rounds": 1}
    run(load_settings(written(tmp_path), [f"{key}={value}" for key, value in again.items()]), tmp_path / "second")
    assert tensors(tmp_path / "second" / "start" / "model.safetensors").keys() == ended.keys()


def test_pixels_are_normalised_and_resized_as_the_checkpoint_says(vit: Path) -> None:
    """Images of another size and of one channel."""
    ours = registry.build(f"huggingface:{vit}", [1, 10, 12], 7, rng_seed=0).eval()
    ours.load_state_dict(huggingface_models.huggingface_weights(str(vit), "", ours))
    x = torch.rand(2, 1, 10, 12)
    pixels = torch.nn.functional.interpolate(x.expand(-1, 3, -1, -1), (8, 8), mode="bilinear", antialias=True)
    pixels = (pixels - torch.tensor([0.1, 0.2, 0.3]).reshape(1, 3, 1, 1)) / 0.5
    theirs = load_back(transformers.ViTForImageClassification, vit)(pixel_values=pixels).logits
    assert torch.allclose(ours(x), theirs, atol=1e-6)


def test_a_model_of_text_runs_and_loads_back(bert: Path, tmp_path: Path) -> None:
    """Class 1 has token 7. The checkpoint lacks pooler and classifier, which are new and count as the head."""
    g = np.random.default_rng(0)
    x, y = g.integers(8, 60, (90, 12)), g.integers(0, 2, 90)
    x[y == 1, 3] = 7
    x[:, 9:] = 0
    np.savez(tmp_path / "tokens.npz", x=x, y=y)
    run(load_settings(written(tmp_path, TEXT)), tmp_path / "run")
    (about,) = json.loads((tmp_path / "run" / "start" / "start.json").read_text())
    new = {f"{part}.{kind}" for part in ("bert.pooler.dense", "classifier") for kind in ("weight", "bias")}
    assert set(about["loaded"]["new"]) == new
    model = load_back(transformers.BertForSequenceClassification, tmp_path / "run" / "huggingface")
    ours = registry.build(f"huggingface:{bert}", [12], 2, rng_seed=0).eval()
    assert head_names(ours) == new
    ours.load_state_dict(tensors(tmp_path / "run" / "model.safetensors"))
    tokens = torch.from_numpy(x[:4])
    short = model(input_ids=tokens[:, :9]).logits
    assert torch.allclose(ours(tokens), short, atol=1e-5)  # the pad token is masked
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert summary["rounds"] == 2
    with pytest.raises(Mistake, match="it takes tokens, whole numbers"):
        ours(tokens.float())


def keep_only_a_pickle(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    torch.save(Trap(folder / "sprung"), folder / "pytorch_model.bin")


def add_code(folder: Path) -> None:
    """Give a checkpoint classes of its own."""
    config = json.loads((folder / "config.json").read_text()) | {"model_type": "mine"}
    config["auto_map"] = dict.fromkeys(("AutoConfig", "AutoModelForImageClassification"), "code.Mine")
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "code.py").write_text(f"import os\nos.mkdir({str(folder / 'sprung')!r})\n")


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (keep_only_a_pickle, 'model.name = "huggingface:.*vit": its weights cannot be read from a safetensors file'),
        (add_code, 'model.name = "huggingface:.*vit": it cannot be made a classifier of images'),
        (lambda folder: (folder / "config.json").unlink(), "cannot be made a classifier of images"),
    ],
)
def test_code_in_a_checkpoint_is_never_run(
    change: Callable[[Path], None], sentence: str, vit: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)  # the variable is read once, on import
    change(vit)
    with pytest.raises(Mistake, match=sentence):
        run(load_settings(written(tmp_path), ["model.name=huggingface:vit"]), tmp_path / "run")
    assert not (vit / "sprung").exists()
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("keys", "sentence"),
    [
        (["pretrain.weights=published:v2"], 'pretrain.weights = "published:v2": a checkpoint .* has no named weights'),
        (["model.image_size=16"], "position_embeddings is .* there and .* in the model"),
        (["model.image_size=0"], "model.image_size = 0: it must be a whole number, 1 or more"),
        (
            ["model.hidden=3"],
            "model.hidden = 3: there is no such key; .* takes name, revision, pad_id, image_size, head",
        ),
    ],
)
def test_keys_that_do_not_fit_a_checkpoint_are_refused(
    keys: list[str], sentence: str, vit: Path, tmp_path: Path
) -> None:
    with pytest.raises(Mistake, match=sentence):
        run(load_settings(written(tmp_path), ["model.name=huggingface:vit", *keys]), tmp_path / "run")


def test_a_missing_folder_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)  # the variable is read once, on import
    with pytest.raises(Mistake, match=r'"huggingface:vti": .* \(there is no such folder, and on the Hub: '):
        run(load_settings(written(tmp_path), ["model.name=huggingface:vti"]), tmp_path / "run")


def test_a_checkpoint_of_images_cannot_classify_text(vit: Path) -> None:
    with pytest.raises(Mistake, match="cannot be made a classifier of text"):
        registry.build(f"huggingface:{vit}", [12], 2, rng_seed=0)


def test_a_run_without_weights_starts_at_random(vit: Path, tmp_path: Path) -> None:
    run(
        load_settings(written(tmp_path), ["model.name=huggingface:vit", "rounds=1", "pretrain.weights=none"]),
        tmp_path / "run",
    )
    assert not (tmp_path / "run" / "start").exists()
