"""What a silo tells the coordinator before the first round: counts, shapes and names, never a row.

A silo's facts are one JSON object. The categories of a coded column and the classes that occur at a silo are named in
it, since all silos must number them alike.

Legend: C classes.
"""

from __future__ import annotations

import functools
import json
from dataclasses import asdict, dataclass
from typing import Annotated, Any, Literal, TypeVar, cast

from annotated_types import Ge, MaxLen
from pydantic import TypeAdapter, ValidationError

from coterie.core.errors import Mistake, few
from coterie.core.printable import printable

MAX_EXAMPLES = 2**40
"""More examples than a client can hold."""

_SHOWN = 50
"""How many classes or categories a sentence names."""

Text = Annotated[str, MaxLen(300)]
Number = Annotated[int, Ge(0)]

T = TypeVar("T")


@dataclass(frozen=True)
class ClientFacts:
    """What is known of one client.

    Attributes:
        client: its id.
        train, test: how many rows it has to train on, and to test on.
        labels: how many of its training rows have each label, by the label's name, or its number where labels have no
            names; None where a row has no single class.
        place: its place in the order of all clients, where that is not the order of their ids.
    """

    client: Text
    train: Number
    test: Number
    labels: dict[Text, Number] | None
    place: Number | None = None


@dataclass(frozen=True)
class ColumnFacts:
    """What is known of one column of a table.

    Attributes:
        name: the column's.
        kind: measured (numbers), coded (categories), or empty (no value in any row, so it may be either).
        categories: of a coded column: those in training rows, or those that the file declares.
        declared: whether the file declares the categories.
        missing: whether a training row has no value there.
    """

    name: Text
    kind: Literal["measured", "coded", "empty"]
    categories: tuple[Text, ...]
    declared: bool
    missing: bool


@dataclass(frozen=True)
class LabelFacts:
    """What is known of the labels.

    Attributes:
        kind: none; numbers or texts of a table's column; declared by a file, with their order; numbered from 0 without
            names; named by a source; other (not classes).
        names: of the classes that occur, except where classes have none.
        classes: how many there are, C; None where labels are not classes.
        shape: of one row's labels.
        dtype: of the labels.
    """

    kind: Literal["none", "numbers", "texts", "declared", "numbered", "named", "other"]
    names: tuple[Text, ...]
    classes: Number | None
    shape: tuple[Number, ...]
    dtype: Text


@dataclass(frozen=True)
class Facts:
    """What a silo tells the coordinator.

    Attributes:
        silo: its name.
        digest: of its rows.
        clients: those that it hosts.
        shape, dtype: of one example; of a table whose columns are yet to become features, None and float32.
        labels, columns: see there; there are no columns where the data are not a table.
        encoded: whether the columns have become features already, so that all silos' must be alike.
        common_test: how many test rows it has that belong to all clients together, as a rehearsal deals them.
        model: the name of its own model, or None.
    """

    silo: Text
    digest: Text
    clients: tuple[ClientFacts, ...]
    shape: tuple[Number, ...] | None
    dtype: Text
    labels: LabelFacts
    columns: tuple[ColumnFacts, ...]
    encoded: bool
    common_test: Number
    model: Text | None = None

    def to_record(self) -> dict[str, Any]:
        """Return the facts as plain values, which `read_facts` reads."""
        return asdict(self)

    def sentences(self) -> list[str]:
        """Return what leaves with these facts, and with the sums that may follow, for a person who decides."""
        found = []
        for each in self.clients:
            counts = [f"{name} {count:,}" for name, count in (each.labels or {}).items()]
            classes = f"; rows to train on of each class: {few(counts, _SHOWN)}" if counts else ""
            found.append(f"client {each.client}: {each.train:,} rows to train on, {each.test:,} to test on{classes}")
        if self.labels.names:
            found.append(f"the classes {few(self.labels.names, _SHOWN)}")
        for column in self.columns:
            coded = f"its categories: {few(column.categories, _SHOWN)}"
            values = {"coded": coded, "measured": "numbers", "empty": "no values"}[column.kind]
            found.append(f"column {column.name}: {values}{', with missing values' * column.missing}")
        if self.shape is not None:
            found.append(f"the shape {list(self.shape)} and type {self.dtype} of its examples")
        return [
            *found,
            f"the sha256 of its rows, {self.digest[:12]}, by which somebody with the same rows knows them again",
            "where the file asks for federated standardisation, sums over each column of numbers",
        ]


