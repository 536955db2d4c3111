"""Tables of the silos of a run: who is in, who was late or silent in which rounds, and what left each of them."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median
from typing import Any

from coterie.report import page_parts
from coterie.report.formats import format_bytes, format_duration
from coterie.report.run_reader import Run


def silos_table(run: Run) -> str | None:
    """Return a row for each silo, and one for each reason why a silo's updates did not count; None without silos."""
    if not run.hosts:
        return None
    silos = dict.fromkeys(run.hosts.values())
    missed = {silo: _find_missed(run, silo) for silo in silos}
    rows = [_row(run, silo, missed[silo]) for silo in silos]
    head = [
        "silo",
        "clients",
        "its last answer",
        "rounds without an update",
        "left it",
        "went to it",
        "its answers took",
    ]
    reasons = [
        (silo, why, len(rounds), name_rounds(rounds)) for silo in silos for why, rounds in _reasons(run, silo).items()
    ]
    note = "Bytes are those of all messages of the rounds, with their framing, before compression."
    return "\n".join(
        [
            page_parts.table(rows, head),
            f"<p class=soft>{note}</p>",
            page_parts.table(reasons, ["silo", "why updates did not count", "rounds", "which"])
            if reasons
            else "<p>No silo was late or silent: all updates that were asked for have come and counted.</p>",
        ]
    )


def name_rounds(rounds: Sequence[int]) -> str:
    """Return the numbers of rounds, in order, for people.

    >>> name_rounds([1, 3, 4, 5, 9])
    '1, 3 to 5, 9'
    """
    parts: list[list[int]] = []
    for number in rounds:
        if parts and number == parts[-1][-1] + 1:
            parts[-1].append(number)
        else:
            parts.append([number])
    return ", ".join(str(part[0]) if len(part) == 1 else f"{part[0]} to {part[-1]}" for part in parts)


def _row(run: Run, silo: str, missed: Sequence[int]) -> list[Any]:
    traffic = {record["round"]: record.get("silos", {}).get(silo, {}) for record in run.rounds}
    seconds = {k: own["seconds"] for k, own in traffic.items() if own.get("seconds") is not None}
    last = max(seconds, default=None)
    came = "none so far" if last is None else f"round {last}"
    took = f"{format_duration(median(seconds.values()))}; {format_duration(max(seconds.values()))} at most"
    return [
        silo,
        sum(host == silo for host in (run.hosts or {}).values()),
        f"{came}, so it is in" if last is not None and last == len(run.rounds) else came,
        f"{len(missed)}: {name_rounds(missed)}" if missed else "none",
        *(format_bytes(sum(own.get(name, 0) for own in traffic.values())) for name in ("bytes_up", "bytes_down")),
        took if seconds else "",
    ]


def _find_missed(run: Run, silo: str) -> list[int]:
    """Return the rounds in which an update of the silo did not count."""
    return sorted({number for rounds in _reasons(run, silo).values() for number in rounds})


def _reasons(run: Run, silo: str) -> dict[str, list[int]]:
    """Return why updates of the silo did not count -> in which rounds."""
    reasons: dict[str, list[int]] = {}
    for record in run.rounds:
        own = [each for each in record["dropped"] if (run.hosts or {}).get(each["client"]) == silo]
        for why in dict.fromkeys(each["why"] for each in own):
            reasons.setdefault(why, []).append(record["round"])
    return reasons
