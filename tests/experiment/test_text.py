"""Runs on text with a tokenizer: an encoder is fine-tuned to classify, a decoder to predict the next token.

What a run leaves is used again: by `coterie predict`, by transformers, and by peft.
"""

from __future__ import annotations

import csv
import json
import math
from pathlib import Path

import pytest
import torch

from coterie.core.errors import Mistake
from coterie.experiment import folder_jobs
from coterie.experiment.run import run
from coterie.experiment.settings import load_settings
from coterie.experiment.trained_model import load_trained_model
from tests.texts import END, PAD, decoder_config, encoder_config, write_checkpoint

transformers = pytest.importorskip("transformers")
datasets = pytest.importorskip("datasets")

FILE = """
rounds = 1
[data]
source = "huggingface"
path = "texts"
text_column = "text"
client_column = "who"
tokenizer = "base"
max_length = 8
[model]
name = "huggingface:base"
adapter = "lora"
rank = 2
[algorithm]
name = "fedavg"
lr = 0.01
optimizer = "adamw"
weight_decay = 0.01
batch_size = 4
[engine]
dtype = "float32"
"""
TEXTS = ["a b c d", "c d", "e f g a b", "g g", "a a b", "f e d c b a"] * 3


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Skip the report, which takes longer than a run."""
    monkeypatch.setattr(folder_jobs, "write_report", lambda folder: (folder / "report.html").write_text("page"))
    datasets.disable_progress_bars()


@pytest.fixture
def here(tmp_path: Path) -> Path:
    """A folder with texts of three clients, and a file."""
    columns = {"text": TEXTS, "label": [k % 2 for k in range(18)], "who": list("xyz") * 6}
    datasets.Dataset.from_dict(columns).save_to_disk(tmp_path / "texts")
    (tmp_path / "file.toml").write_text(FILE)
    (tmp_path / "new.txt").write_text("a b c\n\ng f\n")
    return tmp_path


def start(here: Path, name: str, *keys: str, resume: bool = False) -> Path:
    run(load_settings(here / "file.toml", keys), here / name, resume=resume)
    return here / name


def test_an_encoder_learns_to_classify(here: Path) -> None:
    """Its tokens are masked where they fill up; transformers and peft load what the run leaves, and agree with it."""
    write_checkpoint(here / "base", encoder_config(num_labels=2), "AutoModelForSequenceClassification")
    folder = start(here, "run")
    assert (folder / "tokenizer.json").read_bytes() == (here / "base" / "tokenizer.json").read_bytes()
    trained = load_trained_model(folder)
    new = trained.read(here / "new.txt")
    assert new.x.tolist() == [[3, 4, 5], [9, 8, PAD]]
    kind, mask = transformers.AutoModelForSequenceClassification, (new.x != PAD).long()
    theirs = kind.from_pretrained(folder / "huggingface").eval()
    with torch.no_grad():
        wanted = theirs(input_ids=new.x, attention_mask=mask).logits
    torch.testing.assert_close(trained.probabilities(new.x), wanted.softmax(1))
    peft = pytest.importorskip("peft")
    adapted = peft.PeftModel.from_pretrained(kind.from_pretrained(here / "base"), str(folder / "adapter")).eval()
    torch.testing.assert_close(adapted(input_ids=new.x, attention_mask=mask).logits, wanted)
    (folder / "tokenizer.json").write_text("{}")
    with pytest.raises(Mistake, match=r"tokenizer.json: is damaged"):
        load_trained_model(folder)


def test_a_decoder_learns_to_predict_tokens(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Only the adapters travel. The perplexity of a text is that which the package's own loss gives."""
    write_checkpoint(here / "base", decoder_config())
    folder = start(here, "run", "data.labels=false", 'evaluate.metrics=["perplexity"]')
    (record,) = [json.loads(line) for line in (folder / "rounds.jsonl").read_text().splitlines()]
    summary = json.loads((folder / "summary.json").read_text())
    assert summary["test_perplexity"] == pytest.approx(math.exp(record["test_loss"]), rel=1e-5)
    # GPT-2's block of width 8 has layers 8 x 24, 8 x 8, 8 x 32 and 32 x 8: 2 (32 + 16 + 40 + 40) numbers of 4 bytes
    assert record["bytes_up"] == 3 * 4 * 2 * (32 + 16 + 40 + 40)
    kind = transformers.AutoModelForCausalLM
    theirs = kind.from_pretrained(folder / "huggingface").eval()
    peft = pytest.importorskip("peft")
    adapted = peft.PeftModel.from_pretrained(kind.from_pretrained(here / "base"), str(folder / "adapter")).eval()
    from coterie.cli.predict_command import write_predictions

    write_predictions(folder, here / "new.txt", None, here / "out.csv", trust=False)
    rows = list(csv.DictReader((here / "out.csv").open()))
    for row, tokens in zip(rows, ([END, 3, 4, 5, END], [END, 9, 8, END]), strict=True):
        whole = torch.tensor([tokens])
        for model in (theirs, adapted):
            loss = model(input_ids=whole, labels=whole).loss
            assert float(row["perplexity"]) == pytest.approx(math.exp(loss.item()), rel=1e-4)
        new = theirs.generate(whole[:, :-1], max_new_tokens=20, do_sample=False, pad_token_id=PAD)
        words = load_trained_model(folder).inputs.text.tokenizer.decode(new[0, len(tokens) - 1 :].tolist())  # type: ignore[union-attr]
        assert row["continuation"].split()[:3] == words.split()[:3]
    assert "of 7 tokens" in capsys.readouterr().out


