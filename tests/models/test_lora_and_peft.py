"""peft as the oracle: the same outputs, the same merged weights, and files that each reads of the other."""

import copy
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from coterie import Mistake
from coterie.models.adapter_files import CONFIG, WEIGHTS, read_adapter, write_adapter
from coterie.models.lora import add_adapters, find_adapters, merge_adapters, merge_values

peft = pytest.importorskip("peft")


class Words(nn.Module):
    """Embedding, convolution, linear layers; the names of two end alike."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(11, 6, padding_idx=0)
        self.conv = nn.Conv1d(6, 5, 3, stride=2, padding=1)
        self.body = nn.Sequential(nn.Linear(5, 7), nn.ReLU())
        self.answer = nn.Linear(7, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.answer(self.body(self.conv(self.table(x).transpose(1, 2)).mean(2)))


class Pictures(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2, 4, 3, padding=1, stride=2)  # peft leaves out a dilation
        self.deep = nn.Conv3d(1, 3, 2)
        self.answer = nn.Linear(3, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.answer(self.deep(self.conv(x)[:, None]).mean((2, 3, 4)))


TARGETS = {Words: ["table", "conv", "body.0"], Pictures: ["conv", "deep"]}
INPUTS = {Words: torch.randint(0, 11, (4, 8)), Pictures: torch.randn(4, 2, 9, 9)}


def ours_and_theirs(kind: type[nn.Module]) -> tuple[nn.Module, nn.Module]:
    """One model with adapters of both libraries, all factors drawn, ours as theirs."""
    torch.manual_seed(0)
    base = kind()
    ours = add_adapters(copy.deepcopy(base), rank=2, alpha=3, targets=TARGETS[kind])
    config = peft.LoraConfig(r=2, lora_alpha=3, target_modules=TARGETS[kind], modules_to_save=["answer"])
    theirs = peft.get_peft_model(base, config)
    for name, layer in find_adapters(ours).items():
        their = theirs.get_submodule(f"base_model.model.{name}")
        factors = (
            (their.lora_embedding_A["default"], their.lora_embedding_B["default"])
            if isinstance(layer, nn.Embedding)
            else (their.lora_A["default"].weight, their.lora_B["default"].weight)
        )
        for own, factor in zip((layer.lora_A, layer.lora_B), factors, strict=True):
            assert own.shape == factor.shape
            with torch.no_grad():
                factor.normal_()
                own.copy_(factor)
    return ours, theirs


@pytest.mark.parametrize("kind", TARGETS)
def test_outputs_gradients_and_merged_weights_are_those_of_peft(kind: type[nn.Module]) -> None:
    ours, theirs = ours_and_theirs(kind)
    x = INPUTS[kind]
    torch.testing.assert_close(ours(x), theirs(x))
    ours(x).square().sum().backward()
    theirs(x).square().sum().backward()
    got = sorted(float(p.grad.norm()) for p in ours.parameters() if p.requires_grad)
    wanted = sorted(float(p.grad.norm()) for p in theirs.parameters() if p.requires_grad)
    assert got == pytest.approx(wanted, rel=1e-4)
    merged = merge_values(ours, ours.state_dict())
    for name, value in theirs.merge_and_unload().state_dict().items():
        torch.testing.assert_close(merged[name], value)
    assert merge_adapters(ours).state_dict().keys() == merged.keys()


@pytest.mark.parametrize("kind", TARGETS)
def test_peft_loads_our_files(kind: type[nn.Module], tmp_path: Path) -> None:
    ours, _ = ours_and_theirs(kind)
    nn.init.normal_(ours.answer.weight)
    write_adapter(ours, ours.state_dict(), tmp_path)
    torch.manual_seed(0)
    theirs = peft.PeftModel.from_pretrained(kind(), str(tmp_path)).eval()
    torch.testing.assert_close(theirs(INPUTS[kind]), ours(INPUTS[kind]))


@pytest.mark.parametrize("kind", TARGETS)
def test_we_load_files_of_peft(kind: type[nn.Module], tmp_path: Path) -> None:
    _, theirs = ours_and_theirs(kind)
    theirs.save_pretrained(str(tmp_path))
    torch.manual_seed(0)
    adapter = read_adapter(tmp_path)
    assert (adapter.rank, adapter.alpha, sorted(adapter.targets)) == (2, 3.0, sorted(TARGETS[kind]))
    ours = add_adapters(kind(), rank=adapter.rank, alpha=adapter.alpha, targets=list(adapter.targets))
    adapter.load_into(ours)
    torch.testing.assert_close(ours(INPUTS[kind]), theirs(INPUTS[kind]))


def test_a_layer_whose_name_another_one_ends_with_is_told_apart(tmp_path: Path) -> None:
    """peft matches ends of names: "0" would mean both "0" and "1.0"."""
    torch.manual_seed(0)
    base = nn.Sequential(nn.Linear(4, 4), nn.Sequential(nn.Linear(4, 4)), nn.Linear(4, 2))
    ours = add_adapters(copy.deepcopy(base), rank=2, targets=["0"])  # both, as in peft
    assert list(find_adapters(ours)) == ["0", "1.0"]
    ours = add_adapters(copy.deepcopy(base), rank=2, targets=["[0]"])
    assert list(find_adapters(ours)) == ["0"]
    nn.init.normal_(ours[0].lora_B)
    write_adapter(ours, ours.state_dict(), tmp_path)
    theirs = peft.PeftModel.from_pretrained(copy.deepcopy(base), str(tmp_path))
    x = torch.randn(3, 4)
    torch.testing.assert_close(theirs(x), ours(x))


def test_adapters_that_compute_something_else_are_refused(tmp_path: Path) -> None:
    _, theirs = ours_and_theirs(Words)
    theirs.save_pretrained(str(tmp_path))
    config = json.loads((tmp_path / CONFIG).read_bytes())
    for entry, value in (("use_dora", True), ("use_rslora", True), ("bias", "all"), ("alpha_pattern", {"conv": 4})):
        (tmp_path / CONFIG).write_text(json.dumps(config | {entry: value}))
        with pytest.raises(Mistake, match=entry):
            read_adapter(tmp_path)
    (tmp_path / CONFIG).write_text(json.dumps(config | {"r": 3}))
    with pytest.raises(Mistake, match="rank 2"):
        read_adapter(tmp_path)
    (tmp_path / CONFIG).write_text(json.dumps(config))
    with pytest.raises(Mistake, match="does not fit the model at"):
        read_adapter(tmp_path).load_into(add_adapters(Words(), rank=2, targets=["body.0"]))
    (tmp_path / WEIGHTS).rename(tmp_path / "adapter_model.bin")
    with pytest.raises(Mistake, match="a pickle is never opened"):
        read_adapter(tmp_path)


def encoder(transformers: Any) -> Any:
    config = transformers.BertConfig(
        vocab_size=60, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32, num_labels=3
    )
    return transformers.BertForSequenceClassification(config)


def decoder(transformers: Any) -> Any:
    config = transformers.GPT2Config(
        vocab_size=60, n_embd=16, n_layer=1, n_head=2, n_positions=20, num_labels=3, pad_token_id=0
    )
    return transformers.GPT2ForSequenceClassification(config)


@pytest.mark.parametrize(
    ("make", "targets"), [(encoder, ["query", "value", "word_embeddings"]), (decoder, ["c_attn", "mlp.c_fc"])]
)
def test_models_of_transformers_by_the_names_of_their_layers(make: Any, targets: list[str], tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    base = make(transformers).eval()
    ours = add_adapters(copy.deepcopy(base), rank=2, targets=targets)
    for layer in find_adapters(ours).values():
        nn.init.normal_(layer.lora_A)
        nn.init.normal_(layer.lora_B)
    write_adapter(ours, ours.state_dict(), tmp_path)
    tokens = torch.randint(1, 60, (4, 9))
    theirs = peft.PeftModel.from_pretrained(copy.deepcopy(base), str(tmp_path)).eval()
    torch.testing.assert_close(theirs(input_ids=tokens).logits, ours(input_ids=tokens).logits)
    assert len(find_adapters(ours)) == len(targets)
    wanted = theirs.merge_and_unload().state_dict()
    for name, value in merge_values(ours, ours.state_dict()).items():
        torch.testing.assert_close(value, wanted[name])
