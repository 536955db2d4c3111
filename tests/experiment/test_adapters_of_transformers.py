"""A checkpoint of transformers is fine-tuned with adapters; what the run leaves loads in transformers and in peft."""

from pathlib import Path

import numpy as np
import pytest
import torch

from coterie.experiment import folder_jobs
from coterie.experiment.run import run
from coterie.experiment.settings import load_settings
from coterie.experiment.trained_model import load_trained_model

transformers = pytest.importorskip("transformers")

FILE = """
rounds = 2
[data]
source = "npz"
path = "tokens.npz"
num_clients = 3
[model]
name = "huggingface:bert"
adapter = "lora"
rank = 2
targets = ["query", "value"]
[algorithm]
name = "fedavg"
lr = 0.01
optimizer = "adamw"
weight_decay = 0.01
"""


@pytest.fixture
def finished(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(folder_jobs, "write_report", lambda folder: (folder / "report.html").write_text("page"))
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
    config = transformers.BertConfig(**sizes, vocab_size=60, max_position_embeddings=20, num_labels=3, pad_token_id=0)
    transformers.BertForSequenceClassification(config).save_pretrained(tmp_path / "bert")
    tokens = np.random.default_rng(0).integers(1, 60, (60, 9))
    np.savez(tmp_path / "tokens.npz", x=tokens, y=tokens[:, 0] % 3)
    (tmp_path / "file.toml").write_text(FILE)
    run(load_settings(tmp_path / "file.toml"), tmp_path / "run")
    return tmp_path / "run"


def test_what_a_run_leaves_loads_everywhere(finished: Path) -> None:
    tokens = torch.randint(1, 60, (5, 9))
    model = load_trained_model(finished).model
    with torch.no_grad():
        ours = model(tokens)
    whole = transformers.AutoModelForSequenceClassification.from_pretrained(finished / "huggingface").eval()
    torch.testing.assert_close(whole(input_ids=tokens, attention_mask=torch.ones_like(tokens)).logits, ours)
    peft = pytest.importorskip("peft")
    kind = transformers.AutoModelForSequenceClassification
    base = kind.from_pretrained(finished.parent / "bert", num_labels=3)
    adapted = peft.PeftModel.from_pretrained(base, str(finished / "adapter")).eval()
    torch.testing.assert_close(adapted(input_ids=tokens, attention_mask=torch.ones_like(tokens)).logits, ours)
