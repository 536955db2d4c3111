"""What all silos agree on: shapes, classes, columns and categories; from the facts of each.

The rules are those by which a simulation reads the rows of all silos from one file, so that both number classes and
features alike. A silo that does not fit the others is named in one sentence.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from coterie.core.errors import Mistake, few
from coterie.core.toml_text import toml_text
from coterie.data.feature_encoding import ColumnEncoding, list_feature_names
from coterie.data.raw_table import require_few_categories
from coterie.experiment.silos.facts import ColumnFacts, Facts, Number, Text, read_record


@dataclass(frozen=True)
class Agreement:
    """What every silo must know of the others' data: no counts, so no silo learns another's.

    Attributes:
        shape, dtype: of one example.
        label_kind: see `LabelFacts`. label_shape, label_dtype: of one row's labels.
        num_classes, label_names: of all silos' labels together.
        columns: how the columns of a table become features; empty where the data are not a table.
        has_own_tests: whether every client has test rows of its own.
    """

    shape: tuple[Number, ...]
    dtype: Text
    label_kind: Text
    label_shape: tuple[Number, ...]
    label_dtype: Text
    num_classes: Number | None
    label_names: tuple[Text, ...] | None
    columns: tuple[ColumnEncoding, ...]
    has_own_tests: bool

    def to_record(self) -> dict[str, Any]:
        """Return the agreement as plain values, which `read_agreement` reads."""
        return asdict(self)


@dataclass(frozen=True)
class ClientCount:
    """A client as the coordinator knows it.

    Attributes:
        client: its id. silo: where it is.
        train, test: how many rows it has.
        labels: how many of its training rows have each class [C]; None where a row has no single class.
        model: the name of its silo's own model, or None.
    """

    client: str
    silo: str
    train: int
    test: int
    labels: tuple[int, ...] | None
    model: str | None


@dataclass(frozen=True)
class Merged:
    """What the coordinator knows of all data: the agreement, and the clients in their order.

    Attributes:
        agreement: what every silo is told.
        clients: those of all silos.
        test: how many test rows all silos have.
        digests: silo -> the digest of its rows.
    """

    agreement: Agreement
    clients: tuple[ClientCount, ...]
    test: int
    digests: Mapping[str, str]


def read_agreement(record: Any) -> Agreement:
    """Return the agreement that the coordinator has sent.

    Raises:
        Mistake: it is not one.
    """
    return read_record(record, Agreement, "the coordinator's agreement")


def merge_facts(facts: Mapping[str, Facts]) -> Merged:
    """Return what all silos agree on.

    Args:
        facts: silo -> its facts, judged by `read_facts`.

    Raises:
        Mistake: there are no silos, two host one client, or a silo does not fit the others.
    """
    if not facts:
        raise Mistake("there are no silos; start `coterie deploy serve` at one of them at least")
    _require_alike(facts, "examples' type", lambda f: f.dtype)
    _require_alike(facts, "form of labels", lambda f: [list(f.labels.shape), f.labels.dtype])
    _require_alike(facts, "kind of labels", lambda f: _KIND_WORDS[f.labels.kind])
    names, classes = _merge_labels(facts)
    columns = _merge_columns(facts)
    if columns:
        shape: Sequence[int] = [len(list_feature_names(columns))]
    else:
        _require_alike(facts, "shape of an example", lambda f: list(f.shape or ()))
        shape = next(iter(facts.values())).shape or ()
    first = next(iter(facts.values())).labels
    has_own = all(c.test for f in facts.values() for c in f.clients)
    agreement = Agreement(
        shape=tuple(shape),
        dtype=next(iter(facts.values())).dtype,
        label_kind=first.kind,
        label_shape=first.shape,
        label_dtype=first.dtype,
        num_classes=classes,
        label_names=None if names is None else tuple(names),
        columns=tuple(columns),
        has_own_tests=has_own,
    )
    digests = {silo: f.digest for silo, f in facts.items()}
    test = sum(f.common_test + sum(c.test for c in f.clients) for f in facts.values())
    return Merged(agreement, _order_clients(facts, names, classes), test, digests)


_KIND_WORDS = {
    "none": "none",
    "numbers": "whole numbers",
    "texts": "texts",
    "declared": "classes that a file declares",
    "numbered": "class numbers from 0",
    "named": "classes that the source names",
    "other": "numbers that are not classes",
}


def _require_alike(facts: Mapping[str, Facts], what: str, look: Any) -> None:
    """Refuse silos that differ in `what`. Of most, the one that differs from them is named."""
    found = {silo: look(f) for silo, f in facts.items()}
    values = list(found.values())
    usual = max(values, key=values.count)
    for silo, value in found.items():
        if value != usual:
            other = next(s for s, v in found.items() if v == usual)
            raise Mistake(
                f"{silo}: its {what} is {toml_text(value)}, that of {other} {toml_text(usual)}; the data of all must "
                "be of one kind"
            )


def _merge_labels(facts: Mapping[str, Facts]) -> tuple[list[str] | None, int | None]:
    """Return the names of all silos' classes, None where they have none, and how many there are."""
    labels = [f.labels for f in facts.values()]
    kind = labels[0].kind
    if kind == "numbered":
        return None, max(each.classes or 0 for each in labels)
    if kind in ("none", "other"):
        return None, None
    lists = [list(each.names) for each in labels]
    if all(names == lists[0] for names in lists):
        return lists[0], len(lists[0])
    every = {name for names in lists for name in names}
    if kind == "numbers":
        in_order = sorted(every, key=int)
    elif all(names == sorted(names) for names in lists):
        in_order = sorted(every)
    else:
        _require_alike(facts, "order of classes", lambda f: list(f.labels.names))
        raise AssertionError("they differ")
    return in_order, len(in_order)


