"""Sources from data sets of the package `datasets` (Hugging Face).

A source is made from columns: of pictures, of text, or of a table. The package is imported only here, when it is used.
Legend: N rows, T tokens.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any

from torch import Tensor

from coterie.core.errors import UNSET, Mistake, reason
from coterie.core.packages import import_package
from coterie.data.dataset_columns import IS_TEST_COLUMN, DatasetColumns
from coterie.data.huggingface_text import (
    choose_text_column,
    read_text_column,
    source_of_characters,
    source_of_tokens,
)
from coterie.data.numpy_arrays import inputs_from_array, labels_from_array, scale_pixels
from coterie.data.picture_pixels import stack_pixels
from coterie.data.raw_table import Labels, source_from_table
from coterie.data.source import Source
from coterie.data.text_tokens import tokens_of_texts

_END = object()
_MAX_COLUMNS = 2000


def import_datasets(wanted_by: str, value: Any = UNSET) -> Any:
    """Import and return the package `datasets`; the arguments are those of `coterie.core.packages.import_package`.

    Raises:
        Mistake: it is not installed.
    """
    return import_package("datasets", wanted_by, "huggingface", value)


def source(
    dataset: Any,
    *,
    train_split: str = "train",
    test_split: str | None = None,
    image_column: str | None = None,
    text_column: str | None = None,
    feature_columns: Sequence[str] | None = None,
    label_column: str | None = None,
    client_column: str | None = None,
    test_fraction: float = 0.2,
    labels: bool = True,
    tokenizer: str | Path | None = None,
    max_length: int | None = None,
    packed: bool | None = None,
    where: str = "the data set",
) -> Source:
    """Return a `datasets.Dataset`, or a `DatasetDict` of splits, as a source.

    The inputs come from one of three arguments. By default they are the only column of pictures, or the only column
    without another use if it holds text, or else a table of all columns without another use.

    - `image_column`: pictures of one size, float32 [C, H, W] in [0, 1], C = 1 if all are grey, else 3.
    - `text_column`: int64 [T], see `coterie.data.text_tokens`. With labels an example is one text; without, it is a
      window of 80 characters, each to be predicted from those before it, from the rows in order, client by client.
      With a `tokenizer` its tokens take the place of characters, and each row is a document, see
      `coterie.data.text_columns`.
    - `feature_columns`: a table, like a Parquet file's, with columns of classes coded. A single column of lists or
      arrays stays unchanged, like the x of an npz file.

    Args:
        dataset: the data.
        train_split: the split of a `DatasetDict` to learn from.
        test_split: the split to test on, by default "test" if there is one. Otherwise a fixed test split is taken,
            stratified by class and client; or each client's last lines, where characters are predicted.
        image_column, text_column, feature_columns: what to learn from.
        label_column: what to predict, a class, or a list with one for each token or pixel; by default "label", or
            nothing for text without such a column. Declared classes keep their numbers and names, and count even if no
            row holds them.
        client_column: each row's client id.
        test_fraction: what part becomes the test set where there is no test split.
        labels: whether the rows have labels; see the source csv.
        tokenizer: a folder or a file tokenizer.json, or "huggingface:NAME" on the Hub.
        max_length: the most tokens of an example, or the length of a block; 128 unless given.
        packed: whether documents to be predicted are joined and cut into blocks, the default, or are an example each.
        where: what messages call the data.

    Raises:
        Mistake: a split or a column is missing, or a value cannot be used.
    """
    columns = _choose_splits(dataset, train_split, test_split, where)
    labelled = label_column or ("label" if "label" in columns.names else None) if labels else None
    given = {"image_column": image_column, "text_column": text_column, "feature_columns": feature_columns}
    named: dict[str, Any] = {key: value for key, value in given.items() if value is not None}
    if len(named) > 1:
        both = " and ".join(f"`{key}`" for key in named)
        raise Mistake(f"{both} are given together; name one of them to learn from")
    named = named or _choose_inputs(columns, {label_column or "label", client_column})
    text = choose_text_column(named.get("text_column"), tokenizer, max_length, packed, labelled is None)
    if text is not None and text.next_token:
        return source_of_tokens(columns, text, client_column, test_fraction, packed is not False)
    if "text_column" in named and labelled is None:
        return source_of_characters(columns, named["text_column"], client_column, test_fraction)
    x, notes = (_read_inputs(columns, named), []) if text is None else read_text_column(columns, text)
    test_column = IS_TEST_COLUMN if len(columns.parts) > 1 else None
    features = None if x is not None else named.get("feature_columns")
    label_column = labelled or label_column or "label"
    answers = labels and (_read_position_labels(columns, label_column, x) or labels)
    made = source_from_table(
        "huggingface", columns.to_table(), label_column, features, client_column, test_column, test_fraction, x, answers
    )
    return made if text is None else replace(made, text=text, notes=notes)


def _read_position_labels(columns: DatasetColumns, name: str, x: Tensor | None) -> Labels | None:
    """Return the labels of a column of lists, which has one for each position of x; None for another column.

    Positions are those of tokens [N, T], or the pixels of pictures [N, C, H, W].
    """
    if name not in columns.names or x is None or not columns.holds_lists(name):
        return None
    where = f"{columns.where}: {name}"
    y, number = labels_from_array(where, columns.read_array(name))
    positions = list(x.shape[2:] if x.is_floating_point() else x.shape[1:])
    if not positions or list(y.shape[1:]) != positions:
        raise Mistake(
            f"{where}: holds lists of shape {list(y.shape[1:])}; a label is one text or whole number, or a list with "
            f"one for each position of the inputs, whose shape is {list(x.shape[1:])}"
        )
    names = getattr(columns.innermost(name), "names", None)
    return Labels(y.numpy(), number if names is None else len(names), names)


def _choose_splits(dataset: Any, train_split: str, test_split: str | None, where: str) -> DatasetColumns:
    """Return the columns of the training and the test split, as plain values.

    Raises:
        Mistake: one is missing or empty, or `dataset` is something else.
    """
    datasets = import_datasets("source", "huggingface")
    if isinstance(dataset, datasets.DatasetDict):
        for key, name in (("train_split", train_split), ("test_split", test_split)):
            if name is not None and name not in dataset:
                raise Mistake(f"{where} has no such split; it has {', '.join(dataset)}", key=key, value=name)
        found = [dataset[name] for name in (train_split, test_split or "test") if name in dataset]
    elif not isinstance(dataset, datasets.Dataset):
        kind = type(dataset).__name__
        raise Mistake(f"{where}: is a {kind}; give a datasets.Dataset or a datasets.DatasetDict")
    elif test_split is not None:
        raise Mistake(f"{where} has no splits; leave it out", key="test_split", value=test_split)
    else:
        found = [dataset]
    if not all(len(part) for part in found):
        raise Mistake(f"{where}: one of its splits holds no rows; each row is an example")
    widest = max(len(part.column_names) for part in found)
    if widest > _MAX_COLUMNS:  # the package itself takes a time that grows with their square
        raise Mistake(
            f"{where}: holds {widest:,} columns; at most {_MAX_COLUMNS:,} are read, so store features as one column of "
            "lists, or the table as a Parquet file"
        )
    return DatasetColumns([part.with_format(None) for part in found], where)


def _choose_inputs(columns: DatasetColumns, used: set[str | None]) -> dict[str, str]:
    """Return the column to learn from by the argument that would name it, or nothing if it is not obvious.

    Args:
        used: columns with another use.
    """
    kinds = {name: columns.type_name(name) for name in columns.names if name not in used}
    pictures = [name for name, kind in kinds.items() if kind == "Image"]
    if len(pictures) == 1:
        return {"image_column": pictures[0]}
    return {"text_column": next(iter(kinds))} if list(kinds.values()) in (["string"], ["large_string"]) else {}


def _read_inputs(columns: DatasetColumns, named: Mapping[str, Any]) -> Tensor | None:
    """Return the inputs [N, ...]; None for a table."""
    if "image_column" in named:
        columns.require("image_column", named["image_column"])
        return _read_pictures(columns, named["image_column"])
    if "text_column" in named:
        columns.require("text_column", named["text_column"])
        return tokens_of_texts(f"{columns.where}: {named['text_column']}", list(columns.cells(named["text_column"])))
    features = named.get("feature_columns", ())
    if len(features) == 1 and features[0] in columns.names and columns.holds_lists(features[0]):
        return inputs_from_array(f"{columns.where}: {features[0]}", columns.read_array(features[0]))
    return None


def _read_pictures(columns: DatasetColumns, name: str) -> Tensor:
    """Return a column of pictures, or of their pixels, [N, C, H, W]."""
    if columns.type_name(name) == "Image":
        return scale_pixels(stack_pixels(_iterate_pictures(columns, name)))
    x = inputs_from_array(f"{columns.where}: {name}", columns.read_array(name)) if columns.holds_lists(name) else None
    if x is None or x.dim() != 4:
        raise Mistake(
            f"in {columns.where} it is of the kind {columns.type_name(name)}; pictures, or arrays of their pixels, are "
            "needed",
            key="image_column",
            value=name,
        )
    return x


def _iterate_pictures(columns: DatasetColumns, name: str) -> Iterator[tuple[str, Any]]:
    """Yield (its name in messages, picture) for each row of a column; refuse a missing picture."""
    cells = columns.cells(name)
    for row in count(1):
        try:
            picture = next(cells, _END)
        except Exception as error:  # the package decodes pictures as they are read, and damaged ones raise many things
            why = f"cannot be read as a picture ({reason(error)}); replace or remove it"
            raise Mistake(f"{columns.where}: row {row}: {name} {why}") from error
        if picture is _END:
            return
        if picture is None:
            raise Mistake(f"{columns.where}: row {row}: {name} is missing, but a picture is needed in every row")
        yield f"{columns.where}: {name} of row {row}", picture
