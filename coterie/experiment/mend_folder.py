"""Mend a run folder before a run goes on in it: put back what its newest checkpoint keeps copies of.

What a run can write again, such as its weights and its summary, is not mended here: a finished run of which something
is damaged goes on from its last checkpoint, without a further round, and writes all of it.
"""

from __future__ import annotations

import json
import tomllib
from collections.abc import Callable
from pathlib import Path

from coterie.core.errors import Mistake
from coterie.data.model_inputs import inputs_from_record
from coterie.loop.manifests import KeptFiles, list_manifests, read_kept_files
from coterie.track import RunFolder
from coterie.track.checksums import (
    CHECKSUMS_FILE,
    REPORT_FILE,
    SUMMARY_FILE,
    describe_damage,
    find_damage,
    note_unchecked,
    read_checksums,
)
from coterie.track.file_writing import write_file
from coterie.track.run_folder import CONFIG_FILE, DATA_FILE, INPUTS_FILE, TOKENIZER_FILE


def mend_folder(folder: RunFolder, say: Callable[[str], None]) -> None:
    """Put back files that are damaged or gone, from the copies that the newest checkpoint keeps.

    Of files that no checkpoint keeps, those that the run can make again are removed if they are damaged.

    Args:
        folder: of a run that has begun.
        say: is told what was put back, a sentence each.

    Raises:
        Mistake: a file is damaged that neither the checkpoint nor the run itself can write again.
    """
    kept = read_kept_files(folder.checkpoint) or KeptFiles(0)
    damaged = _find_damaged_descriptions(folder, say)
    for name, copy in kept.files.items():
        path = folder.path / name
        if name in damaged or _needs_copy(path, copy, is_records=name == folder.rounds.path.name):
            say(f"{path}: was damaged or gone; put back from the checkpoint of {folder.unit} {kept.round}")
            write_file(path, copy)
            damaged.discard(name)
    for name in damaged & {INPUTS_FILE, TOKENIZER_FILE, DATA_FILE}:
        (folder.path / name).unlink(missing_ok=True)  # the run writes them where they are absent
    lost = sorted(name for name in damaged if name == CONFIG_FILE or name.startswith(f"{folder.start.name}/"))
    if lost:
        raise Mistake(
            f"{folder.path / lost[0]}: {describe_damage(folder.path, lost[0])}, and no checkpoint has a copy; put back "
            "a copy, or start another run with --out"
        )


def _find_damaged_descriptions(folder: RunFolder, say: Callable[[str], None]) -> set[str]:
    """Return which files that say what the run is are not what checksums.json says."""
    try:
        names = read_checksums(folder.path) or {}
    except Mistake:
        say(f"{folder.path / CHECKSUMS_FILE}: was damaged; written again")
        (folder.path / CHECKSUMS_FILE).unlink()
        return set()
    results = {*folder.result_files(), SUMMARY_FILE, REPORT_FILE}
    return set(find_damage(folder.path, [name for name in names if name not in results]))


def _needs_copy(path: Path, copy: bytes, is_records: bool) -> bool:
    """Return whether a file that has no checksum must be put back.

    Records may have grown since the checkpoint, and config.toml may have got more rounds; the others never change.
    """
    try:
        data = path.read_bytes()
        if path.name == CONFIG_FILE:
            tomllib.loads(data.decode())
            return False
    except (OSError, ValueError):
        return True
    return not data.startswith(copy) if is_records else data != copy


def is_whole(folder: RunFolder) -> bool:
    """Return whether a finished run's files are all undamaged, except its report, as far as that can be known.

    In folders of earlier versions, which have no checksums, it cannot.
    """
    try:
        checksums = read_checksums(folder.path)
    except Mistake:
        return False
    if checksums is None:
        kept = read_kept_files(folder.checkpoint)
        by_earlier_version = kept is None or not kept.files
        if by_earlier_version:
            note_unchecked(folder.path)
        return by_earlier_version
    return SUMMARY_FILE in checksums and not set(find_damage(folder.path)) - {REPORT_FILE}


def require_checkpoint(folder: RunFolder) -> None:
    """Refuse to go on with a run that was over if its checkpoint is gone: it would begin from its start again.

    Raises:
        Mistake: the run was over, and there is no checkpoint.
    """
    if has_begun(folder):
        return
    was_over = (folder.path / SUMMARY_FILE).exists() or SUMMARY_FILE in _readable_checksums(folder)
    if was_over:
        damaged = [name for name in _readable_damage(folder) if name != REPORT_FILE]
        problem = f"{damaged[0]} is damaged or gone" if damaged else "the run was over"
        raise Mistake(
            f"{folder.checkpoint}: holds no checkpoint, and {problem}; put back a copy, or start another run with --out"
        )


def has_begun(folder: RunFolder) -> bool:
    """Return whether a run goes on from a checkpoint; otherwise it begins at its start, whatever was there before."""
    return bool(list_manifests(folder.checkpoint))


def _readable_checksums(folder: RunFolder) -> dict[str, str]:
    try:
        return read_checksums(folder.path) or {}
    except Mistake:
        return {}


def _readable_damage(folder: RunFolder) -> list[str]:
    return find_damage(folder.path) if _readable_checksums(folder) else []


def has_usable_inputs(folder: RunFolder) -> bool:
    """Return whether inputs.json is there and can be read. A resumed run leaves it as the run began with it."""
    try:
        inputs_from_record(json.loads((folder.path / INPUTS_FILE).read_bytes()))
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RuntimeError):
        return False
    return True
