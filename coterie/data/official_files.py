"""Official files of data sets: where they lie, and how a missing one is fetched."""

from __future__ import annotations

import contextlib
import os
import tarfile
import zlib
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TaskID, TextColumn

from coterie.core.errors import Mistake, reason
from coterie.data.origins import note_files

# For a connection, and between two pieces of an answer. Short, so that the user soon learns of a missing network.
_CONNECT_TIMEOUT_SECONDS, _READ_TIMEOUT_SECONDS = 5.0, 20.0


def data_home() -> Path:
    """Return the folder with a folder for each source: $COTERIE_DATA, or else the platform's cache folder."""
    chosen = os.environ.get("COTERIE_DATA")
    if chosen:
        return Path(chosen).expanduser()
    import pooch

    return Path(pooch.os_cache("coterie"))


def find_or_fetch(source: str, name: str, url: str, checksum: str, instead: str = "") -> Path:
    """Return the path of an official file; if it is missing, fetch and check it first.

    Args:
        source: the source's name, which is also its folder in `data_home()`.
        name: the file's name there.
        url: where it can be fetched.
        checksum: "md5:..." or "sha256:..." of the fetched file. It is not checked for a file that is there already,
            since a copy that was compressed again is as good; the file's reader checks the content.
        instead: what else the user could put there, for the message.

    Raises:
        Mistake: it is missing and cannot be fetched.
    """
    path = _find(source, name, url, checksum, instead)
    note_files([path])
    return path


def _find(source: str, name: str, url: str, checksum: str, instead: str) -> Path:
    path = data_home() / source / name
    if not path.exists():
        _fetch(path, url, checksum, instead)
    return path


def find_or_unpack(source: str, archive: str, folder: str, names: Sequence[str], url: str, checksum: str) -> list[Path]:
    """Return the paths of official files; if one is missing, fetch their tar archive and unpack it first.

    Args:
        source: the source's name, which is also its folder in `data_home()`.
        archive: the archive's name there.
        folder: the folder within the archive, and of the unpacked files.
        names: the files in it that are needed. Nothing else is unpacked.
        url: where the archive can be fetched.
        checksum: "md5:..." or "sha256:..." of the archive.

    Raises:
        Mistake: a file is missing, and the archive cannot be fetched or does not hold it.
    """
    home = data_home() / source / folder
    paths = [home / name for name in names]
    if not all(path.exists() for path in paths):
        packed = _find(source, archive, url, checksum, f", or the folder {folder} that it holds")
        _unpack(packed, folder, paths)
    note_files(paths)
    return paths


def _unpack(packed: Path, folder: str, paths: Sequence[Path]) -> None:
    """Unpack the files of `folder` in the tar archive `packed` to `paths`."""
    try:
        with tarfile.open(packed) as tar:
            for path in paths:
                entry = tar.extractfile(f"{folder}/{path.name}")
                if entry is None:
                    raise KeyError(f"{folder}/{path.name} is not a file")
                path.parent.mkdir(parents=True, exist_ok=True)
                # Written under another name and then renamed, so that an interruption leaves no incomplete file.
                part = path.with_name(path.name + ".part")
                part.write_bytes(entry.read())
                part.replace(path)
    except (OSError, EOFError, tarfile.TarError, zlib.error, KeyError) as error:
        why = reason(error)
        raise Mistake(f"{packed}: cannot be unpacked ({why}); replace it, or delete it to have it fetched") from error


def _fetch(path: Path, url: str, checksum: str, instead: str) -> None:
    """Download a file, with a progress bar, and check it; `instead` completes the message of a failure."""
    import pooch

    pooch.get_logger().setLevel("WARNING")
    bar = _ProgressBar(path.name)
    try:
        # pooch writes a temporary file, checks it, and moves it, so the final name never has an incomplete file.
        downloader = pooch.HTTPDownloader(
            progressbar=bar, timeout=(_CONNECT_TIMEOUT_SECONDS, _READ_TIMEOUT_SECONDS), chunk_size=1 << 16
        )
        pooch.retrieve(url, checksum, fname=path.name, path=path.parent, downloader=downloader)
    except (OSError, ValueError) as error:
        with contextlib.suppress(OSError):
            path.parent.rmdir()  # leave no empty folder, which would look like a source's
        why = _explain_fetch_error(error)
        raise Mistake(
            f"{path}: is missing and could not be fetched from {url} ({why}); put the file there{instead}"
        ) from error
    finally:
        bar.close()


def _explain_fetch_error(error: Exception) -> str:
    import requests

    if isinstance(error, requests.HTTPError) and error.response is not None:
        return f"the server answered {error.response.status_code}"
    if isinstance(error, requests.ConnectionError | requests.Timeout):
        return "no connection"
    return reason(error)


class _ProgressBar:
    """A progress bar of rich with the members that pooch uses; it appears with the first bytes."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.total = 0
        self._shown: tuple[Progress, TaskID] | None = None

    def update(self, n: int) -> None:
        """Advance the bar by n bytes, and show it the first time."""
        if self._shown is None:
            progress = Progress(
                TextColumn("{task.description}"), BarColumn(), DownloadColumn(), console=Console(stderr=True)
            )
            progress.start()
            self._shown = progress, progress.add_task(self.name, total=self.total)
        progress, task = self._shown
        progress.update(task, advance=n)

    def reset(self) -> None:
        if self._shown is not None:
            progress, task = self._shown
            progress.reset(task)

    def close(self) -> None:
        if self._shown is not None:
            self._shown[0].stop()
            self._shown = None
