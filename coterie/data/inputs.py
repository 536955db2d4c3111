"""What a model takes, and what its outputs mean: kept with a run, so that what it trained can be used.

Legend: C classes, F features.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch

from coterie.data.source import Source
from coterie.data.standardize import Scale, Scaling
from coterie.data.table import Column


@dataclass(frozen=True)
class Inputs:
    """How examples become a model's inputs, and the names of its classes.

    Attributes:
        shape: of one example.
        tokens: whether examples are whole numbers, int64; else they are float32.
        classes: the name of each class [C], its number where it has none; None where labels are no classes.
        outputs: the number of classes that the model was made with, None where it was made without.
        predicts: whether the model's outputs are scores of these classes.
        columns: how the columns of a table became features; empty where the data are no table.
        scaling: how measured columns, or channels, are standardised.
    """

    shape: Sequence[int]
    tokens: bool
    classes: Sequence[str] | None
    outputs: int | None
    predicts: bool
    columns: Sequence[Column]
    scaling: Scaling

    def record(self) -> dict[str, Any]:
        """As plain values, which `recorded` reads."""
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
        }


def inputs_of(source: Source, scaling: Scaling, predicts: bool) -> Inputs:
    """What a model takes that learned from a source, by an algorithm whose models predict labels or do not."""
    x, number = source.train.x, source.num_classes
    names = source.label_names or (None if number is None else [str(k) for k in range(number)])
    tokens = not x.is_floating_point()
    predicts = predicts and names is not None
    return Inputs(x.shape[1:], tokens, names, outputs_of(source), predicts, source.columns, scaling)


def outputs_of(source: Source) -> int | None:
    """The number of classes that models are made with. Without labels a classifier is never trained, but models have
    one: the smallest does.
    """
    return 1 if source.num_classes is None and source.train.y is None else source.num_classes


def recorded(record: Mapping[str, Any]) -> Inputs:
    """The inverse of `Inputs.record`.

    Raises:
        KeyError, TypeError: it is no such record.
    """
    columns = [
        Column(c["name"], None if c["categories"] is None else tuple(c["categories"]), c["missing"])
        for c in record["columns"]
    ]
    how = record["standardize"]
    mean, deviation = (
        torch.tensor(how[name], dtype=torch.float64) if name in how else None for name in ("mean", "deviation")
    )
    scale = None if mean is None or deviation is None else Scale(mean, deviation)
    return Inputs(
        record["shape"],
        record["tokens"],
        record["classes"],
        record["outputs"],
        record["predicts"],
        columns,
        Scaling(how["columns"], scale),
    )
