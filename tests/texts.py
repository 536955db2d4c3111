"""A tokenizer of a few words, and small models of transformers, in folders as `save_pretrained` writes them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

WORDS = ["<pad>", "<end>", "<unk>", "a", "b", "c", "d", "e", "f", "g"]
PAD, END = 0, 1
SIZES = {"vocab_size": len(WORDS), "pad_token_id": PAD, "eos_token_id": END, "bos_token_id": END}


def write_tokenizer(folder: Path, **roles: str) -> Path:
    """Write a tokenizer whose tokens are words between spaces, and the roles of its special tokens."""
    tokenizers = pytest.importorskip("tokenizers")
    vocabulary = {word: number for number, word in enumerate(WORDS)}
    made = tokenizers.Tokenizer(tokenizers.models.WordLevel(vocabulary, unk_token="<unk>"))
    made.pre_tokenizer = tokenizers.pre_tokenizers.WhitespaceSplit()
    made.add_special_tokens(WORDS[:3])
    folder.mkdir(exist_ok=True)
    made.save(str(folder / "tokenizer.json"))
    roles = roles or {"pad_token": "<pad>", "eos_token": "<end>"}
    (folder / "tokenizer_config.json").write_text(json.dumps(roles))
    return folder


def decoder_config(name: str = "gpt2", **changes: Any) -> Any:
    """The configuration of a small decoder without dropout: "gpt2" or "llama"."""
    transformers = pytest.importorskip("transformers")
    none = {"resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0}
    if name == "gpt2":
        return transformers.GPT2Config(
            **SIZES | {"n_embd": 8, "n_layer": 1, "n_head": 2, "n_positions": 32} | none | changes
        )
    own = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    return transformers.LlamaConfig(**SIZES | own | {"max_position_embeddings": 32} | changes)


def encoder_config(**changes: Any) -> Any:
    """The configuration of a small BERT without dropout."""
    transformers = pytest.importorskip("transformers")
    own = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    none = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0, "max_position_embeddings": 32}
    return transformers.BertConfig(**SIZES | own | none | changes)


def write_checkpoint(folder: Path, config: Any, kind: str = "AutoModelForCausalLM") -> Path:
    """Write a tokenizer, and a model with drawn weights."""
    transformers = pytest.importorskip("transformers")
    transformers.utils.logging.disable_progress_bar()
    write_tokenizer(folder)
    torch.manual_seed(0)
    getattr(transformers, kind).from_config(config).save_pretrained(folder)
    return folder
