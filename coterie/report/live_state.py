"""What a run folder says about its run now: whether it goes on, is over, or was stopped, and how to continue it."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from coterie.core.errors import Mistake
from coterie.report.run_reader import is_pretraining
from coterie.report.sweep_folder import RUNS, SWEEP_FILE
from coterie.track.checksums import SUMMARY_FILE
from coterie.track.folder_lock import is_locked
from coterie.track.run_folder import CONFIG_FILE, ROSTER_FILE, SILOS_FILE, STAGES_FOLDER

_RECORDS = {"round": "rounds.jsonl", "interval": "intervals.jsonl"}


class LiveState(NamedTuple):
    """How a run, a chain or a sweep stands.

    Attributes:
        kind: "waiting", "running", "finished", "failed" or "stopped".
        sentence: the same in words, for people.
        command: continues what was stopped; empty otherwise.
        stamp: another text whenever the page may have changed.
    """

    kind: str
    sentence: str
    command: str
    stamp: str


def run_state(folder: Path) -> LiveState:
    """Return how the run, the pre-training or the chain in a folder stands.

    A process that runs it holds the folder's lock, and the system takes the lock away however that process ends. So a
    run that is not over and whose folder is not locked was stopped or killed.
    """
    earlier = list_stages(folder)
    places = [folder, *earlier]
    files = [place / name for place in places for name in (CONFIG_FILE, *_RECORDS.values(), SUMMARY_FILE)]
    kind, sentence, command = _judge(folder, earlier)
    return LiveState(kind, sentence, command, f"{kind} {stamp_files(files)}")


def stamp_files(files: Iterable[Path]) -> str:
    """Return a text that changes when one of the files does."""
    parts = []
    for file in files:
        try:
            found = file.stat()
        except OSError:
            continue
        parts.append((str(file), found.st_mtime_ns, found.st_size))
    return format(hash(tuple(parts)) & (2**64 - 1), "016x")


def list_stages(folder: Path) -> list[Path]:
    """Return the folders of the earlier stages of a chain, in their order; none for other runs."""
    found = [path for path in (folder / STAGES_FOLDER).glob("*") if (path / CONFIG_FILE).is_file()]
    return sorted(found, key=lambda path: int(number) if (number := path.name.partition("-")[0]).isdecimal() else 0)


def _judge(folder: Path, earlier: list[Path]) -> tuple[str, str, str]:
    """Return the kind of a state, its sentence and its command."""
    end = _read_end(folder)
    if end is not None:
        if end.get("failure"):
            return "failed", f"This run is over, and trained nothing of use: {end['failure']}.", ""
        return "finished", "This run is finished.", ""
    last = count_records(folder)
    if is_locked(folder):
        return "running", f"This run goes on{f': {last} done' if last else ''}.", ""
    running = [place for place in earlier if is_locked(place)]
    if running:
        return (
            "running",
            f"This chain goes on: stage {running[0].name}, {count_records(running[0]) or 'just begun'}.",
            "",
        )
    if not (folder / CONFIG_FILE).is_file() and not earlier:
        return "waiting", "This run has not begun.", ""
    done = last or (f"stage {earlier[-1].name}" if earlier else "the start")
    return (
        "stopped",
        (f"This run was stopped or killed after {done}: no process holds its folder now. Continue it with"),
        resume_command(folder),
    )


def _read_end(folder: Path) -> dict[str, object] | None:
    """Return summary.json; None where the run is not over."""
    try:
        found = json.loads((folder / SUMMARY_FILE).read_bytes())
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) else None


def count_records(folder: Path) -> str:
    """Return how far a run is, such as "12 rounds"; nothing before the first record."""
    for unit, name in _RECORDS.items():
        try:
            number = (folder / name).read_bytes().count(b"\n")
        except OSError:
            continue
        return f"{number:,} {unit}{'' if number == 1 else 's'}" if number else ""
    return ""


def resume_command(folder: Path) -> str:
    """Return the command that continues a run; FILE and other words in capitals are for the user to fill in."""
    out = ["--out", str(folder), "--resume"]
    config = str(folder / CONFIG_FILE)
    if (folder / SILOS_FILE).is_file():
        verb = "rehearse" if (folder / "coordinator").is_dir() else "run"
        return shlex.join(["coterie", "deploy", verb, "FILE", *out])
    if (folder / ROSTER_FILE).is_file():
        return shlex.join(["coterie", "peer", "FILE", "--id", "NAME", "--mailbox", "URL", *out])
    if (folder / STAGES_FOLDER).is_dir():
        return shlex.join(["coterie", "run", "FILE", *out])
    try:
        verb = "pretrain" if is_pretraining(folder) else "run"
    except Mistake:
        verb = "run"
    return shlex.join(["coterie", verb, config, *out])


def is_watchable(folder: Path) -> bool:
    """Return whether a folder holds a run, a chain or a sweep, or a process that is about to begin one."""
    names = (CONFIG_FILE, STAGES_FOLDER, SWEEP_FILE, RUNS)
    return any((folder / name).exists() for name in names) or is_locked(folder)
