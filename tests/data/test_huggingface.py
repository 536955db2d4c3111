"""Data sets of the package `datasets`; tests that need it are skipped if it is not installed."""

from __future__ import annotations

import importlib

import numpy as np
import pytest
import torch

from coterie.core.errors import Mistake
from coterie.data import deal, huggingface, load, own_test


@pytest.fixture
def datasets():
    found = pytest.importorskip("datasets")
    found.disable_progress_bars()
    return found


def test_without_the_package_says_how_to_install_it(tmp_path, monkeypatch):
    real = importlib.import_module

    def without_packages(name):
        if not name.startswith("coterie."):
            raise ImportError(name)
        return real(name)

    monkeypatch.setattr(importlib, "import_module", without_packages)
    for arguments in ({"path": tmp_path}, {"name": "ylecun/mnist"}):
        with pytest.raises(Mistake, match=r"pip install 'coterie\[huggingface\]'") as raised:
            load("huggingface", **arguments)
        assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({}, r"^path is missing; the source huggingface needs either a folder \(path\) or a name on the Hub"),
        ({"path": "here", "name": "there"}, r"^path and name are both given"),
        ({"path": "here", "revision": "main"}, r'^revision = "main": it belongs to a name on the Hub'),
        ({"path": "nowhere"}, r'^path = "nowhere": there is no such folder'),
    ],
)
def test_either_a_folder_or_a_name_is_given(arguments, says):
    with pytest.raises(Mistake, match=says):
        load("huggingface", **arguments)


