"""A silo's audit log: a line of JSON for everything that arrived and left, each with the digest of the line before.

    {"number": 0, "when": "2026-01-31T08:00:00.000Z", "what": "genesis", ..., "previous": "000..."}
    {"number": 1, ..., "what": "form", "form": "5d1e...", "leaves": [["delta/params/w", "F32", [10, 64]], ...]}
    {"number": 2, ..., "what": "left", "run": "heart", "round": 3, "kind": "work", "bytes": 2712, "sha256": ...,
     "parts": [{"bytes": 2600, "form": "5d1e..."}], "previous": ...}

A form is the names, types and shapes of a packed tree. It is written in full where it first occurs after the log was
opened, and by its digest from then on. Numbers of updates are never written, only the digest of the whole message.

Each line is written by one call and flushed to the disk before the message is used or sent. A process that is killed
within a line leaves a torn one. The next process closes it, says so in the line after it, and goes on.

What the chain proves: no line was changed, removed or put in, except by somebody who wrote all later lines again. To
find that too, keep the last digest elsewhere, and give it to `verify`.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from coterie.core.digests import digest
from coterie.core.errors import Mistake, reason
from coterie.core.printable import printable
from coterie.silos.message import Message, Unusable, read_message

LOG_VERSION = 1
NO_DIGEST = "0" * 64
CONTINUED = "continued after a torn line"
_TAIL_BYTES = 2**16
_BEGINNING = b'{"number": 0, '


class AuditLog:
    """The audit log of a silo, open for writing. One process writes at a time.

    Args:
        path: made if there is none; its folder must exist.
        silo: the silo's name.
        now: the time.

    Raises:
        Mistake: another process writes it, or the file cannot be written.
    """

    def __init__(self, path: Path, silo: str, now: Callable[[], datetime] = lambda: datetime.now(UTC)) -> None:
        self.path, self._now = path, now
        self._forms: set[str] = set()
        try:
            self._handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)
        except OSError as error:
            raise Mistake(f"{path}: the audit log cannot be opened ({error.strerror or error})") from error
        try:
            fcntl.flock(self._handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            os.close(self._handle)
            raise Mistake(f"{path}: another process writes this audit log now; stop it, or wait for it") from error
        self._is_torn, self._number, self._previous = True, 0, NO_DIGEST
        self._repair()
        if self._number:
            self._write({"what": "opened", "silo": silo})
        else:
            self._write({"what": "genesis", "version": LOG_VERSION, "silo": silo})
            _flush_folder(path.parent)

    @property
    def head(self) -> str:
        """The digest of the last line. Kept elsewhere, it proves the whole log up to here."""
        return self._previous

    def append(self, direction: Literal["arrived", "left"], message: bytes, to: bytes | None = None) -> None:
        """Log a message, on the disk when this returns.

        Args:
            direction: whether it came in or goes out.
            message: as it travels, before any compression.
            to: the request that it answers, whose run and round count where an answer does not repeat them.

        Raises:
            Mistake: the log cannot be written, so the message must not be used or sent.
        """
        entry, forms = describe_message(message)
        if to is not None:
            request, _ = describe_message(to)
            for name in ("run", "round", "kind"):
                if entry.get(name) is None:
                    entry[name] = request.get(name)
            entry["to"] = request["sha256"]
        for name, leaves in forms.items():
            if name not in self._forms:
                self._write({"what": "form", "form": name, "leaves": leaves})
                self._forms.add(name)
        self._write({"what": direction, **entry})

    def note(self, what: str, **facts: Any) -> None:
        """Log something else than a message, such as an approval: a word for it, and plain values."""
        self._write({"what": "note", "note": what, **facts})

    def close(self) -> None:
        """Let another process write the log."""
        os.close(self._handle)

    def _write(self, entry: Mapping[str, Any]) -> None:
        """Add a line with its number, the time and the digest of the line before, and flush it to the disk."""
        if self._is_torn:
            self._repair()
        when = self._now().astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        content = {"number": self._number, "when": when, **entry, "previous": self._previous}
        line = json.dumps(content).encode()
        self._is_torn = True  # until all of it is on the disk
        try:
            if os.write(self._handle, line + b"\n") != len(line) + 1:
                raise OSError("the disk is full")
            os.fsync(self._handle)
        except OSError as error:
            raise self._unwritable(error) from error
        self._is_torn, self._number, self._previous = False, self._number + 1, digest(line)

    def _repair(self) -> None:
        """Find the end of the chain. Where lines after it are torn, close the last one and write that the log goes on.

        Raises:
            Mistake: the file holds something else, or cannot be written.
        """
        try:
            last, torn, is_open = _find_end(self._handle)
            if is_open:
                os.write(self._handle, b"\n")
        except OSError as error:
            raise self._unwritable(error) from error
        if last is None and torn and not torn[0].startswith(_BEGINNING[: len(torn[0])]):
            raise Mistake(f"{self.path}: holds something else than an audit log; move it away, or name another file")
        self._is_torn = False
        if last is not None:
            self._number, self._previous = 1 + json.loads(last)["number"], digest(last)
        if torn:
            self._write({"what": CONTINUED, "torn": [digest(line) for line in torn]})

    def _unwritable(self, error: OSError) -> Mistake:
        why = error.strerror or str(error)
        return Mistake(f"{self.path}: the audit log cannot be written ({why}), so no message is used or sent")


def log_traffic(answer: Callable[[bytes], bytes], log: AuditLog) -> Callable[[bytes], bytes]:
    """Return an answer whose requests are logged before they are acted on, and whose answers before they are returned.

    An answer that raises is logged too. Where the log cannot be written, nothing is answered.
    """

    def answer_and_log(request: bytes) -> bytes:
        log.append("arrived", request)
        try:
            reply = answer(request)
        except Exception as error:
            log.note("no answer", why=printable(reason(error)[:300]), request_sha256=digest(request))
            raise
        log.append("left", reply, to=request)
        return reply

    return answer_and_log


def describe_message(message: bytes) -> tuple[dict[str, Any], dict[str, list[Any]]]:
    """Return what the log keeps of a message, and the forms of its parts by their digests.

    It reads names, types and shapes from the headers of the parts, and no number. A stranger's bytes are described by
    their length and digest alone.
    """
    facts: dict[str, Any] = {"bytes": len(message), "sha256": digest(message)}
    try:
        found = read_message(message, max_bytes=len(message))
    except Unusable as error:
        return {**facts, "unreadable": str(error)}, {}
    forms: dict[str, list[Any]] = {}
    parts = []
    for part in found.parts:
        leaves = _leaves(part)
        if leaves is None:
            parts.append({"bytes": len(part), "unreadable": "holds no packed tree"})
            continue
        name = digest(json.dumps(leaves).encode())
        forms[name] = leaves
        parts.append({"bytes": len(part), "form": name})
    return {**_fields(found), **facts, "parts": parts}, forms


def _fields(message: Message) -> dict[str, Any]:
    """Return the run, round and kind of a message, cut where they are long; None where it has none."""
    given = {name: message.fields.get(name) for name in ("run", "round", "kind")}
    return {k: printable(v[:100]) if isinstance(v, str) else v if type(v) is int else None for k, v in given.items()}


def _leaves(part: bytes) -> list[Any] | None:
    """Return the name, type and shape of each leaf of a packed tree, from its header; None if it has none."""
    length = int.from_bytes(part[:8], "little")
    if len(part) < 8 or length > len(part) - 8:
        return None
    try:
        header = json.loads(part[8 : 8 + length])
        return [[k, v["dtype"], list(v["shape"])] for k, v in sorted(header.items()) if k != "__metadata__"]
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None


def _find_end(handle: int) -> tuple[bytes | None, list[bytes], bool]:
    """Return the last whole line of a file or None, the torn lines after it, and whether the last one is not ended."""
    size, length = os.fstat(handle).st_size, _TAIL_BYTES
    while True:
        start = max(0, size - length)
        pieces = os.pread(handle, size - start, start).split(b"\n")
        lines = pieces if start == 0 else pieces[1:]  # else the first one may be cut
        is_open = bool(lines) and lines[-1] != b""
        lines = lines if is_open else lines[:-1]
        whole = [k for k, line in enumerate(lines) if parse_entry(line) is not None]
        if whole:
            return lines[whole[-1]], lines[whole[-1] + 1 :], is_open
        if start == 0:
            return None, lines, is_open
        length *= 4


def parse_entry(line: bytes) -> dict[str, Any] | None:
    """Return the entry of a line without its end; None if the line is torn."""
    try:
        entry = json.loads(line)
    except (ValueError, RecursionError):
        return None
    whole = isinstance(entry, dict) and type(entry.get("number")) is int and isinstance(entry.get("previous"), str)
    return entry if whole else None


def _flush_folder(folder: Path) -> None:
    """Flush a folder, so that a new file in it outlives a loss of power."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def columns(entries: Sequence[Mapping[str, Any]]) -> tuple[list[str], list[list[str]]]:
    """Return the head and the rows of a table of entries for people: one row for each, except forms."""
    leaves = {e["form"]: len(e["leaves"]) for e in entries if e.get("what") == "form"}
    rows = []
    for entry in entries:
        if entry.get("what") == "form":
            continue
        tensors = sum(leaves.get(part.get("form", ""), 0) for part in entry.get("parts", ()))
        kept = {k: v for k, v in entry.items() if k not in _IN_COLUMNS}
        rows.append(
            [
                str(entry.get("number", "")),
                str(entry.get("when", "")),
                str(entry.get("what", "")),
                *(("" if entry.get(k) is None else str(entry[k])) for k in ("run", "round", "kind")),
                str(tensors) if tensors else "",
                f"{entry['bytes']:,}" if "bytes" in entry else "",
                str(entry.get("sha256", ""))[:12],
                ", ".join(f"{k} = {v}" for k, v in kept.items()),
            ]
        )
    return ["number", "when", "what", "run", "round", "kind", "tensors", "bytes", "sha256", ""], rows


_IN_COLUMNS = {"number", "when", "what", "run", "round", "kind", "bytes", "sha256", "parts", "previous", "to"}
