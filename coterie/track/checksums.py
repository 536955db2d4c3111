"""checksums.json: the SHA-256 digest of the other files of a run folder, so that damage to any of them is found.

It is there from the first round on, with the files that say what the run is. Once the run is over, it also has the
records, the weights, the summary and then the report. It is removed before any of these files changes, and written
after them. So a process that is killed between the two leaves files that are not checked, never a wrong alarm.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterable
from pathlib import Path

from coterie.core.digests import file_digest, seal_json, unseal_json
from coterie.core.errors import Mistake
from coterie.track.file_writing import write_file

CHECKSUMS_FILE = "checksums.json"
REPORT_FILE = "report.html"
SUMMARY_FILE = "summary.json"
_log = logging.getLogger(__name__)


def write_checksums(folder: Path, names: Iterable[str]) -> None:
    """Write checksums.json, with those of the named files that are there.

    Raises:
        Mistake: it cannot be written.
    """
    _write(folder, {name: file_digest(folder / name) for name in names if (folder / name).is_file()})


def _write(folder: Path, checksums: dict[str, str]) -> None:
    write_file(folder / CHECKSUMS_FILE, seal_json({"files": checksums}))


def read_checksums(folder: Path) -> dict[str, str] | None:
    """Return the digest of each file by its name; None where there is no checksums.json, as in older run folders.

    Raises:
        Mistake: it is damaged.
    """
    path = folder / CHECKSUMS_FILE
    try:
        checksums: dict[str, str] = unseal_json(path.read_bytes())["files"]
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError) as error:
        raise Mistake(f"{path}: is damaged ({error}); continue the run with --resume, which writes it again") from error
    return checksums


def find_damage(folder: Path, names: Collection[str] | None = None) -> list[str]:
    """Return the names of files that are not what checksums.json says, or are gone.

    Args:
        folder: of the run.
        names: the files to look at; by default all that it has.

    Raises:
        Mistake: checksums.json is damaged.
    """
    checksums = read_checksums(folder) or {}
    looked_at = checksums if names is None else [name for name in names if name in checksums]
    return [name for name in looked_at if not _is_right(folder / name, checksums[name])]


def _is_right(path: Path, checksum: str) -> bool:
    try:
        return path.is_file() and file_digest(path) == checksum
    except OSError:
        return False


def check_files(folder: Path, names: Collection[str]) -> None:
    """Refuse files that are not what checksums.json says; those that it does not have are not checked.

    Raises:
        Mistake: a file is damaged or gone.
    """
    damaged = find_damage(folder, names)
    if damaged:
        raise Mistake(
            f"{folder / damaged[0]}: {describe_damage(folder, damaged[0])}; continue the run with --resume, which "
            "mends what its checkpoint has, or put back a copy"
        )


def check_weights(path: Path) -> None:
    """Refuse a weights file of a run folder if it is not what the folder's checksums.json says.

    A file that no run folder has a checksum of is not checked.

    Raises:
        Mistake: it is damaged.
    """
    for folder in path.parents[:2]:
        check_files(folder, [path.relative_to(folder).as_posix()])


def describe_damage(folder: Path, name: str) -> str:
    """Return what is wrong with a damaged file, in words."""
    return f"is damaged (its checksum is not the one in {CHECKSUMS_FILE})" if (folder / name).is_file() else "is gone"


def refresh_report(folder: Path) -> None:
    """Take up the digest of a report that was written, where a finished run has checksums.

    Raises:
        Mistake: checksums.json is damaged or cannot be written.
    """
    checksums = read_checksums(folder) or {}
    if SUMMARY_FILE in checksums:
        _write(folder, {**checksums, REPORT_FILE: file_digest(folder / REPORT_FILE)})


def note_unchecked(folder: Path) -> None:
    """Log that a finished run's files cannot be checked, if an earlier version wrote the folder."""
    if read_checksums(folder) is None:
        _log.warning("%s: has no %s, so its files are not checked for damage", folder, CHECKSUMS_FILE)
