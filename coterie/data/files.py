"""Where official files lie, and how an absent one is fetched."""

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

# Seconds to wait for a connection, and between two pieces of an answer: without a network, say so soon.
_CONNECT, _READ = 5.0, 20.0


def data_home() -> Path:
    """The folder that holds a folder for each source: $COTERIE_DATA, else the platform's cache folder for coterie."""
    chosen = os.environ.get("COTERIE_DATA")
    if chosen:
        return Path(chosen).expanduser()
    import pooch

    return Path(pooch.os_cache("coterie"))


def official(source: str, name: str, url: str, checksum: str, instead: str = "") -> Path:
    """The path of the official file `name` of `source`, fetched and checked first where it is absent.

    Args:
        source: the source's name, which is also its folder in `data_home()`.
        name: the file's name there.
        url: where it can be fetched.
        checksum: "md5:..." or "sha256:..." of the fetched file. A file that is already there is taken as it is (its
            reader checks its content), since a re-compressed copy is as good.
        instead: what else the user could put there, for the message.

    Raises:
        Mistake: it is absent and cannot be fetched.
    """
    path = data_home() / source / name
    if not path.exists():
        _fetch(path, url, checksum, instead)
    return path


def unpacked(source: str, archive: str, folder: str, names: Sequence[str], url: str, checksum: str) -> list[Path]:
    """The paths of official files that are published as one tar archive, fetched and unpacked first where one is
    absent.

    Args:
        source: the source's name, which is also its folder in `data_home()`.
        archive: the archive's name there.
        folder: the folder within the archive, and there once it is unpacked.
        names: the files in it that are needed. Nothing else is unpacked, whatever the archive says.
        url: where the archive can be fetched.
        checksum: "md5:..." or "sha256:..." of the archive.

    Raises:
        Mistake: a file is absent, and the archive cannot be had or does not hold it.
    """
    home = data_home() / source / folder
    paths = [home / name for name in names]
    if not all(path.exists() for path in paths):
        packed = official(source, archive, url, checksum, f", or the folder {folder} that it holds")
        _unpack(packed, folder, paths)
    return paths


def _unpack(packed: Path, folder: str, paths: Sequence[Path]) -> None:
    try:
        with tarfile.open(packed) as tar:
            for path in paths:
                member = tar.extractfile(f"{folder}/{path.name}")
                if member is None:
                    raise KeyError(f"{folder}/{path.name} is no file")
                path.parent.mkdir(parents=True, exist_ok=True)
                # Written beside and then moved, so that a stop half-way leaves no half file.
                half = path.with_name(path.name + ".part")
                half.write_bytes(member.read())
                half.replace(path)
    except (OSError, EOFError, tarfile.TarError, zlib.error, KeyError) as error:
        why = reason(error)
        raise Mistake(f"{packed}: cannot be unpacked ({why}); replace it, or delete it to have it fetched") from error


def _fetch(path: Path, url: str, checksum: str, instead: str) -> None:
    import pooch

    pooch.get_logger().setLevel("WARNING")
    bar = _Bar(path.name)
    try:
        # pooch writes a temporary file, checks it, and moves it: never a half file under the final name.
        downloader = pooch.HTTPDownloader(progressbar=bar, timeout=(_CONNECT, _READ), chunk_size=1 << 16)
        pooch.retrieve(url, checksum, fname=path.name, path=path.parent, downloader=downloader)
    except (OSError, ValueError) as error:
        with contextlib.suppress(OSError):
            path.parent.rmdir()  # where nothing came, no empty folder stays
        why = _why(error)
        raise Mistake(
            f"{path}: is absent and could not be fetched from {url} ({why}); put the file there{instead}"
        ) from error
    finally:
        bar.close()


def _why(error: Exception) -> str:
    import requests

    if isinstance(error, requests.HTTPError) and error.response is not None:
        return f"the server answered {error.response.status_code}"
    if isinstance(error, requests.ConnectionError | requests.Timeout):
        return "no connection"
    return reason(error)


class _Bar:
    """A rich progress bar with the members that pooch asks for; it appears with the first bytes."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.total = 0
        self._shown: tuple[Progress, TaskID] | None = None

    def update(self, n: int) -> None:
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
