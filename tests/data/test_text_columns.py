"""Texts as tokens of a tokenizer; the expected numbers are written out by hand from the words of `tests.texts`."""

from __future__ import annotations

import json

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from coterie.core.errors import Mistake
from coterie.data import huggingface, load
from coterie.data.text_columns import TextColumn, text_column_from_record
from coterie.data.tokenizer import Tokenizer, read_tokenizer
from tests.texts import END, PAD, WORDS, write_tokenizer

pytest.importorskip("tokenizers")


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory) -> Tokenizer:
    return read_tokenizer(write_tokenizer(tmp_path_factory.mktemp("words")))


def test_roles_come_from_the_files_beside_the_tokenizer(tmp_path):
    own = read_tokenizer(write_tokenizer(tmp_path))
    assert (own.pad, own.end, own.size) == (PAD, END, len(WORDS))
    assert own.decode(own.encode(["a c"])[0] + [END, PAD]) == "a c"
    assert read_tokenizer(tmp_path / "tokenizer.json") == own
    write_tokenizer(tmp_path, eos_token="<end>")
    assert read_tokenizer(tmp_path).pad == END  # as GPT-2 is used, whose files name no pad token


@pytest.mark.parametrize(
    ("roles", "says"),
    [
        ({"unk_token": "<unk>"}, "it names no pad_token and no eos_token"),
        ({"pad_token": "<none>"}, "names the token '<none>', which tokenizer.json does not have"),
    ],
)
def test_roles_that_are_missing_are_refused(tmp_path, roles, says):
    with pytest.raises(Mistake, match=says):
        read_tokenizer(write_tokenizer(tmp_path, **roles))


def test_other_tokenizers_are_refused(tmp_path):
    with pytest.raises(Mistake, match="there is no such folder or file"):
        read_tokenizer(tmp_path / "nowhere")
    (tmp_path / "vocab.txt").write_text("a\nb\n")
    with pytest.raises(Mistake, match=r"it has no tokenizer.json; save it with a fast tokenizer's save_pretrained"):
        read_tokenizer(tmp_path)
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(Mistake, match=r"is not a tokenizer.json that this version reads"):
        read_tokenizer(tmp_path)


def test_texts_to_classify_are_filled_up_and_cut(tokenizer):
    """A text of no words is one end token, so that no example is filling alone."""
    x, cut = TextColumn("text", tokenizer, 3, next_token=False).inputs(["a b", "", "c d e f"])
    assert x.tolist() == [[3, 4, PAD], [END, PAD, PAD], [5, 6, 7]]
    assert cut == 1


def test_packed_documents_are_one_stream(tokenizer):
    """The example in the module's docstring: documents a b c and d, in blocks of 4."""
    x, y = TextColumn("text", tokenizer, 4, next_token=True).blocks(["a b c", "d"])
    assert x.tolist() == [[END, 3, 4, 5], [END, 6, PAD, PAD]]
    assert y.tolist() == [[3, 4, 5, END], [6, END, -100, -100]]


def test_unpacked_documents_are_an_example_each(tokenizer):
    x, y, cut = TextColumn("text", tokenizer, 3, next_token=True).documents(["a b c", "d"])
    assert x.tolist() == [[END, 3, 4], [END, 6, PAD]]
    assert y.tolist() == [[3, 4, 5], [6, END, -100]]
    assert cut == 1