@pytest.mark.parametrize("apart", [False, True])
def test_both_engines_agree(here: Path, apart: bool) -> None:
    write_checkpoint(here / "base", decoder_config())
    keys = ["data.labels=false", f"model.attend_across_documents={str(not apart).lower()}"]
    losses = []
    for engine in ("sequential", "vectorised"):
        folder = start(here, engine, *keys, f"engine.name={engine}")
        losses.append(json.loads((folder / "summary.json").read_text())["test_loss"])
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)


def test_a_packed_text_with_documents_apart_is_as_good_as_unpacked(here: Path) -> None:
    """Where one block holds all that a client has, the same tokens see the same tokens: one loss before training."""
    write_checkpoint(here / "base", decoder_config())
    keys = [
        "data.labels=false",
        "model.attend_across_documents=false",
        "data.max_length=32",
        "algorithm.batch_size=full",
    ]
    losses = []
    for packed in ("true", "false"):
        folder = start(here, packed, *keys, f"data.packed={packed}")
        (about,) = json.loads((folder / "start" / "start.json").read_text())
        losses.append(about["test_loss"])
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)


def test_a_resumed_run_goes_on_with_the_same_model(here: Path) -> None:
    write_checkpoint(here / "base", decoder_config())
    folder = start(here, "run", "data.labels=false")
    assert "causal_lm" in (folder / "config.toml").read_text()
    start(here, "run", "data.labels=false", "rounds=2", resume=True)
    once = start(here, "once", "data.labels=false", "rounds=2")
    assert (folder / "model.safetensors").read_bytes() == (once / "model.safetensors").read_bytes()


@pytest.mark.parametrize(
    ("keys", "says"),
    [
        (["model.head=causal_lm"], 'model.head = "causal_lm": the data have sequence_classification; leave it out'),
        (["model.pad_id=5"], "model.pad_id = 5: the data's tokenizer has 0; leave it out"),
        (["data.tokenizer=nowhere"], "data.tokenizer = .*nowhere.: there is no such folder or file"),
        (["data.packed=true"], "data.packed = true: texts with labels are one example each"),
    ],
)
def test_keys_that_do_not_fit_the_data_are_refused(here: Path, keys: list[str], says: str) -> None:
    write_checkpoint(here / "base", decoder_config())
    with pytest.raises(Mistake, match=says):
        start(here, "run", *keys)
    assert not (here / "run").exists()


def test_a_model_that_knows_fewer_tokens_is_refused(here: Path) -> None:
    write_checkpoint(here / "base", encoder_config(vocab_size=9), "AutoModelForSequenceClassification")
    with pytest.raises(Mistake, match="it knows 9 tokens, but the data's tokenizer gives 10"):
        start(here, "run")


@pytest.mark.parametrize("keys", [[], ["data.labels=false"]])
def test_a_model_that_knows_fewer_positions_is_refused(here: Path, keys: list[str]) -> None:
    """Also where the texts are short: `coterie predict` may get longer ones."""
    write_checkpoint(here / "base", decoder_config(n_positions=7))
    with pytest.raises(
        Mistake, match=r"^data.max_length = 8: huggingface:.*base has 7 positions; give at most as many"
    ):
        start(here, "run", *keys)
    assert not (here / "run").exists()
    start(here, "run", *keys, "data.max_length=7")


def test_a_row_without_text_is_named(here: Path) -> None:
    write_checkpoint(here / "base", decoder_config())
    (here / "rows.csv").write_text("text,label,who\na b,0,x\n,1,x\nc d,1,x\n")
    with pytest.raises(Mistake, match=r"rows.csv: text: row 2 holds no text; give it one, or leave the row out"):
        start(here, "run", "data.path=rows.csv")
