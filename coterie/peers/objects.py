"""Places where participants leave bytes under names: a folder that all of them see, or a bucket, by its URL.

There are four verbs. `put` replaces, `create` never does, and of several that create one name exactly one succeeds.
Nothing is ever listed: a listing may be old, and a name is either there or not.

| place | put | create |
|---|---|---|
| a folder (a path, file://) | written beside, then renamed | a folder with one file, renamed; it cannot replace one |
| a bucket (s3://, gs://, abfs://) | one request | one request that fails where the name is taken |
| memory:// | a dict of this process | under a lock |
"""

from __future__ import annotations

import errno
import os
import stat
import threading
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import unquote, urlsplit
from uuid import uuid4

from coterie.core.errors import Mistake, reason
from coterie.core.packages import import_package
from coterie.peers.message import Unusable

BUCKETS = ("s3", "s3a", "gs", "gcs", "abfs", "abfss", "az")
"""Kinds of URL whose packages can make an object on the condition that there is none."""

_MEMORY = threading.Lock()
_CONTENT = "content"


class Objects(Protocol):
    """Bytes under names such as "a/b"."""

    where: str

    def put(self, name: str, data: bytes) -> None:
        """Leave bytes under a name; they replace what was there, at once and whole."""

    def create(self, name: str, data: bytes) -> bool:
        """Leave bytes under a name that is free; return False where it is taken."""

    def read(self, name: str, max_bytes: int) -> bytes | Unusable | None:
        """Return what is under a name; None if nothing is, and why not if it is too long or no file."""

    def remove(self, name: str) -> None:
        """Remove what was left under a name, if there is anything."""


def open_objects(url: str) -> Objects:
    """Return the place that a path or a URL names.

    Raises:
        Mistake: it is of a kind in which two participants could make one name, or it cannot be opened.
    """
    scheme = urlsplit(url).scheme if "://" in url else ""
    if scheme in ("", "file", "local"):
        return FolderObjects(Path(unquote(urlsplit(url).path) if scheme else url).expanduser())
    if scheme != "memory" and scheme not in BUCKETS:
        raise Mistake(
            f"{url}: participants cannot agree there, since two could make one file at once; give a folder that all of "
            "them see, or a bucket (s3://, gs://, abfs://)"
        )
    core = import_package("fsspec.core", f"the mailbox {url}", "deploy")
    try:
        system, root = core.url_to_fs(url)
    except Exception as error:  # what a storage package raises is its own
        raise Mistake(f"{url}: cannot be opened ({reason(error)}); check the URL and the access to it") from error
    return FsspecObjects(url, system, root)


class FolderObjects:
    """Bytes in a folder of this machine, or of a network that is mounted here."""

    def __init__(self, path: Path) -> None:
        self.path, self.where = path, str(path)
        try:
            path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise Mistake(f"{path}: cannot be made the mailbox's folder ({error.strerror})") from error

    def put(self, name: str, data: bytes) -> None:
        """Write beside, then rename; see `Objects.put`."""
        path = self.path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        beside = path.with_name(f".{uuid4().hex}.tmp")
        try:
            _write(beside, data)
            if path.is_dir() and not path.is_symlink():
                path.rename(path.with_name(f".moved-{uuid4().hex}"))
            beside.replace(path)
        finally:
            beside.unlink(missing_ok=True)

    def create(self, name: str, data: bytes) -> bool:
        """Rename a folder with one file to `name`, which fails where there is one with a file; see `Objects.create`.

        Unlike a hard link, it works on every file system.
        """
        path = self.path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        beside = path.with_name(f".{uuid4().hex}.tmp")
        beside.mkdir()
        try:
            _write(beside / _CONTENT, data)
            beside.rename(path)
        except OSError as error:
            (beside / _CONTENT).unlink(missing_ok=True)
            beside.rmdir()
            if error.errno in (errno.EEXIST, errno.ENOTEMPTY, errno.ENOTDIR, errno.EACCES) and os.path.lexists(path):
                return False
            raise
        return True

    def read(self, name: str, max_bytes: int) -> bytes | Unusable | None:
        """Read a regular file, without following a link or waiting; see `Objects.read`."""
        path = self.path / name
        try:
            if stat.S_ISDIR(path.lstat().st_mode):
                if not any(path.iterdir()):
                    return None
                path = path / _CONTENT
                if not os.path.lexists(path):
                    return Unusable("is not a regular file")
            flags = sum(getattr(os, flag, 0) for flag in ("O_NOFOLLOW", "O_NONBLOCK", "O_NOCTTY", "O_CLOEXEC"))
            with open(os.open(path, os.O_RDONLY | flags), "rb") as file:  # noqa: PTH123 - of a descriptor
                found = os.fstat(file.fileno())
                if not stat.S_ISREG(found.st_mode):
                    return Unusable("is not a regular file")
                return _limit(file.read(max_bytes + 1), max_bytes)
        except FileNotFoundError:
            return None
        except OSError as error:
            if error.errno in (errno.ELOOP, errno.ENOTDIR, errno.EISDIR, errno.ENXIO, errno.EACCES, errno.EPERM):
                return Unusable(f"cannot be read ({error.strerror})")
            raise

    def remove(self, name: str) -> None:
        """Remove a file, and its folder if it was the last one; see `Objects.remove`."""
        try:
            (self.path / name).unlink(missing_ok=True)
            (self.path / name).parent.rmdir()
        except OSError:  # others are in the folder, or somebody has put something else there
            return


class FsspecObjects:
    """Bytes in what the package fsspec opens."""

    def __init__(self, where: str, system: Any, root: str) -> None:
        self.where, self.system, self.root = where, system, root.rstrip("/")

    def put(self, name: str, data: bytes) -> None:
        """Write in one request; see `Objects.put`."""
        self.system.pipe_file(f"{self.root}/{name}", data)

    def create(self, name: str, data: bytes) -> bool:
        """Write on the condition that the name is free; see `Objects.create`."""
        path = f"{self.root}/{name}"
        try:
            if "memory" in self.system.protocol:
                with _MEMORY:
                    self.system.pipe_file(path, data, mode="create")
            else:
                self.system.pipe_file(path, data, mode="create")
        except FileExistsError:
            return False
        except OSError:
            if self.read(name, 0) is None:
                raise
            return False
        return True

    def read(self, name: str, max_bytes: int) -> bytes | Unusable | None:
        """Read by exact name, at most one byte more than allowed; see `Objects.read`."""
        try:
            return _limit(self.system.cat_file(f"{self.root}/{name}", start=0, end=max_bytes + 1), max_bytes)
        except FileNotFoundError:
            return None

    def remove(self, name: str) -> None:
        """Remove an object; see `Objects.remove`."""
        try:
            self.system.rm_file(f"{self.root}/{name}")
        except (OSError, KeyError):  # it is gone, or may not be removed; the rest of the mailbox goes on
            return


def _write(path: Path, data: bytes) -> None:
    """Write a new file and flush it to the disk."""
    with path.open("xb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _limit(data: bytes, max_bytes: int) -> bytes | Unusable:
    """Return bytes that are not too long."""
    return data if len(data) <= max_bytes else Unusable(f"has more than {max_bytes} bytes")