@given(
    st.lists(st.lists(st.sampled_from("abcdefg"), min_size=1, max_size=9), min_size=1, max_size=6), st.integers(1, 12)
)
def test_every_token_is_predicted_once(documents, length):
    """Packed or not, the labels that count are the tokens of all documents, each with its end, in their order."""
    texts = [" ".join(words) for words in documents]
    column = TextColumn("text", _word_tokenizer(), length, next_token=True)
    wanted = [token for words in documents for token in [*(WORDS.index(word) for word in words), END]]
    x, y = column.blocks(texts)
    assert x.shape == y.shape == (-(-len(wanted) // length), length)
    assert y[y != -100].tolist() == wanted
    assert torch.equal(x.flatten()[1 : len(wanted)], torch.tensor(wanted[:-1]))
    _, y, cut = TextColumn("text", column.tokenizer, 12, next_token=True).documents(texts)
    assert (y[y != -100].tolist(), cut) == (wanted, 0)


def _word_tokenizer() -> Tokenizer:
    import tokenizers

    made = tokenizers.Tokenizer(tokenizers.models.WordLevel({w: k for k, w in enumerate(WORDS)}, unk_token="<unk>"))
    made.pre_tokenizer = tokenizers.pre_tokenizers.WhitespaceSplit()
    return Tokenizer(made.to_str(), PAD, END)


def test_a_record_gives_the_column_back(tokenizer):
    column = TextColumn("text", tokenizer, 4, next_token=True)
    record = json.loads(json.dumps(column.to_record()))
    assert text_column_from_record(record, tokenizer.content) == column


@pytest.fixture
def datasets():
    found = pytest.importorskip("datasets")
    found.disable_progress_bars()
    return found


def test_a_column_of_a_data_set_becomes_tokens(datasets, tmp_path):
    """Ten rows of two clients: with labels each is an example, without each client's last row is for testing."""
    folder = write_tokenizer(tmp_path)
    rows = {"text": ["a b", "c d e"] * 5, "label": [0, 1] * 5, "who": ["x", "y"] * 5}
    data = datasets.Dataset.from_dict(rows)
    options = {"text_column": "text", "client_column": "who", "tokenizer": folder, "max_length": 2}
    labelled = huggingface.source(data, **options)
    assert (len(labelled.train), labelled.num_classes, labelled.text.next_token) == (8, 2, False)
    assert {tuple(row) for row in labelled.train.tensors()[0].tolist()} == {(3, 4), (5, 6)}
    assert labelled.notes == ["5 of 10 texts are longer than max_length = 2 tokens, and what is beyond is not read"]
    packed = huggingface.source(data, **options, labels=False)
    assert (packed.num_classes, packed.text.next_token, packed.notes) == (len(WORDS), True, [])
    assert packed.groups.count("x") == 6  # four documents of END a b, in blocks of 2
    assert packed.test_groups == ["x", "x", "y", "y"]
    alone = huggingface.source(data, **options, labels=False, packed=False)
    assert (len(alone.train), len(alone.test)) == (8, 2)
    assert alone.train.tensors()[1].tolist()[0] == [3, 4]


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"max_length": 4}, "max_length = 4: it belongs to a tokenizer; give one, or leave it out"),
        ({"tokenizer": True, "packed": True}, "packed = true: texts with labels are one example each"),
        ({"tokenizer": True, "max_length": 0}, "max_length = 0: it must be 1 or more"),
        ({"tokenizer": True, "text_column": "words"}, 'text_column = "words": .* has no such column'),
    ],
)
def test_keys_that_mean_nothing_are_refused(datasets, tmp_path, options, says):
    data = datasets.Dataset.from_dict({"text": ["a", "b"] * 5, "label": [0, 1] * 5})
    if "tokenizer" in options:
        options = options | {"tokenizer": write_tokenizer(tmp_path)}
    with pytest.raises(Mistake, match=says):
        huggingface.source(data, **{"text_column": "text"} | options)


@pytest.mark.parametrize("ending", ["csv", "jsonl", "txt"])
def test_a_file_is_a_data_set(datasets, tmp_path, monkeypatch, ending):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    lines = [f"a {word}" for word in "bcdefg"]
    file = tmp_path / f"mine.{ending}"
    written = {"csv": ["text", *lines], "jsonl": [json.dumps({"text": line}) for line in lines], "txt": lines}[ending]
    file.write_text("\n".join(written) + "\n")
    source = load("huggingface", path=file, tokenizer=write_tokenizer(tmp_path), max_length=3, packed=False)
    assert source.train.tensors()[0].tolist() == [[END, 3, 4 + k] for k in range(4)]  # the last two are for testing
    assert source.test.tensors()[1].tolist() == [[3, 8, END], [3, 9, END]]


def test_a_file_of_another_kind_is_refused(tmp_path):
    (tmp_path / "mine.doc").write_text("a")
    with pytest.raises(Mistake, match=r"no such folder, and no such file of the kinds .csv, .json"):
        load("huggingface", path=tmp_path / "mine.doc")