def of_pictures(datasets, size=(6, 4)):
    """Twenty grey pictures of one level each, of three declared classes of which two occur, from two writers."""
    image = pytest.importorskip("PIL.Image")
    features = datasets.Features(
        image=datasets.Image(), label=datasets.ClassLabel(names=["zero", "none", "10"]), writer=datasets.Value("int64")
    )
    pictures = [image.new("L", size, 51 * (k % 3)) for k in range(20)]
    columns = {"image": pictures, "label": [k % 2 for k in range(20)], "writer": [3 + k // 10 for k in range(20)]}
    return datasets.Dataset.from_dict(columns, features=features)


def test_pictures_are_found_and_declared_classes_keep_their_numbers(datasets):
    """A class may be called "none", and a class that occurs in no row counts."""
    source = huggingface.source(of_pictures(datasets), client_column="writer")
    x, y = source.train.tensors()
    assert x.shape == (16, 1, 4, 6)
    assert torch.allclose(x.unique(), torch.tensor([0.0, 0.2, 0.4]))
    assert (source.num_classes, source.label_names) == (3, ["zero", "none", "10"])
    assert set(y.tolist()) == {0, 1}
    clients = deal(source)
    assert {c: len(e) for c, e in clients.items()} == {"3": 8, "4": 8}
    assert {c: len(e) for c, e in own_test(source, clients).items()} == {"3": 2, "4": 2}


def test_rows_without_labels_are_all_for_training(datasets):
    source = huggingface.source(of_pictures(datasets), client_column="writer", labels=False)
    assert (len(source.train), source.train.y, source.test, source.num_classes) == (20, None, None, None)


@pytest.mark.parametrize("split", [False, True])
def test_a_saved_folder_is_loaded_unchanged(datasets, tmp_path, split):
    """A test split may have another name."""
    data = of_pictures(datasets)
    if split:
        parts = data.train_test_split(5, seed=0)
        data = datasets.DatasetDict({"train": parts["train"], "held out": parts["test"]})
    data.save_to_disk(tmp_path / "mine")
    source = load("huggingface", path=tmp_path / "mine", **({"test_split": "held out"} if split else {}))
    assert (len(source.train), len(source.test)) == ((15, 5) if split else (16, 4))
    if split:
        assert source.test.tensors()[1].tolist() == data["held out"]["label"][:]
    assert not source.natural


def test_a_folder_of_files_that_the_package_reads(datasets, tmp_path, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    rows = [f"{k},{k % 3},{k % 2}" for k in range(30)]
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "train.csv").write_text("\n".join(["age,dose,label", *rows]) + "\n")
    source = load("huggingface", path=tmp_path / "mine")
    assert source.feature_names == ["age", "dose"]
    assert (len(source.train), len(source.test)) == (24, 6)


def test_a_table_is_encoded_and_standardised(datasets):
    features = datasets.Features(
        age=datasets.Value("float32"), sex=datasets.ClassLabel(names=["f", "m"]), diagnosis=datasets.Value("string")
    )
    columns = {"age": [20.0, None] * 10, "sex": [0, 1, 1, -1] * 5, "diagnosis": ["sick", "well"] * 10}
    table = datasets.Dataset.from_dict(columns, features=features)
    source = huggingface.source(table, label_column="diagnosis")
    assert source.feature_names == ["age", "age missing", "sex=f", "sex=m", "sex missing"]
    assert source.numeric == [0]
    assert source.label_names == ["sick", "well"]


def test_text_with_labels_and_without(datasets):
    """One row is one example; or the lines of each speaker are cut into windows, the last fifth for testing."""
    labelled = huggingface.source(datasets.Dataset.from_dict({"text": ["good", "no"] * 10, "label": [1, 0] * 10}))
    assert labelled.train.tensors()[0].shape == (16, 4)
    assert labelled.num_classes == 2
    lines = {"text": ["to be\nor not", "", "mark me"] * 5, "role": ["h", "h", "g"] * 5}
    spoken = huggingface.source(datasets.Dataset.from_dict(lines), text_column="text", client_column="role")
    assert spoken.num_classes == 258
    assert list(deal(spoken)) == ["g", "h"]
    test, _ = own_test(spoken, ["g"])["g"].tensors()
    assert bytes(test[0, 1:8].tolist()) == b"mark me"
    assert test[0, 8] == 257


def test_a_column_of_arrays_stays_unchanged(datasets):
    pixels = np.arange(200, dtype=np.uint8).reshape(8, 5, 5)
    features = datasets.Features(p=datasets.Array2D((5, 5), "uint8"), label=datasets.Value("int64"))
    data = datasets.Dataset.from_dict({"p": list(pixels), "label": [0, 1] * 4}, features=features)
    source = huggingface.source(data, image_column="p", test_fraction=0.5)
    first = source.train.rows[0]
    assert torch.equal(source.train.x[first, 0], torch.from_numpy(pixels[first]) / 255)
    tokens = datasets.Dataset.from_dict({"ids": [[5, 6], [7, 8]] * 5, "label": [0, 1] * 5})
    assert huggingface.source(tokens, feature_columns=["ids"]).train.x.dtype == torch.int64


def test_a_list_of_labels_is_a_label_for_each_token(datasets):
    """Of a tagger: -100 counts for nothing, and declared classes keep their names."""
    rows = {"tokens": [[5, 6, 7]] * 10, "tags": [[0, 1, -100], [1, 1, 0]] * 5}
    data = datasets.Dataset.from_dict(rows)
    source = huggingface.source(data, feature_columns=["tokens"], label_column="tags")
    assert (source.num_classes, source.label_names) == (2, None)
    assert [0, 1, -100] in source.train.tensors()[1].tolist()
    features = {"tokens": data.features["tokens"], "tags": datasets.List(datasets.ClassLabel(names=["o", "i", "b"]))}
    declared = datasets.Dataset.from_dict({**rows, "tags": [[0, 1, 0]] * 10}, features=datasets.Features(features))
    source = huggingface.source(declared, feature_columns=["tokens"], label_column="tags")
    assert (source.num_classes, source.label_names) == (3, ["o", "i", "b"])


def test_lists_of_labels_without_such_positions_are_refused(datasets):
    """They once became classes called "[0, 2]"."""
    data = datasets.Dataset.from_dict({"a": [1.0] * 10, "tokens": [[5, 6, 7]] * 10, "label": [[0, 2], [1, 0]] * 5})
    with pytest.raises(Mistake, match=r"row 1: label holds a list, \[0, 2\]; a label is one text"):
        huggingface.source(data, feature_columns=["a"])
    with pytest.raises(Mistake, match=r"label: holds lists of shape \[2\]; a label .* whose shape is \[3\]"):
        huggingface.source(data, feature_columns=["tokens"])


def test_data_that_cannot_be_used_give_one_sentence(datasets):
    data = of_pictures(datasets)
    two = datasets.Dataset.from_dict({"a": [[1], [1, 2]] * 5, "b": [3] * 10, "label": [0, 1] * 5})
    gaps = datasets.Dataset.from_dict({"a": [None, [1]], "b": [[3], [None]], "c": [None, "x"], "text": ["a", "b"]})
    splits = datasets.DatasetDict({"train": data, "validation": data})
    uneven = datasets.concatenate_datasets([data, of_pictures(datasets, size=(5, 5))])
    pixels = [data[0]["image"], {"bytes": b"no picture", "path": None}]
    features = datasets.Features({"image": datasets.Image(), "label": datasets.Value("int64")})
    damaged = datasets.Dataset.from_dict({"image": pixels, "label": [0, 1]}, features=features)
    unlabelled = data.map(lambda row: {"label": -1})
    for dataset, arguments, says in (
        (data, {"image_column": "picture"}, r'^image_column = "picture": .* its columns are "image", "label"'),
        (data, {"label_column": "digit"}, r'^label_column = "digit": the data set has no such column'),
        (data, {"client_column": "site"}, r'^client_column = "site": the data set has no such column'),
        (data, {"text_column": "writer"}, r"the data set: writer: row 1 holds int where there must be text"),
        (data, {"image_column": "writer"}, r'^image_column = "writer": .* of the kind int64; pictures'),
        (data, {"image_column": "image", "feature_columns": ["writer"]}, r"^image_column and feature_columns"),
        (data, {"feature_columns": ["image"]}, r"image holds values of the kind \w+; store numbers"),
        (data, {"test_split": "test"}, r'^test_split = "test": the data set has no splits'),
        (splits, {"test_split": "test"}, r'^test_split = "test": .* it has train, validation'),
        (uneven, {}, r"image of row 21: has 5 x 5 where .* of row 1 has 6 x 4; bring all pictures to one size"),
        (damaged, {"image_column": "image"}, r"row 2: image cannot be read as a picture \(.*\); replace or remove it"),
        (unlabelled, {}, r"row 1: label is missing, but label_column"),
        (two, {"feature_columns": ["a"]}, r"a holds lists of unequal lengths"),
        (gaps, {"feature_columns": ["a"]}, r"a holds lists of unequal lengths, or none"),
        (gaps, {"feature_columns": ["b"]}, r"row 2: b lacks a value; give a number in every place"),
        (gaps, {"text_column": "text", "client_column": "c"}, r"row 1: c is missing, but client_column"),
        (gaps, {"text_column": "text", "client_column": "b"}, r"row 1: b holds a list, \[3\]; a client id is one text"),
        (two, {"feature_columns": ["a", "b"]}, r"a holds values of the kind list"),
        ([1, 2], {}, r"the data set: is a list; give a datasets.Dataset"),
    ):
        with pytest.raises(Mistake, match=says) as raised:
            huggingface.source(dataset, **arguments)
        assert "\n" not in str(raised.value)


def test_more_columns_than_the_package_reads_in_reasonable_time_are_refused(datasets, monkeypatch):
    monkeypatch.setattr(huggingface, "_MAX_COLUMNS", 1)
    with pytest.raises(Mistake, match=r"holds 3 columns; at most 1 are read, so store features as one column of lists"):
        huggingface.source(of_pictures(datasets))


def test_a_folder_without_readable_files_gives_one_sentence(datasets, tmp_path):
    with pytest.raises(Mistake, match=r"cannot be loaded \(") as raised:
        load("huggingface", path=tmp_path)
    assert "\n" not in str(raised.value)
