"""The audit log: what it keeps, what breaks its chain, and processes that die within a line."""

import json
import os
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest
import torch

from coterie import Mistake
from coterie.core.digests import digest
from coterie.core.packing import pack
from coterie.silos.audit_log import AuditLog, columns, describe_message, log_traffic
from coterie.silos.message import write_message
from coterie.silos.verify_log import verify

NOW = datetime(2026, 1, 31, 8, 0, tzinfo=UTC)
UPDATE = {"delta": {"params": {"w": torch.ones(10, 64)}, "buffers": {}}}
REQUEST = write_message({"kind": "work", "run": "heart", "round": 3}, [pack(UPDATE)])


def fill(path: Path, messages: int = 4) -> AuditLog:
    log = AuditLog(path, "north", now=lambda: NOW)
    for k in range(messages):
        log.append("arrived" if k % 2 == 0 else "left", REQUEST)
    return log


def lines(path: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in path.read_bytes().splitlines()]


def test_a_log_by_hand(tmp_path: Path) -> None:
    """A genesis, the form of the message once, and each message with the digest of its bytes; each line chains on."""
    path = tmp_path / "audit.jsonl"
    log = fill(path, 2)
    genesis, form, arrived, left = lines(path)
    assert (genesis["what"], genesis["silo"], genesis["previous"]) == ("genesis", "north", "0" * 64)
    assert form["leaves"] == [["delta/params/w", "F32", [10, 64]]]
    assert (arrived["what"], left["what"]) == ("arrived", "left")
    assert arrived["sha256"] == digest(REQUEST)
    assert (arrived["run"], arrived["round"], arrived["kind"]) == ("heart", 3, "work")
    assert arrived["bytes"] == len(REQUEST)
    assert arrived["parts"] == [{"bytes": len(pack(UPDATE)), "form": form["form"]}]
    assert arrived["when"] == "2026-01-31T08:00:00.000Z"
    raw = path.read_bytes().splitlines()
    assert [line["previous"] for line in lines(path)[1:]] == [digest(line) for line in raw[:-1]]
    assert log.head == digest(raw[-1])
    found = verify(path)
    assert (found.lines, found.broken, found.head) == (4, None, log.head)


@pytest.mark.parametrize("k", range(6))
def test_every_change_is_found(tmp_path: Path, k: int) -> None:
    """A changed line is found at the line after it (the last line's change needs a head that is kept elsewhere)."""
    path = tmp_path / "audit.jsonl"
    head = fill(path).head
    raw = path.read_bytes().splitlines(keepends=True)
    assert len(raw) == 6
    changed = [line.replace(b"2026-01-31", b"2026-01-30") if i == k else line for i, line in enumerate(raw)]
    path.write_bytes(b"".join(changed))
    assert verify(path, head).broken == (k + 2 if k < 5 else 0)
    path.write_bytes(b"".join(raw[:k] + raw[k + 1 :]))
    assert verify(path, head).broken == (k + 1 if k < 5 else 0)
    path.write_bytes(b"".join([*raw[: k + 1], raw[k], *raw[k + 1 :]]))
    assert verify(path, head).broken == k + 2
    path.write_bytes(b"".join(raw))
    assert verify(path, head).broken is None


