"""Data sets of the package `datasets` (Hugging Face) as sources.

A source is made from named columns: of pictures, of text, or of a table. The package is imported here and nowhere else,
when it is used. Legend: N rows, T tokens.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from math import ceil
from typing import Any

from torch import Tensor

from coterie.core.errors import UNSET, Mistake
from coterie.core.packages import import_package
from coterie.data import text
from coterie.data.arrays import images, inputs
from coterie.data.frame import from_frame
from coterie.data.pictures import pixels
from coterie.data.rows import MARK, Rows
from coterie.data.source import Source
from coterie.data.split import checked_fraction

Spoken = dict[str, list[str]]
"""The lines of each client."""


def import_datasets(wanted_by: str, value: Any = UNSET) -> Any:
    """Import and return the package `datasets`; the arguments are those of `coterie.core.packages.package`.

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
    where: str = "the data set",
) -> Source:
    """A `datasets.Dataset`, or a `DatasetDict` of splits, as a source.

    What is learned from is one of three. Where none is named it is the one column of pictures, or the one column of
    text if it alone has no other use, or else a table of all columns that have none.

    - `image_column`: pictures of one size, float32 [C, H, W] in [0, 1], C = 1 if all are grey, else 3.
    - `text_column`: int64 [T], as `coterie.data.text` says. With labels an example is one text; without, it is 80
      characters whose successors are predicted, of the rows in their order, client by client.
    - `feature_columns`: a table, as a Parquet file is one, with columns of classes coded. A single column of lists or
      arrays is taken as it is, like the x of an npz file.

    Args:
        dataset: the data.
        train_split: the split of a `DatasetDict` to learn from.
        test_split: the one to test on, by default "test" where there is one. Else a fixed test split is taken,
            stratified by class and client; of characters to predict, each client's last lines.
        image_column, text_column, feature_columns: what to learn from.
        label_column: what to predict, a class; by default "label", or nothing for text without such a column. Declared
            classes keep their numbers and names, and count even if no row holds them.
        client_column: each row's client id.
        test_fraction: what part becomes the test set where there is no test split.
        labels: whether the rows have any; see the source csv.
        where: what messages call the data.

    Raises:
        Mistake: a split or a column is missing, or a value cannot be used.
    """
    rows = _rows(dataset, train_split, test_split, where)
    labelled = label_column or ("label" if "label" in rows.names else None) if labels else None
    given = {"image_column": image_column, "text_column": text_column, "feature_columns": feature_columns}
    named: dict[str, Any] = {key: value for key, value in given.items() if value is not None}
    if len(named) > 1:
        both = " and ".join(f"`{key}`" for key in named)
        raise Mistake(f"{both} are given together; name one of them to learn from")
    named = named or _plainly(rows, {label_column or "label", client_column})
    if "text_column" in named and labelled is None:
        return _characters(rows, named["text_column"], client_column, test_fraction)
    x, mark = _x(rows, named), MARK if len(rows.parts) > 1 else None
    features = None if x is not None else named.get("feature_columns")
    label_column = labelled or label_column or "label"
    return from_frame(
        "huggingface", rows.frame(), label_column, features, client_column, mark, test_fraction, x, labels
    )


def _rows(dataset: Any, train_split: str, test_split: str | None, where: str) -> Rows:
    """The splits that are used, every column as plain values.

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
        raise Mistake(f"{where}: is a {kind}; give a datasets.Dataset or a datasets.DatasetDict, which are whole")
    elif test_split is not None:
        raise Mistake(f"{where} has no splits; leave it out", key="test_split", value=test_split)
    else:
        found = [dataset]
    if not all(len(part) for part in found):
        raise Mistake(f"{where}: a split of it holds no rows; one example for each row is needed")
    return Rows([part.with_format(None) for part in found], where)


def _plainly(rows: Rows, taken: set[str | None]) -> dict[str, str]:
    """The column to learn from where it goes without saying."""
    kinds = {name: rows.kind(name) for name in rows.names if name not in taken}
    pictures = [name for name, kind in kinds.items() if kind == "Image"]
    if len(pictures) == 1:
        return {"image_column": pictures[0]}
    return {"text_column": next(iter(kinds))} if list(kinds.values()) == ["string"] else {}


def _x(rows: Rows, named: Mapping[str, Any]) -> Tensor | None:
    """What is learned from [N, ...]; None for a table."""
    if "image_column" in named:
        rows.check("image_column", named["image_column"])
        return _pictures(rows, named["image_column"])
    if "text_column" in named:
        rows.check("text_column", named["text_column"])
        return text.whole(f"{rows.where}: {named['text_column']}", list(rows.cells(named["text_column"])))
    columns = named.get("feature_columns", ())
    if len(columns) == 1 and columns[0] in rows.names and rows.holds_lists(columns[0]):
        return inputs(f"{rows.where}: {columns[0]}", rows.array(columns[0]))
    return None


def _pictures(rows: Rows, name: str) -> Tensor:
    """A column of pictures, or of their pixels, [N, C, H, W]."""
    if rows.kind(name) == "Image":
        return images(pixels(_named(rows, name)))
    x = inputs(f"{rows.where}: {name}", rows.array(name)) if rows.holds_lists(name) else None
    if x is None or x.dim() != 4:
        raise Mistake(
            f"in {rows.where} it is of the kind {rows.kind(name)}; pictures, or arrays of their pixels, are needed",
            key="image_column",
            value=name,
        )
    return x


def _named(rows: Rows, name: str) -> Iterator[tuple[str, Any]]:
    """Each picture of a column, and what messages call it."""
    for row, picture in enumerate(rows.cells(name), 1):
        if picture is None:
            raise Mistake(f"{rows.where}: row {row}: {name} is missing, but a picture is needed in every row")
        yield f"{rows.where}: {name} of row {row}", picture


def _characters(rows: Rows, column: str, client_column: str | None, test_fraction: float) -> Source:
    """The source whose examples are windows of each client's lines."""
    rows.check("text_column", column)
    rows.check("client_column", client_column)
    train, *tested = [_spoken(part, column, client_column, f"{rows.where}: {column}") for part in rows.parts]
    if not tested:
        train, last = _without_last(train, checked_fraction(test_fraction))
        tested = [last]
    if not all((train, *tested)):
        raise Mistake(f"{rows.where}: {column} holds too few lines; some are needed to learn from and some to test on")
    (examples, groups), (test, test_groups) = (text.next_characters(part) for part in (train, *tested))
    if client_column is None:
        return Source("huggingface", examples, test, text.VOCABULARY)
    return Source("huggingface", examples, test, text.VOCABULARY, groups=groups, test_groups=test_groups)


def _spoken(part: Any, column: str, client_column: str | None, name: str) -> Spoken:
    """The lines of each client in one split, in order; empty ones are passed over."""
    spoken: Spoken = {}
    whose = part[client_column] if client_column else [""] * len(part)
    for row, (who, cell) in enumerate(zip(whose, part[column], strict=True)):
        lines = [line for line in text.strings(name, cell, row).splitlines() if line.strip()]
        if lines:
            spoken.setdefault(str(who), []).extend(lines)
    return spoken


def _without_last(spoken: Spoken, fraction: float) -> tuple[Spoken, Spoken]:
    """All lines but a part of each client's last, and those; a client's only line stays."""
    held = {who: min(ceil(fraction * len(lines)), len(lines) - 1) for who, lines in spoken.items()}
    before = {who: lines[: len(lines) - held[who]] for who, lines in spoken.items()}
    return before, {who: lines[-held[who] :] for who, lines in spoken.items() if held[who]}
