"""What a source gives: examples to train on, examples to test on, and what is known about them.

Legend: N training examples, M test examples, C classes, F features.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from coterie.core.errors import Mistake
from coterie.core.examples import Clients, Examples
from coterie.data.table import Column, feature_names, numeric


@dataclass(frozen=True)
class Source:
    """A data set before it is dealt to clients.

    Images are float32 [C, H, W] in [0, 1], features float32 [F], tokens int64 [T]. Labels are int64, usually [N]; a
    label of -100 inside a sequence of labels counts for nothing.

    Attributes:
        name: what the user called it.
        train: N examples. Where `clients` is given, it is the first client's, and only its shapes mean anything.
        test: M examples, or None where there are none to be had.
        num_classes: C, or None where the labels are no classes.
        groups: the client id of each training example [N], where the data have clients of their own.
        test_groups: the client id of each test example [M].
        label_names: a name for each class [C].
        columns: how the columns of a table became its features; empty where the data are no table.
        clients: the clients themselves, where a source makes their examples on demand.
        own_tests: each client's own test examples, where a source makes those on demand.

    Raises:
        Mistake: there is not one client id for each example.
    """

    name: str
    train: Examples
    test: Examples | None
    num_classes: int | None
    groups: Sequence[str] | None = None
    test_groups: Sequence[str] | None = None
    label_names: Sequence[str] | None = None
    columns: Sequence[Column] = ()
    clients: Clients | None = None
    own_tests: Clients | None = None

    def __post_init__(self) -> None:
        _one_each(self.name, "groups", self.groups, self.train)
        _one_each(self.name, "test_groups", self.test_groups, self.test)

    @property
    def feature_names(self) -> list[str] | None:
        """A name for each feature of a table [F]."""
        return feature_names(self.columns) if self.columns else None

    @property
    def numeric(self) -> list[int]:
        """The measured features, not the coded ones: they are standardised, and hold NaN where a value is missing."""
        return numeric(self.columns)

    @property
    def natural(self) -> bool:
        """Whether the data have clients of their own."""
        return self.groups is not None or self.clients is not None


def _one_each(name: str, what: str, groups: Sequence[str] | None, examples: Examples | None) -> None:
    held = 0 if examples is None else len(examples)
    if groups is not None and len(groups) != held:
        raise Mistake(f"the source {name} gives {len(groups)} {what} for {held} examples; give one for each example")
