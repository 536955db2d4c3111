"""The rows of one silo: read once, described by facts, and made into examples once all silos agree.

A table of a csv or parquet file becomes features only after the silos agree on categories; any other source gives its
examples at once. Nothing here leaves the silo except `facts`.

Legend: N rows, n rows of one client, C classes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from coterie.core.errors import Mistake, few
from coterie.core.examples import Examples
from coterie.core.toml_text import toml_text
from coterie.data.feature_encoding import (
    CodedColumn,
    ColumnEncoding,
    MeasuredColumn,
    apply_encodings,
    find_gaps,
)
from coterie.data.partitions.natural import rows_by_client
from coterie.data.raw_table import (
    Labels,
)
from coterie.data.source import Source
from coterie.experiment.silos.facts import ClientFacts, ColumnFacts, Facts, LabelFacts
from coterie.experiment.silos.merge_facts import Agreement
from coterie.experiment.silos.silo_file import SiloFile


class OwnExamples(NamedTuple):
    """A silo's examples, before they are standardised.

    Attributes:
        source: its rows, numbered and encoded as all silos agree.
        clients: those that it hosts, in its own order; they share the source's training examples.
    """

    source: Source
    clients: dict[str, Examples]


@dataclass(frozen=True)
class OwnRows:
    """A silo's rows.

    Attributes:
        source: of a table, one without features, whose examples are row numbers; else as it was loaded.
        columns: of a table: each column of all rows; empty for any other source.
        declared: the columns whose categories the file declares.
        labels: of a table: those of all rows.
        clients: client -> its place in the order of all clients, or None; in the silo's own order.
        digest: of the rows.
    """

    file: SiloFile
    source: Source
    columns: Sequence[MeasuredColumn | CodedColumn]
    declared: frozenset[str]
    labels: Labels | None
    clients: Mapping[str, int | None]
    digest: str

    def facts(self) -> Facts:
        """Return what the coordinator is told of these rows."""
        x = self.source.train.x
        labels = self._label_facts()
        return Facts(
            silo=self.file.name,
            digest=self.digest,
            clients=tuple(self._client_facts(labels)),
            shape=None if self.columns else tuple(x.shape[1:]),
            dtype="float32" if self.columns else str(x.dtype).removeprefix("torch."),
            labels=labels,
            columns=self._column_facts(),
            encoded=bool(self.source.columns),
            common_test=list(self.source.test_groups or ()).count(""),
            model=self.file.model,
        )

    def examples(self, agreement: Agreement) -> OwnExamples:
        """Return the rows as examples, numbered and encoded as all silos agree.

        Raises:
            Mistake: these rows do not fit the agreement.
        """
        features = self._features(agreement) if self.columns else None
        train = self._as_examples(self.source.train, features, agreement)
        test = None if self.source.test is None else self._as_examples(self.source.test, features, agreement)
        names = agreement.label_names
        source = replace(
            self.source,
            train=train,
            test=test,
            test_groups=self.source.test_groups if agreement.has_own_tests else None,
            num_classes=agreement.num_classes,
            label_names=None if names is None else list(names),
            columns=agreement.columns,
        )
        return OwnExamples(source, {c: train.take(torch.from_numpy(rows)) for c, rows in self._rows().items()})

    def _as_examples(self, examples: Examples, features: Tensor | None, agreement: Agreement) -> Examples:
        """Return some of the rows as examples; refuse those of another shape than the silos agreed on."""
        if features is not None:
            examples = Examples(features[examples.tensors()[0]], examples.labels())
        y = examples.y
        forms = [list(examples.x.shape[1:]), [] if y is None else list(y.shape[1:])]
        agreed = [list(agreement.shape), list(agreement.label_shape)]
        if forms != agreed:
            raise Mistake(
                f"its examples and labels have the shapes {forms}, and the silos agreed on {agreed}; the data have "
                "changed, so let the coordinator start again"
            )
        return replace(examples, y=self._renumber(y, agreement))

    def _features(self, agreement: Agreement) -> Tensor:
        """Return the features of all rows, as the silos agreed."""
        own = [column.name for column in self.columns]
        agreed = [column.name for column in agreement.columns]
        if own != agreed:
            raise Mistake(
                f"its columns are {few(own, 10)}, and the silos agreed on {few(agreed, 10)}; the file has changed, "
                "so let the coordinator start again"
            )
        return apply_encodings(self._as_agreed(agreement.columns), agreement.columns)

    def _rows(self) -> dict[str, NDArray[np.int64]]:
        """Return the training rows of each client, in the silo's own order of clients."""
        found = rows_by_client(self.source.groups or ())
        return {client: found[client] for client in self.clients}

    def _client_facts(self, labels: LabelFacts) -> list[ClientFacts]:
        tests = rows_by_client(self.source.test_groups or ())
        y = self.source.train.labels()
        is_class = labels.classes is not None and y is not None and y.dim() == 1
        facts = []
        for client, rows in self._rows().items():
            counts = None
            if is_class and y is not None:
                values, numbers = torch.unique(y[torch.from_numpy(rows)], return_counts=True)
                names = labels.names or [str(k) for k in range(labels.classes or 0)]
                counts = {names[v]: n for v, n in zip(values.tolist(), numbers.tolist(), strict=True) if v >= 0}
            facts.append(ClientFacts(client, len(rows), len(tests.get(client, ())), counts, self.clients[client]))
        return facts

    def _label_facts(self) -> LabelFacts:
        source, y = self.source, self.source.train.y
        if y is None:
            return LabelFacts("none", (), None, (), "none")
        form = tuple(y.shape[1:]), str(y.dtype).removeprefix("torch.")
        if self.labels is not None and self.labels.num_classes is not None:
            return LabelFacts(self.labels.kind, tuple(self.labels.names or ()), self.labels.num_classes, *form)
        if source.num_classes is None:
            return LabelFacts("other", (), None, *form)
        if source.label_names is None:
            return LabelFacts("numbered", (), source.num_classes, *form)
        return LabelFacts("named", tuple(source.label_names), source.num_classes, *form)

    def _column_facts(self) -> tuple[ColumnFacts, ...]:
        if self.source.columns:
            return tuple(
                ColumnFacts(
                    c.name, "measured" if c.categories is None else "coded", tuple(c.categories or ()), True, c.missing
                )
                for c in self.source.columns
            )
        facts = []
        for column in self.columns:
            gaps = find_gaps(column)
            missing = bool(gaps[self.source.train.tensors()[0].numpy()].any())
            if isinstance(column, CodedColumn):
                categories = tuple(column.categories)
                declared = column.name in self.declared
                kind = "coded" if declared or categories or not gaps.all() else "empty"
                facts.append(ColumnFacts(column.name, kind, categories, declared, missing))  # type: ignore[arg-type]
            else:
                facts.append(ColumnFacts(column.name, "empty" if gaps.all() else "measured", (), False, missing))
        return tuple(facts)

    def _as_agreed(self, encodings: Sequence[ColumnEncoding]) -> list[MeasuredColumn | CodedColumn]:
        """Return the columns in the kinds that the silos agreed on; one without values is of either kind."""
        columns: list[MeasuredColumn | CodedColumn] = []
        for column, encoding in zip(self.columns, encodings, strict=True):
            is_coded = encoding.categories is not None
            if is_coded == isinstance(column, CodedColumn):
                columns.append(column)
            elif not find_gaps(column).all():
                raise Mistake(f"its column {column.name} has changed since the silos agreed on it; start again")
            elif is_coded:
                gaps = [None] * len(find_gaps(column))
                columns.append(CodedColumn(column.name, gaps, list(encoding.categories or ())))
            else:
                columns.append(MeasuredColumn(column.name, np.full(len(find_gaps(column)), np.nan)))
        return columns

    def _renumber(self, y: Tensor | None, agreement: Agreement) -> Tensor | None:
        """Return labels in the numbers of the classes of all silos."""
        own = self._label_facts().names
        agreed = list(agreement.label_names or ())
        if y is None or not own or list(own) == agreed:
            return y
        missing = [name for name in own if name not in agreed]
        if missing:
            raise Mistake(
                f"its class {toml_text(missing[0])} is not one of those that the silos agreed on; start again"
            )
        numbers = torch.tensor([agreed.index(name) for name in own])
        return torch.where(y >= 0, numbers[y.clamp(min=0)], y)
