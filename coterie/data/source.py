"""The data set that a source returns: examples to train on, examples to test on, and facts about them.

Legend: N training examples, M test examples, C classes, F features.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from coterie.core.errors import Mistake
from coterie.core.examples import Clients, Examples
from coterie.data.feature_encoding import ColumnEncoding, list_feature_names, list_measured_features
from coterie.data.text_columns import TextColumn


@dataclass(frozen=True)
class Source:
    """A data set before it is dealt to clients.

    Images are float32 [C, H, W] in [0, 1], features float32 [F], tokens int64 [T]. Labels are int64, usually [N]; in a
    sequence of labels, -100 counts for nothing.

    Attributes:
        name: the source's name.
        train: N examples. If `clients` is given, these are the first client's, and only their shapes matter.
        test: M examples, or None if there are none.
        num_classes: C, or None if the labels are not classes.
        groups: the client id of each training example [N], if the data have clients of their own.
        test_groups: the client id of each test example [M].
        label_names: a name for each class [C].
        columns: how the columns of a table became its features; empty if the data are not a table.
        clients: the clients themselves, if a source makes their examples on demand.
        own_tests: each client's own test examples, if a source makes them on demand.
        text: how texts became tokens, if a tokenizer made them.
        notes: what the user should know about how the data were read, a sentence each.
        side: of the squares, in pixels, to which pictures of any size were cut and scaled, if they were.

    Raises:
        Mistake: the number of client ids is not the number of examples.
    """

    name: str
    train: Examples
    test: Examples | None
    num_classes: int | None
    groups: Sequence[str] | None = None
    test_groups: Sequence[str] | None = None
    label_names: Sequence[str] | None = None
    columns: Sequence[ColumnEncoding] = ()
    clients: Clients | None = None
    own_tests: Clients | None = None
    text: TextColumn | None = None
    notes: Sequence[str] = ()
    side: int | None = None

    def __post_init__(self) -> None:
        _require_one_each(self.name, "groups", self.groups, self.train)
        _require_one_each(self.name, "test_groups", self.test_groups, self.test)

    @property
    def feature_names(self) -> list[str] | None:
        """A name for each feature of a table [F]."""
        return list_feature_names(self.columns) if self.columns else None

    @property
    def numeric(self) -> list[int]:
        """The positions of the measured features, which are standardised and hold NaN where a value is missing."""
        return list_measured_features(self.columns)

    @property
    def natural(self) -> bool:
        """Whether the data have clients of their own."""
        return self.groups is not None or self.clients is not None


def _require_one_each(name: str, what: str, groups: Sequence[str] | None, examples: Examples | None) -> None:
    """Refuse `groups`, called `what` in the message, unless there is one for each example."""
    number = 0 if examples is None else len(examples)
    if groups is not None and len(groups) != number:
        raise Mistake(f"the source {name} gives {len(groups)} {what} for {number} examples; give one for each example")