def test_a_log_that_was_written_again_is_found_by_an_earlier_digest(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    head = fill(path).head
    path.unlink()
    fill(path, 2)
    assert verify(path).broken is None
    assert verify(path, head).sentence().startswith("the log was written again")


@pytest.mark.parametrize("cut", [1, 2, 30, 60])
def test_a_torn_last_line_is_closed_and_said(tmp_path: Path, cut: int) -> None:
    """The last line lacks its last bytes; with one byte less only its end is missing, and it counts."""
    path = tmp_path / "audit.jsonl"
    fill(path).close()
    whole = path.read_bytes()
    path.write_bytes(whole[:-cut])
    assert verify(path).unfinished == (cut > 1)
    AuditLog(path, "north").close()
    assert path.read_bytes().startswith(whole[:-cut] + b"\n")
    found = verify(path)
    assert found.broken is None
    assert found.torn == ((6,) if cut > 1 else ())
    assert [e["what"] for e in found.entries if "torn" in e] == ["continued after a torn line"] * (cut > 1)


def test_torn_lines_in_a_row_and_a_torn_genesis(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    fill(path).close()
    with path.open("ab") as file:
        file.write(b'{"number": 6, "wh\n{"number": 6, "when": "2')
    AuditLog(path, "north").close()
    assert (verify(path).broken, verify(path).torn) == (None, (7, 8))
    other = tmp_path / "other.jsonl"
    other.write_bytes(b'{"num')
    AuditLog(other, "north").close()
    assert verify(other).broken is None


def test_a_torn_line_that_was_removed_later_is_found(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    fill(path).close()
    path.write_bytes(path.read_bytes()[:-20])
    AuditLog(path, "north").close()
    raw = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(raw[:5] + raw[6:]))
    assert "torn lines" in verify(path).why


KILLED = """
import os, sys
from pathlib import Path
import coterie.silos.audit_log as module
log = module.AuditLog(Path(sys.argv[1]), "north")
log.note("before")
write = os.write
def half(handle, data):
    write(handle, data[: len(data) // 2])
    os.fsync(handle)
    os.kill(os.getpid(), 9)
os.write = half
log.note("never whole")
"""


def test_a_process_killed_within_a_line(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    done = subprocess.run([sys.executable, "-c", KILLED, str(path)], check=False)
    assert done.returncode == -9
    assert verify(path).unfinished
    log = AuditLog(path, "north")
    log.note("after")
    found = verify(path)
    assert (found.broken, found.torn, found.unfinished) == (None, (3,), False)
    assert [e.get("note") for e in found.entries if e["what"] == "note"] == ["before", "after"]


def test_a_full_disk_stops_the_traffic_and_the_log_goes_on_after_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "audit.jsonl"
    log, write = AuditLog(path, "north"), os.write
    calls: list[bytes] = []
    answer = log_traffic(lambda request: calls.append(request) or b"answer", log)
    monkeypatch.setattr(os, "write", lambda handle, data: write(handle, data[:10]))
    with pytest.raises(Mistake, match=r"cannot be written \(the disk is full\), so no message is used or sent"):
        answer(REQUEST)
    assert calls == []
    monkeypatch.undo()
    assert answer(REQUEST) == b"answer"
    assert (verify(path).broken, verify(path).torn) == (None, (2,))


def test_requests_are_logged_before_they_are_acted_on_and_answers_before_they_leave(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    log = AuditLog(path, "north")
    seen: list[str] = []

    def answer(request: bytes) -> bytes:
        seen.extend(str(e["what"]) for e in verify(path).entries)
        if request == b"fail":
            raise ValueError("no such round")
        return REQUEST

    answer = log_traffic(answer, log)
    assert answer(b"garbage") == REQUEST
    assert seen == ["genesis", "arrived"]
    assert [e["what"] for e in verify(path).entries] == ["genesis", "arrived", "form", "left"]
    assert verify(path).entries[1]["unreadable"] == "has no first line"
    with pytest.raises(ValueError, match="no such round"):
        answer(b"fail")
    assert verify(path).entries[-1]["why"] == "no such round"


def test_a_strangers_message_is_described_and_breaks_nothing() -> None:
    bad = write_message({"kind": "x" * 500 + "\x1b[2J", "run": ["a"], "round": True}, [b"\xff" * 20, b"", b"\0" * 8])
    entry, forms = describe_message(bad)
    assert forms == {}
    assert len(entry["kind"]) == 100
    assert entry["run"] is None
    assert entry["round"] is None
    assert [part["unreadable"] for part in entry["parts"]] == ["holds no packed tree"] * 3


def test_two_processes_do_not_write_one_log(tmp_path: Path) -> None:
    log = AuditLog(tmp_path / "audit.jsonl", "north")
    with pytest.raises(Mistake, match="another process writes"):
        AuditLog(tmp_path / "audit.jsonl", "north")
    log.close()
    AuditLog(tmp_path / "audit.jsonl", "north").close()


def test_another_file_is_not_written_into(tmp_path: Path) -> None:
    path = tmp_path / "patients.csv"
    path.write_text("id,age\n1,70\n")
    with pytest.raises(Mistake, match="holds something else"):
        AuditLog(path, "north")
    assert path.read_text() == "id,age\n1,70\n"
    with pytest.raises(Mistake, match="cannot be opened"):
        AuditLog(tmp_path / "none" / "audit.jsonl", "north")


def test_a_table_for_people(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    fill(path).note("approved", by="Dr. Ada")
    head, rows = columns(verify(path).entries)
    assert len(rows) == 6
    assert dict(zip(head, rows[1], strict=True)) | {"sha256": ""} == {
        "number": "2",
        "when": "2026-01-31T08:00:00.000Z",
        "what": "arrived",
        "run": "heart",
        "round": "3",
        "kind": "work",
        "tensors": "1",
        "bytes": f"{len(REQUEST):,}",
        "sha256": "",
        "": "",
    }
    assert rows[-1][-1] == "note = approved, by = Dr. Ada"


def test_a_whole_line_that_is_longer_than_the_tail_is_found(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    log = AuditLog(path, "north")
    log.note("long", text="x" * 300_000)
    log.close()
    AuditLog(path, "north").close()
    assert verify(path).broken is None
    assert verify(path).lines == 3
