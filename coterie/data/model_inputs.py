"""The inputs of a model and the meaning of its outputs, which a run records so that its model can be used later.

Legend: C classes, F features.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch

from coterie.data.feature_encoding import ColumnEncoding
from coterie.data.source import Source
from coterie.data.standardize import Scale, Scaling
from coterie.data.text_columns import TextColumn, text_column_from_record
from coterie.objectives import kinds
from coterie.objectives.kinds import Kind


@dataclass(frozen=True)
class Inputs:
    """The inputs of a model, how examples become inputs, and the names of its classes.

    Attributes:
        shape: of one example.
        tokens: whether examples are whole numbers, int64; otherwise they are float32.
        classes: the name of each class [C], or its number if it has no name; None if labels are not classes.
        outputs: the number of classes that the model was made with; None if it was made without.
        predicts: whether the model's outputs are scores of these classes.
        columns: how the columns of a table became features; empty if the data are not a table.
        scaling: how measured columns, or channels, are standardised.
        task: the kind of task, where it is not classification.
        text: how texts become inputs, where a tokenizer makes them.
        side: of the squares, in pixels, to which pictures of any size are cut and scaled, if they are.
    """

    shape: Sequence[int]
    tokens: bool
    classes: Sequence[str] | None
    outputs: int | None
    predicts: bool
    columns: Sequence[ColumnEncoding]
    scaling: Scaling
    task: str | None = None
    text: TextColumn | None = None
    side: int | None = None

    def to_record(self) -> dict[str, Any]:
        """Return the inputs as plain values, which `inputs_from_record` reads."""
        scale = self.scaling.scale
        numbers = {} if scale is None else {"mean": scale.mean.tolist(), "deviation": scale.deviation.tolist()}
        return {
            "shape": list(self.shape),
            "tokens": self.tokens,
            "classes": None if self.classes is None else list(self.classes),
            "outputs": self.outputs,
            "predicts": self.predicts,
            "columns": [asdict(column) for column in self.columns],
            "standardize": {"columns": list(self.scaling.columns), **numbers},
            **({} if self.task is None else {"task": self.task}),
            **({} if self.text is None else {"text": self.text.to_record()}),
            **({} if self.side is None else {"side": self.side}),
        }


def describe_inputs(source: Source, scaling: Scaling, predicts: bool, task: Kind | None = None) -> Inputs:
    """Describe the inputs of a model that learns from a source: their shape, type, classes and scaling.

    Args:
        source: the data set.
        scaling: how it was standardised.
        predicts: whether the algorithm's models predict labels.
        task: the kind of task; None where labels are not read.
    """
    x, number = source.train.x, source.num_classes
    numbered = number is not None and (source.text is None or not source.text.next_token)  # tokens have their own names
    names = source.label_names or ([str(k) for k in range(number or 0)] if numbered else None)
    names = ["0", "1"] if task is not None and task.name == "binary" and names is None else names
    tokens = not x.is_floating_point()
    kind = None if task is None or task.name == "classification" else task.name
    predicts = predicts and (names is not None or kind is not None)
    outputs = count_outputs(source, task)
    return Inputs(
        x.shape[1:], tokens, names, outputs, predicts, source.columns, scaling, kind, source.text, source.side
    )


def count_outputs(source: Source, task: Kind | None = None) -> int | None:
    """Return the number of outputs that models are made with: 1 without labels, None if nobody knows.

    It is the number of classes, or what the kind of task needs.

    Without labels, models have a classifier that is never trained.
    """
    y = source.train.y
    if task is not None and y is not None:
        return kinds.count_outputs(task, y, source.num_classes)
    return 1 if source.num_classes is None and y is None else source.num_classes


def inputs_from_record(record: Mapping[str, Any], tokenizer: str | None = None) -> Inputs:
    """Return the inputs that `Inputs.to_record` recorded.

    Args:
        record: as it was recorded.
        tokenizer: the content of the tokenizer, which the record leaves out. Without it nothing is said about texts.

    Raises:
        KeyError, TypeError, AttributeError: the record is damaged.
    """
    columns = [
        ColumnEncoding(c["name"], None if c["categories"] is None else tuple(c["categories"]), c["missing"])
        for c in record["columns"]
    ]
    how = record["standardize"]
    mean, deviation = (
        torch.tensor(how[name], dtype=torch.float64) if name in how else None for name in ("mean", "deviation")
    )
    text = record.get("text") if tokenizer is not None else None
    scale = None if mean is None or deviation is None else Scale(mean, deviation)
    return Inputs(
        record["shape"],
        record["tokens"],
        record["classes"],
        record["outputs"],
        record["predicts"],
        columns,
        Scaling(how["columns"], scale),
        record.get("task"),
        None if text is None or tokenizer is None else text_column_from_record(text, tokenizer),
        record.get("side"),
    )
