"""Verify an audit log: whether its chain is whole, and which line breaks it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from coterie.core.digests import digest
from coterie.core.errors import Mistake
from coterie.silos.audit_log import LOG_VERSION, NO_DIGEST, parse_entry


@dataclass(frozen=True)
class Verification:
    """What was found in a log.

    Attributes:
        lines: how many there are.
        head: the digest of the last line that continues the chain.
        broken: the first line that does not, from 1; None if all do. 0: the log is shorter than it was.
        why: what is wrong with it, in a few words.
        torn: the lines that killed processes left, which later lines account for.
        unfinished: whether the last lines are torn and not accounted for so far: the writer was killed, or writes now.
        entries: those that continue the chain.
    """

    lines: int
    head: str
    broken: int | None
    why: str
    torn: tuple[int, ...]
    unfinished: bool
    entries: tuple[dict[str, Any], ...]

    def sentence(self) -> str:
        """Return the result as a sentence."""
        if self.broken == 0:
            return f"the log was written again: {self.why}"
        if self.broken is not None:
            return f"line {self.broken} breaks the chain: it {self.why}; what stands from there on proves nothing"
        torn = f"; {len(self.torn)} of them were torn when a process was killed" if self.torn else ""
        end = "; the last line is unfinished" if self.unfinished else ""
        return f"all {self.lines} lines are in one chain{torn}{end}; the last digest is {self.head}"


def verify(path: Path, known_head: str | None = None) -> Verification:
    """Return whether a log's chain is whole.

    Args:
        path: the log.
        known_head: a last digest of earlier, kept elsewhere. It must still be in the chain.

    Raises:
        Mistake: the file cannot be read, or is empty.
    """
    try:
        lines = path.read_bytes().split(b"\n")
    except OSError as error:
        raise Mistake(f"{path}: cannot be read ({error.strerror or error})") from error
    is_open = lines.pop() if lines else b""
    lines += [is_open] if is_open else []
    if not lines:
        raise Mistake(f"{path}: is empty, so there is nothing to verify")
    head, broken, why = NO_DIGEST, None, ""
    entries, heads, forms = list[dict[str, Any]](), set[str](), set[str]()
    torn, waiting = list[int](), list[str]()
    for k, line in enumerate(lines, 1):
        entry = parse_entry(line)
        if entry is None:
            torn.append(k)
            waiting.append(digest(line))
            continue
        wrong = _problem(entry, len(entries), head, waiting, forms)
        if wrong is not None:
            broken, why = k, wrong
            break
        head, waiting = digest(line), []
        heads.add(head)
        entries.append(entry)
    if broken is None and known_head is not None and known_head not in heads:
        broken, why = 0, "the digest that was kept elsewhere is not in it"
    finished = tuple(torn[: len(torn) - len(waiting)])
    return Verification(len(lines), head, broken, why, finished, bool(waiting), tuple(entries))


def _problem(entry: dict[str, Any], number: int, previous: str, torn: list[str], forms: set[str]) -> str | None:
    """Return why an entry does not continue the chain, or None; note the form that it describes."""
    what = entry.get("what")
    if entry["previous"] != previous:
        return "does not hold the digest of the line before it, which was changed, or lines are missing"
    if entry["number"] != number:
        return f"has the number {entry['number']} and not {number}"
    if entry.get("torn", []) != torn:
        return "does not account for the torn lines before it"
    if number == 0 and (what != "genesis" or entry.get("version") != LOG_VERSION) and not torn:
        return "is not the first line of a log of this version"
    if what == "form":
        forms.add(str(entry.get("form")))
    parts = entry.get("parts", [])
    unknown = [p["form"] for p in parts if isinstance(p, dict) and "form" in p and p["form"] not in forms]
    return f"names the form {unknown[0][:12]}, which no earlier line describes" if unknown else None
