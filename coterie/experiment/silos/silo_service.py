"""All that a silo answers: one run after another, behind its policy, its approvals and its audit log.

The work of a run is done in a child process, whose death is one answer that is missing. This process only guards: it
logs what arrives and what leaves, and refuses what the policy or a person at the silo refuses.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

from coterie.core.errors import Mistake
from coterie.core.printable import printable
from coterie.experiment.resolve_engine import this_machine
from coterie.experiment.silos.begin import read_begin, refuse
from coterie.experiment.silos.judge_run import ask_approval, ask_facts_approval, judge_by_policy, run_digest
from coterie.experiment.silos.serve_silo import BEGIN_FILE, ServeSilo
from coterie.experiment.silos.silo_folder import SiloFolder, load_silo_folder
from coterie.silos.audit_log import AuditLog
from coterie.silos.carrier import Answer
from coterie.silos.guard import guard_answers
from coterie.silos.message import Unusable, read_message

_RUN_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,79}")

StartRun = Callable[[Path, str], Answer]
"""(a silo's folder, the name of a run) -> its answers in that run; with a method `close` if it has something to end."""


def say_here(sentence: str) -> None:
    """Print a sentence on one line."""
    print(printable(sentence), flush=True)


def make_run(folder: Path, run: str, say: Callable[[str], None] = say_here) -> ServeSilo:
    """Return a silo's answers in one run, which its policy and its people have a word on.

    Args:
        folder: the silo's.
        run: the run's name.
        say: gets a sentence about what the silo does.

    Raises:
        Mistake: the silo's files cannot be used.
    """
    silo = load_silo_folder(folder)
    return ServeSilo(
        silo.file,
        silo.run(run),
        this_machine(),
        run,
        judge=judge_by_policy(silo.policy, run),
        release=ask_facts_approval(silo.policy, silo.approvals, run),
        approve=ask_approval(silo.policy, silo.approvals, run),
        max_bytes=silo.policy.max_message_bytes,
        say=say,
    )


class SiloService:
    """A silo's answers in all runs: a function from bytes to bytes, for a carrier to serve.

    Args:
        folder: the silo's.
        start: begins to answer in a run.

    Raises:
        Mistake: the silo's files cannot be used, or another process serves this folder now.
    """

    def __init__(self, folder: Path, start: StartRun) -> None:
        self.silo: SiloFolder = load_silo_folder(folder)
        self.log = AuditLog(self.silo.audit_log, self.silo.file.name)
        self._start = start
        self._run = ""
        self._answers: Answer = refuse_all
        self._digests: dict[str, str] = {}
        self._guarded = guard_answers(self._answer, self.silo.policy, self._is_revoked, self.log, refuse)

    def __call__(self, request: bytes) -> bytes:
        """Return the answer to a message, and log both."""
        return self._guarded(request)

    def close(self) -> None:
        """End the work of the run that goes on, and let another process write the log."""
        self._end_run()
        self.log.close()

    def _answer(self, request: bytes) -> bytes:
        try:
            run = read_message(request, self.silo.policy.max_message_bytes).text("run")
        except Unusable as error:
            return refuse(request, f"the request {error}")
        if not _RUN_NAME.fullmatch(run):
            return refuse(request, "the request names a run that no folder can be called")
        if run != self._run:
            self._end_run()
            try:
                self._run, self._answers = run, self._start(self.silo.path, run)
            except Mistake as mistake:
                return refuse(request, str(mistake))
        return self._answers(request)

    def _end_run(self) -> None:
        close = getattr(self._answers, "close", None)
        self._run, self._answers = "", refuse_all
        if close is not None:
            close()

    def _is_revoked(self, request: bytes) -> bool:
        """Return whether a person at the silo has revoked the run of a request that has begun here."""
        try:
            run = read_message(request, self.silo.policy.max_message_bytes).text("run")
        except Unusable:
            return False
        known = self._digest_of(run) if _RUN_NAME.fullmatch(run) else None
        return known is not None and self.silo.approvals.is_revoked(known)

    def _digest_of(self, run: str) -> str | None:
        """Return by which digest people have approved a run; None if it has not begun here."""
        path = self.silo.run(run) / BEGIN_FILE
        if run not in self._digests and path.is_file():
            begin = read_begin(read_message(path.read_bytes(), self.silo.policy.max_message_bytes))
            self._digests[run] = run_digest(begin.tables)
        return self._digests.get(run)


def refuse_all(request: bytes) -> bytes:
    """Refuse a request where no run goes on."""
    return refuse(request, "no run goes on at this silo")
