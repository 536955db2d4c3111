"""The kind of task that a run's labels and its [task] table describe."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

from coterie.core.errors import Mistake, mistakes_in
from coterie.core.registry import import_own
from coterie.data.source import Source
from coterie.experiment.settings import Settings
from coterie.objectives import kinds
from coterie.objectives.kinds import Kind

_KEYS = ("kind", "loss", "class_weights", "label_smoothing", "ignore_index")


def choose_task(settings: Settings, source: Source) -> tuple[Settings, Kind | None]:
    """Return the settings with the kind of task, and the kind; None where there are no labels.

    Functions of the user's own are imported, so that later looks find them.

    Args:
        settings: what to run.
        source: whose labels say the kind where the file does not.

    Raises:
        Mistake: the labels leave a doubt, are not those of the kind, or a function cannot be imported.
    """
    _import_own_functions(settings)
    y = source.train.y
    if y is None:
        return settings, None
    with mistakes_in("task"):
        kind = kinds.find_kind(settings.task.kind) if settings.task.kind else _kind_of_source(source)
        if settings.task.kind:
            _about_kind(kind, source, settings.task.ignore_index)
    return replace(settings, task=replace(settings.task, kind=kind.name)), kind


def _import_own_functions(settings: Settings) -> None:
    for table, key, names in (
        ("task", "loss", [settings.task.loss or ""]),
        ("evaluate", "metrics", settings.evaluate.metrics or []),
    ):
        with mistakes_in(table):
            for name in names:
                if ":" in name:
                    import_own(key, name, settings.folders)


def _kind_of_source(source: Source) -> Kind:
    """Return the kind that the labels of a source leave no doubt about."""
    y = source.train.labels()
    assert y is not None
    try:
        return kinds.kind_of_labels(source.train.x, y)
    except Mistake as mistake:
        raise Mistake(mistake.sentence, key="kind") from mistake


def _about_kind(kind: Kind, source: Source, ignore_index: int | None) -> None:
    """Refuse the labels of a source that the chosen kind cannot have."""
    y = source.train.labels()
    assert y is not None
    try:
        kinds.check_labels(kind, y, ignore_index)
        if kind.labels == kinds.NUMBERS and source.label_names is not None:
            raise Mistake(f"the labels of the source {source.name} are names of classes, not numbers to predict")
    except Mistake as mistake:
        raise Mistake(mistake.sentence, key="kind", value=kind.name) from mistake


@contextmanager
def mistakes_about_task() -> Iterator[None]:
    """Name the tables of the keys that `coterie.plan` takes for the task and for what is measured."""
    try:
        yield
    except Mistake as mistake:
        key = (mistake.key or "").partition(".")[0]
        if mistake.table or (key not in _KEYS and key != "metrics"):
            raise
        raise mistake.in_table("task" if key in _KEYS else "evaluate") from mistake.__cause__
