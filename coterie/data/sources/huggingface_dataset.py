"""The source huggingface: a data set in a folder of the user's own, or on the Hub of Hugging Face."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from coterie.core.errors import Mistake, reason
from coterie.data import huggingface as adapter
from coterie.data.origins import note_files, note_folder
from coterie.data.regular_file import is_regular
from coterie.data.source import Source

READERS = {".csv": "csv", ".json": "json", ".jsonl": "json", ".parquet": "parquet", ".txt": "text"}
"""By the end of a file's name, what the package calls its format."""


def huggingface(
    path: str | Path | None = None,
    name: str | None = None,
    configuration: str | None = None,
    revision: str | None = None,
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
) -> Source:
    """Load a data set of the package `datasets`: pictures, text or a table.

    `coterie.data.huggingface.source` explains the arguments from `train_split` on, and what the columns become.

    Args:
        path: a folder that `save_to_disk` wrote, or of files that `load_dataset` reads; or one such file (.csv, .json,
            .jsonl, .parquet, or .txt, whose lines are the texts).
        name: instead of a folder, a name on the Hub, such as "ylecun/mnist". The package fetches it into its own cache
            ($HF_HOME).
        configuration: which of the data sets under that name, if there are several.
        revision: a commit or tag on the Hub, so that the data never change.

    Raises:
        Mistake: the package is not installed, or the data cannot be loaded or used.
    """
    if (path is None) == (name is None):
        wrong = "`path` is missing" if path is None else "`path` and `name` are both given"
        raise Mistake(f"{wrong}; the source huggingface needs either a folder (`path`) or a name on the Hub (`name`)")
    for key, value in {"configuration": configuration, "revision": revision}.items():
        if value is not None and name is None:
            raise Mistake("it belongs to a name on the Hub (`name`), not to a folder", key=key, value=value)
    dataset = _load_path(Path(path)) if path is not None else _load_from_hub(str(name), configuration, revision)
    return adapter.source(
        dataset,
        train_split=train_split,
        test_split=test_split,
        image_column=image_column,
        text_column=text_column,
        feature_columns=feature_columns,
        label_column=label_column,
        client_column=client_column,
        test_fraction=test_fraction,
        labels=labels,
        tokenizer=tokenizer,
        max_length=max_length,
        packed=packed,
        where=str(name or path),
    )


def _load_path(path: Path) -> Any:
    """Load a data set that `datasets` saved in a folder, or a file or a folder of files that it reads.

    Raises:
        Mistake: there is nothing such, or it cannot be loaded.
    """
    kind = READERS.get(path.suffix.lower())
    if not path.is_dir() and not (kind and is_regular(path)):
        sentence = f"there is no such folder, and no such file of the kinds {', '.join(READERS)}"
        raise Mistake(sentence, key="path", value=path)
    datasets = adapter.import_datasets("path", path)
    if not path.is_dir():
        note_files([path])
        return _call_loader("path", path, datasets.load_dataset, kind, data_files=str(path))
    note_folder(path)
    saved = any((path / file).is_file() for file in ("dataset_dict.json", "state.json"))
    return _call_loader("path", path, datasets.load_from_disk if saved else datasets.load_dataset, str(path))


def _load_from_hub(name: str, configuration: str | None, revision: str | None) -> Any:
    datasets = adapter.import_datasets("name", name)
    return _call_loader("name", name, datasets.load_dataset, name, configuration, revision=revision)


def _call_loader(key: str, value: object, load: Any, *arguments: Any, **options: Any) -> Any:
    """Return what `load` returns; what it raises becomes a mistake about an argument."""
    try:
        return load(*arguments, **options)
    except Exception as error:  # the package's readers raise many things, and so does the network
        raise Mistake(f"it cannot be loaded ({reason(error)})", key=key, value=value) from error