def read_facts(record: Any, silo: str) -> Facts:
    """Return the facts that a silo has sent.

    Args:
        record: what arrived, as plain values.
        silo: whose it is, as the carrier knows it.

    Raises:
        Mistake: they are not what an honest silo sends. The sentence names whose they are.
    """
    facts = read_record(record, Facts, f"{silo}: its facts")
    problem = _problem(facts, silo)
    if problem is not None:
        raise Mistake(f"{silo}: its facts cannot be used: {printable(problem)}")
    return facts


def read_record(record: Any, kind: type[T], what: str) -> T:
    """Return plain values of another party's as a dataclass, and refuse any other structure or type.

    Raises:
        Mistake: they are something else; the sentence begins with `what`.
    """
    try:  # through JSON, where a list is a tuple and nothing else changes its type
        text = json.dumps(record, allow_nan=False)
        read: T = _adapter(cast(Any, kind)).validate_json(text, strict=True)
        return read
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False)[0]
        place = ".".join(map(str, first["loc"]))
        raise Mistake(f"{what} cannot be used: {printable(place)[:300]}: {first['msg']}") from error
    except (TypeError, ValueError, RecursionError) as error:
        raise Mistake(f"{what} cannot be used: they are not plain values") from error


@functools.cache
def _adapter(kind: Any) -> TypeAdapter[Any]:
    return TypeAdapter(kind)


def _problem(facts: Facts, silo: str) -> str | None:
    """Return what is wrong with facts of the right structure, in a few words; None if they may be honest."""
    if facts.silo != silo:
        return f"they are those of {facts.silo}"
    if not facts.clients:
        return "it hosts no client"
    ids = [each.client for each in facts.clients]
    names = [column.name for column in facts.columns]
    if len(set(ids)) < len(ids) or len(set(names)) < len(names) or not all(ids):
        return "a client or a column is named twice, or not at all"
    if (facts.shape is None) != (bool(facts.columns) and not facts.encoded):
        return "they give either a shape or columns that are yet to become features"
    counts = [n for each in facts.clients for n in (each.train, each.test, *(each.labels or {}).values())]
    if (
        max([*counts, *(facts.shape or ()), *facts.labels.shape, facts.labels.classes or 0, facts.common_test])
        > MAX_EXAMPLES
    ):
        return "they hold a number beyond any honest one"
    labels = facts.labels
    if labels.kind in ("declared", "named") and labels.classes != len(labels.names):
        return f"they name {len(labels.names)} of {labels.classes} classes"
    if len(set(labels.names)) < len(labels.names):
        return "a class is named twice"
    for each in facts.clients:
        problem = _client_problem(each, labels)
        if problem is not None:
            return f"client {each.client}: {problem}"
    return None


def _client_problem(client: ClientFacts, labels: LabelFacts) -> str | None:
    if not client.train:
        return "it has no rows to train on"
    if client.labels is None:
        return None
    unknown = [name for name in client.labels if not _is_class(name, labels)]
    if unknown:
        return f"the label {unknown[0]} is not one of its classes"
    if sum(client.labels.values()) > client.train:
        return f"{sum(client.labels.values())} labels of {client.train} rows"
    return None


def _is_class(name: str, labels: LabelFacts) -> bool:
    """Return whether a label that is counted is one of the classes."""
    if labels.kind == "numbered":
        return name.isascii() and name.isdecimal() and str(int(name)) == name and int(name) < (labels.classes or 0)
    return name in labels.names
