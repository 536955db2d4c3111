"""Make what docs/how-to/fine_tune_text.md begins with: texts, a tokenizer, and a small transformer that knows nothing.

The texts are documentation that every installation has: of Python's standard library to pre-train on, and of five
packages that coterie needs, each a client's own, to fine-tune on. They are read from source files, and nothing is run.

    python examples/text/prepare.py [FOLDER]
"""

from __future__ import annotations

import ast
import csv
import importlib.util
import json
import sys
import sysconfig
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import AutoModelForCausalLM, GPT2Config

PACKAGES = ("matplotlib", "numpy", "pydantic", "sklearn", "torch")
LIBRARY = Path(sysconfig.get_path("stdlib"))
PAD, END = "<pad>", "<end>"


def paragraphs(folder: Path) -> Iterator[str]:
    """Yield the paragraphs of the docstrings below a folder, in the order of its files."""
    seen = set()
    for file in sorted(folder.rglob("*.py")):
        if {"tests", "test", "site-packages"} & set(file.relative_to(folder).parts):
            continue
        try:
            tree = ast.parse(file.read_text("utf-8"))
        except (SyntaxError, ValueError):
            continue
        for node in ast.walk(tree):
            if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef):
                for text in (ast.get_docstring(node) or "").split("\n\n"):
                    text = " ".join(text.split())
                    if 60 <= len(text) <= 400 and text not in seen and "--" not in text:
                        seen.add(text)
                        yield text


def take(folder: Path, number: int) -> list[str]:
    """Return paragraphs from all over a folder, about as many as asked for."""
    found = list(paragraphs(folder))
    return list(islice(found[:: max(1, len(found) // number)], number))


def write_texts(folder: Path, library: Path, packages: Sequence[str], pretraining: int, each: int) -> list[str]:
    """Write library.txt, a paragraph a line, and packages.csv, with the package of each; return the first."""
    texts = take(library, pretraining)
    (folder / "library.txt").write_text("\n".join(texts) + "\n", "utf-8")
    with (folder / "packages.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["text", "package"])
        for package in packages:
            where = importlib.util.find_spec(package).origin
            writer.writerows([text, package] for text in take(Path(where).parent, each))
    return texts


def write_base(folder: Path, texts: list[str], tokens: int = 2000, width: int = 128, layers: int = 2) -> None:
    """Write a tokenizer made from texts (byte-level BPE, as GPT-2's), and a GPT-2 of drawn weights that takes it."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=tokens, special_tokens=[PAD, END], initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(texts, trainer)
    folder.mkdir(exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps({"pad_token": PAD, "eos_token": END}))
    torch.manual_seed(0)
    none = {"resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0}
    config = GPT2Config(
        vocab_size=tokenizer.get_vocab_size(), n_embd=width, n_layer=layers, n_head=4, n_positions=64,
        pad_token_id=0, bos_token_id=1, eos_token_id=1, **none,
    )  # fmt: skip
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)


def main(
    folder: Path,
    library: Path = LIBRARY,
    packages: Sequence[str] = PACKAGES,
    pretraining: int = 4000,
    each: int = 300,
) -> None:
    """Write all of it into a folder: so many paragraphs of a library's folder, and of each package."""
    folder.mkdir(parents=True, exist_ok=True)
    write_base(folder / "base", write_texts(folder, library, packages, pretraining, each))


if __name__ == "__main__":
    main(Path(*sys.argv[1:2]))
