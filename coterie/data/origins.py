"""What a data set was made from: the files that its source read, or digests of its content where it read none.

A run keeps these digests, so that it is never continued on other data.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from coterie.core.digests import digest, file_digest

if TYPE_CHECKING:
    from torch import Tensor

    from coterie.core.examples import Examples
    from coterie.data.source import Source

MAX_LISTED_FILES = 10_000
"""Of more files, each folder has one digest."""


@dataclass(frozen=True)
class Origins:
    """What the sources that were loaded in a block read and gave.

    Attributes:
        files: that they read.
        contents: a source's name -> digests of what it gave, by what it is; only of sources that read no file, and of
            the user's own, which may have read any.
    """

    files: list[Path] = field(default_factory=list)
    contents: dict[str, dict[str, str]] = field(default_factory=dict)

    def record(self) -> dict[str, Any]:
        """Return the digests as plain values. Every file is read whole: that costs less than making tensors of it.

        A file's size and time would be cheaper to look at, but a copied or restored file can have both of another.

        Raises:
            OSError: a file cannot be read any more.
        """
        return {"files": _describe_files(self.files), "contents": self.contents}


_current: ContextVar[Origins | None] = ContextVar("origins", default=None)


@contextmanager
def collect_origins() -> Iterator[Origins]:
    """Return the origins of all sources that are loaded in a block."""
    origins = Origins()
    token = _current.set(origins)
    try:
        yield origins
    finally:
        _current.reset(token)


def note_files(paths: Iterable[Path]) -> None:
    """Add files to the origins that are being collected, if any are."""
    origins = _current.get()
    if origins is not None:
        origins.files.extend(paths)


def note_folder(folder: Path) -> None:
    """Add all files in a folder, at any depth, to the origins that are being collected, if any are."""
    if _current.get() is not None:
        note_files(sorted(path for path in folder.rglob("*") if path.is_file()))


@contextmanager
def note_source(name: str) -> Iterator[list[Source]]:
    """Add the content of a source to the origins that are being collected, if it is needed.

    It is where the source is the user's own function, or reads no file.

    Args:
        name: of the source. The block puts what it gave into the list.
    """
    origins, given = _current.get(), list["Source"]()
    before = len(origins.files) if origins is not None else 0
    yield given
    if origins is not None and given and (":" in name or len(origins.files) == before):
        origins.contents[name] = digest_source(given[0])


def digest_source(source: Source) -> dict[str, str]:
    """Return digests of what a source gave, by what it is.

    Of clients whose examples are made on demand, only the first client's count, which `train` holds.
    """
    given = {"train": source.train, "test": source.test}
    digests = {f"{part} {kind}": value for part, e in given.items() if e for kind, value in _digest_examples(e).items()}
    facts = {"clients": (source.groups, source.test_groups), "labels' names": (source.label_names, source.num_classes)}
    return digests | {what: digest(repr(_as_lists(fact)).encode()) for what, fact in facts.items()}


def _as_lists(fact: tuple[Any, ...]) -> list[Any]:
    return [[str(name) for name in each] if isinstance(each, Iterable) else each for each in fact]


def _digest_examples(examples: Examples) -> dict[str, str]:
    tensors = {"inputs": examples.x, "labels": examples.y, "rows": examples.rows}
    return {kind: digest_tensor(tensor) for kind, tensor in tensors.items() if tensor is not None}


def digest_tensor(tensor: Tensor) -> str:
    """Return the SHA-256 digest of a tensor's shape, type and values."""
    import torch  # here, since a list of sources is made without it

    flat = tensor.detach().cpu().contiguous()
    flat = torch.view_as_real(flat) if flat.is_complex() else flat
    whole = hashlib.sha256(f"{tensor.dtype} {list(tensor.shape)}".encode())
    whole.update(flat.reshape(-1).view(torch.uint8).numpy().data)
    return whole.hexdigest()


def _describe_files(files: Iterable[Path]) -> dict[str, dict[str, Any]]:
    """Return size and digest of each file by its name below the folder that all of them share.

    So data that were moved elsewhere as a whole are the same data.
    """
    paths = sorted({path.absolute() for path in files})
    shared = Path(os.path.commonpath([path.parent for path in paths])) if paths else Path()
    found: dict[str, dict[str, Any]] = {}
    for path in paths:
        entry = {"size": path.stat().st_size, "sha256": file_digest(path)}
        found[path.relative_to(shared).as_posix()] = entry
    return found if len(found) <= MAX_LISTED_FILES else _fold_by_folder(found)


def _fold_by_folder(files: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Return one entry for each folder, in place of the entries of its files."""
    lines: dict[str, list[str]] = {}
    sizes: dict[str, int] = {}
    for name, entry in files.items():
        folder = f"{Path(name).parent.as_posix()}/"
        lines.setdefault(folder, []).append(f"{name} {entry['sha256']}")
        sizes[folder] = sizes.get(folder, 0) + entry["size"]
    return {
        folder: {"size": sizes[folder], "sha256": digest("\n".join(those).encode())} for folder, those in lines.items()
    }


def find_difference(now: dict[str, Any], before: dict[str, Any]) -> str | None:
    """Return in words the first difference between two records of `Origins.record`; None where there is none.

    Raises:
        KeyError, TypeError, AttributeError: `before` is not such a record.
    """
    files, earlier = now["files"], before["files"]
    for name in sorted({*files, *earlier}):
        if name not in files:
            return f"the file {name} is not read any more"
        if name not in earlier:
            return f"the file {name} was not there"
        if files[name]["sha256"] != earlier[name]["sha256"]:
            sizes = earlier[name]["size"], files[name]["size"]
            return f"{name} has changed ({sizes[0]:,} bytes then, {sizes[1]:,} now)"
    for source in sorted(now["contents"].keys() & before["contents"].keys()):
        parts = now["contents"][source], before["contents"][source]
        changed = [what for what in sorted({*parts[0], *parts[1]}) if parts[0].get(what) != parts[1].get(what)]
        if changed:
            return f"the source {source} gives other data ({', '.join(changed)})"
    return None