def _merge_columns(facts: Mapping[str, Facts]) -> list[ColumnEncoding]:
    """Return how each column becomes features at every silo; nothing where the data are not a table."""
    _require_alike(facts, "list of columns", lambda f: [column.name for column in f.columns])
    _require_alike(facts, "table", lambda f: "read as features" if f.encoded else "read as columns")
    first = next(iter(facts.values()))
    if first.encoded:
        for place, column in enumerate(first.columns):
            _require_alike(
                facts,
                f"column {column.name}",
                lambda f, k=place: [*f.columns[k].categories, f.columns[k].kind, f.columns[k].missing],
            )
    by_silo = {silo: {column.name: column for column in f.columns} for silo, f in facts.items()}
    rows = sum(c.train + c.test for f in facts.values() for c in f.clients)
    train = sum(c.train for f in facts.values() for c in f.clients)
    return [
        _merge_column({silo: by_silo[silo][column.name] for silo in facts}, rows, train) for column in first.columns
    ]


def _merge_column(found: Mapping[str, ColumnFacts], rows: int, train: int) -> ColumnEncoding:
    """Return how one column becomes features, from what each silo found in it."""
    first = next(iter(found.values()))
    missing = any(column.missing for column in found.values())
    measured = [silo for silo, column in found.items() if column.kind == "measured"]
    coded = [silo for silo, column in found.items() if column.kind == "coded"]
    if measured and coded:
        raise Mistake(
            f"{measured[0]}: its column {first.name} holds numbers, that of {coded[0]} texts; write it in one way "
            f"everywhere, or say coded_columns = [{toml_text(first.name)}] in silo.toml where there are numbers"
        )
    if not coded:
        return ColumnEncoding(first.name, None, missing)
    lists = [found[silo].categories for silo in coded]
    if any(found[silo].declared for silo in coded):
        if any(names != lists[0] for names in lists):
            odd = next(silo for silo in coded if found[silo].categories != lists[0])
            raise Mistake(
                f"{odd}: its column {first.name} declares {few(list(found[odd].categories))}, that of "
                f"{coded[0]} {few(list(lists[0]))}; declare the same categories in the same order"
            )
        return ColumnEncoding(first.name, tuple(lists[0]), missing)
    categories = sorted({name for names in lists for name in names})
    require_few_categories(f"the data of all {len(found)}", first.name, categories, rows, train)
    return ColumnEncoding(first.name, tuple(categories), missing)


def _order_clients(
    facts: Mapping[str, Facts], names: Sequence[str] | None, classes: int | None
) -> tuple[ClientCount, ...]:
    """Return the clients of all silos: by the places that their silos give, or else in the order of their ids."""
    hosts: dict[str, str] = {}
    found = []
    for silo, f in facts.items():
        for c in f.clients:
            if hosts.setdefault(c.client, silo) != silo:
                raise Mistake(
                    f"silos {hosts[c.client]} and {silo} both host a client called {c.client}; name one of them "
                    "differently, by `client` in its silo file"
                )
            found.append((c, silo, f.model))
    places = [c.place for c, _, _ in found if c.place is not None]
    if len(places) == len(found):
        if sorted(places) != list(range(len(places))):
            raise Mistake(
                f"the places of the silos' {len(places)} clients are not 0 to {len(places) - 1}; a silo is missing, or "
                "belongs to another rehearsal"
            )
        found.sort(key=lambda each: each[0].place or 0)
    elif places:
        raise Mistake("some silos give their clients places and others do not; they belong to different rehearsals")
    else:
        found.sort(key=lambda each: each[0].client)
    order = list(names) if names is not None else [str(k) for k in range(classes or 0)]
    return tuple(
        ClientCount(c.client, silo, c.train, c.test, _counts(c.labels, order), model) for c, silo, model in found
    )


def _counts(labels: Mapping[str, int] | None, order: Sequence[str]) -> tuple[int, ...] | None:
    return None if labels is None else tuple(labels.get(name, 0) for name in order)
