"""Which runs a person at the silo has approved: a file for each experiment, in the silo's own folder.

A run is known by the digest of its experiment file. It waits until somebody approves it, having seen what it would do.
The same experiment need not wait again in another run folder. Where a later version of it would do something else, such
as send more, it does.

Where the policy says so, the silo's facts wait in the same way before the run does, as a decision of their own.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from coterie.core.errors import Mistake, few, reason
from coterie.core.files import write_atomic
from coterie.core.printable import printable
from coterie.silos.run_description import RunDescription, description_from

State = Literal["pending", "approved", "revoked"]
_DIGEST = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class Approval:
    """What was decided about a run.

    Attributes:
        description: what the run would do, as the person who decides sees it.
        state: "pending", "approved" or "revoked".
        when: of the last change, in UTC.
        by: who made it, as they said; empty while it is pending.
        used: whether the run has begun since it was approved.
    """

    description: RunDescription
    state: State
    when: str
    by: str = ""
    used: bool = False


class Approvals:
    """The approvals in a folder.

    Args:
        folder: made when the first run asks.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def begin(self, run: RunDescription, approve: Literal["always", "new runs", "never"]) -> str | None:
        """Return why a run may not begin now, a sentence; None if it may. A run that nobody knows is noted as pending.

        Args:
            run: what it would do; or, with `facts`, what it would learn before that.
            approve: the policy's line.

        Raises:
            Mistake: the file of this run is damaged.
        """
        if approve == "never":
            return None
        known = self._read(self._path(run.digest)) if self._path(run.digest).exists() else None
        is_other_run = known is not None and known.description.run != run.run
        if known is not None and is_other_run:  # the same experiment again: only its run is new
            known = replace(known, description=replace(known.description, run=run.run))
            self._write(known)
        if known is not None and known.state == "revoked":
            again = f"coterie deploy approve {run.digest[:12]}"
            return f"the run {run.run} was revoked at this silo; {again} lets it begin again"
        asks_again = approve == "always" and (is_other_run or not run.facts)  # a run may ask for its facts twice
        if known is None or known.description != run or (asks_again and known.used):
            known = Approval(run, "pending", _now())
            self._write(known)
        if known.state == "pending":
            what = f"the facts for the run {run.run} wait" if run.facts else f"the run {run.run} waits"
            return f"{what} for approval at this silo: coterie deploy approve {run.digest[:12]}"
        if not known.used:
            self._write(replace(known, used=True))
        return None

    def is_revoked(self, digest: str) -> bool:
        """Return whether somebody has revoked a run, as it may happen while it goes on.

        Raises:
            Mistake: the file of this run is damaged.
        """
        path = self._path(digest)
        return path.exists() and self._read(path).state == "revoked"

    def approve(self, name: str, by: str = "") -> Approval:
        """Approve a run; return what was decided.

        Args:
            name: the run's name, its digest, or the first characters of it.
            by: who decides.

        Raises:
            Mistake: there is no such run, or several; or its file is damaged.
        """
        return self._decide(name, "approved", by)

    def revoke(self, name: str, by: str = "") -> Approval:
        """Take an approval back, or refuse a run that is pending; return what was decided. See `approve`."""
        return self._decide(name, "revoked", by)

    def all(self) -> list[Approval]:
        """Return all runs that have asked, by name, those that are pending first.

        Raises:
            Mistake: a file is damaged.
        """
        found = [self._read(path) for path in sorted(self.folder.glob("*.json"))]
        return sorted(found, key=lambda each: (each.state != "pending", each.description.run, each.description.digest))

    def _decide(self, name: str, state: State, by: str) -> Approval:
        runs = self.all()
        matching = [a for a in runs if name == a.description.run or (name and a.description.digest.startswith(name))]
        if len(matching) > 1:  # a run and its facts have one name, and seldom wait both
            matching = [a for a in matching if a.state == "pending"] or [a for a in matching if not a.description.facts]
        if len(matching) != 1:
            known = few([f"{a.description.run} ({a.description.digest[:12]})" for a in matching or runs], 5)
            kind = "no run" if not matching else f"{len(matching)} runs"
            raise Mistake(f"{kind} of the name or digest {printable(name)} asked here; there are {known or 'none'}")
        decided = replace(matching[0], state=state, when=_now(), by=by, used=False)
        self._write(decided)
        return decided

    def _path(self, digest: str) -> Path:
        """Return the file of a run.

        Raises:
            Mistake: the digest is none, so it might name any file.
        """
        if not _DIGEST.fullmatch(digest):
            raise Mistake(f"{printable(digest[:80])} is not the sha256 of an experiment")
        return self.folder / f"{digest}.json"

    def _write(self, approval: Approval) -> None:
        run = approval.description
        content = {
            "state": approval.state,
            "when": approval.when,
            "by": approval.by,
            "used": approval.used,
            "run": run.record(),
        }
        write_atomic(self._path(run.digest), json.dumps(content, indent=1).encode())

    def _read(self, path: Path) -> Approval:
        try:
            content: dict[str, Any] = json.loads(path.read_bytes())
            found = Approval(
                description_from(content["run"]), content["state"], content["when"], content["by"], content["used"]
            )
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise Mistake(f"{path}: is damaged ({reason(error)}); remove it, and the run asks again") from error
        right = found.description.digest == path.stem and found.state in ("pending", "approved", "revoked")
        if not right or not isinstance(found.used, bool):
            raise Mistake(f"{path}: is damaged (it belongs to another run); remove it, and the run asks again")
        return found


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
