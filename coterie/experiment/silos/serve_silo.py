"""A silo's answers in one run, from its facts before the first round to its clients' work in the last.

What the coordinator sent for the silo to begin is kept in the run's folder at the silo. So a silo that is stopped and
started again goes on, with its own state and without the coordinator's doing.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from coterie.core.errors import Mistake
from coterie.core.files import write_atomic
from coterie.core.packing import pack
from coterie.core.threads import compute_with
from coterie.experiment.engine_choice import Machine
from coterie.experiment.settings import model_names
from coterie.experiment.silos.begin import KINDS, Begin, Waits, answer_fields, read_begin, refuse
from coterie.experiment.silos.load_own_rows import load_own_rows
from coterie.experiment.silos.merge_facts import read_agreement
from coterie.experiment.silos.own_rows import OwnRows
from coterie.experiment.silos.plans import silo_experiment, sum_clients
from coterie.experiment.silos.silo_file import SiloFile
from coterie.experiment.silos.silo_settings import settings_at_silo, task_in
from coterie.experiment.starting_weights import start_files
from coterie.loop.plan import Plan
from coterie.silos.message import MAX_BYTES, Message, Unusable, read_message, write_message
from coterie.silos.silo import Silo, explain_failure
from coterie.track.run_folder import START_FILE

log = logging.getLogger(__name__)

BEGIN_FILE = "begin"
"""In a run's folder at the silo: the request with which the run began there."""

Judge = Callable[[Mapping[str, Any], OwnRows], Sequence[str]]
"""(the settings of a run, the silo's rows) -> why the run may not begin here, a sentence each; none if it may. One that
asks people raises `Waits` where it may once a person has approved it."""


def allow_all(tables: Mapping[str, Any], rows: OwnRows) -> Sequence[str]:
    """Allow every run."""
    return ()


Approve = Callable[[Mapping[str, Any], OwnRows, Plan], Sequence[str]]
"""(the settings of a run, the silo's rows, its plan here) -> why the run may not begin, a sentence each; it raises
`Waits` where it may begin once a person has approved it."""


def approve_all(tables: Mapping[str, Any], rows: OwnRows, plan: Plan) -> Sequence[str]:
    """Let every run begin."""
    return ()


class ServeSilo:
    """A silo's answers in one run: a function from bytes to bytes, for a carrier to serve.

    Args:
        file: the silo's own configuration.
        folder: of this run at this silo. Start a silo again with the same folder, and it continues.
        machine: the silo's.
        run: the run's name, as at the coordinator.
        judge: the silo's policy. It is asked before anything that a run names is imported.
        release: asked before facts and sums leave, once the policy allows the run.
        approve: asked once the run's plan is made, so that it can say what would leave. See
            `coterie.experiment.silos.judge_run` for all three.
        max_bytes: the longest message that is read.
        say: gets a sentence about what the silo does.
    """

    def __init__(
        self,
        file: SiloFile,
        folder: Path,
        machine: Machine,
        run: str = "run",
        judge: Judge = allow_all,
        release: Judge = allow_all,
        approve: Approve = approve_all,
        max_bytes: int = MAX_BYTES,
        say: Callable[[str], None] = log.info,
    ) -> None:
        self.file, self.folder, self.machine, self.run = file, folder, machine, run
        self.judge, self.release, self.approve = judge, release, approve
        self.max_bytes, self.say = max_bytes, say
        self._threads, self._waits_for = 1, ""
        self._rows: OwnRows | None = None
        self._silo: Silo | None = None

    def __call__(self, request: bytes) -> bytes:
        """Return the answer to a message. It never raises: what cannot be done is answered with the reason."""
        try:
            return self._answer(request)
        except Waits as waits:
            if str(waits) != self._waits_for:  # the coordinator asks every few seconds
                self.say(str(waits))
            self._waits_for = str(waits)
            return refuse(request, str(waits), waits=True)
        except Exception as error:  # a user's model or data may raise anything; the silo goes on
            why = explain_failure(error, "the silo failed")
        self.say(f"a request could not be answered: {why}")
        return refuse(request, why)

    def _answer(self, request: bytes) -> bytes:
        message = read_message(request, self.max_bytes)
        if message.text("run") != self.run:
            raise Unusable(f"is of another run ({message.text('run')[:50]} and not {self.run})")
        kind = message.text("kind")
        if kind not in KINDS:
            silo = self._running()
            with compute_with(self._threads):
                return silo(request)
        fields, parts = answer_fields(self.run, kind, request), list[bytes]()
        if kind == "facts":
            self._rows = None  # they are read again: somebody may have put them right
            fields["facts"] = self._release_rows(message.fields.get("tables")).facts().to_record()
        elif kind == "sums":
            rows = self._release_rows(message.fields.get("tables"))
            parts = [pack(sum_clients(rows, read_agreement(message.fields.get("agreement"))))]
        else:
            self._begin(message, request)
        return write_message(fields, parts)

    def _own_rows(self, tables: Any) -> OwnRows:
        """Return the silo's rows, which are read once, with labels as the settings' kind of task has them."""
        if self._rows is None:
            self._rows = load_own_rows(self.file, task=task_in(tables))
        return self._rows

    def _release_rows(self, tables: Any) -> OwnRows:
        """Let facts and sums about the silo's rows leave for this run; return the rows.

        Raises:
            Mistake: they may not. It is `Waits` where a person must approve that first.
        """
        rows = self._own_rows(tables)
        self._judge(tables, rows)
        refused = self.release(tables if isinstance(tables, dict) else {}, rows)
        if refused:
            raise Mistake(f"facts may not leave for this run: {'; '.join(refused)}")
        return rows

    def _begin(self, message: Message, request: bytes) -> None:
        """Get ready for the first round, and keep the request. The same request again changes nothing."""
        path = self.folder / BEGIN_FILE
        kept = path.read_bytes() if path.is_file() else None
        if kept is not None and kept != request:
            raise Mistake("this run has begun here with other settings; give a new run another name")
        if kept is None or self._silo is None:
            self._silo = self._make(read_begin(message))
        if kept is None:
            write_atomic(path, request)
            self.say(f"the run {self.run} begins: {', '.join(self._silo.plan.ids)}")

    def _running(self) -> Silo:
        """Return the silo of the rounds; made again from the request that was kept, if this process is a new one."""
        if self._silo is None:
            path = self.folder / BEGIN_FILE
            if not path.is_file():
                raise Mistake(f"the run {self.run} has not begun here; start the coordinator again, with --resume")
            self._silo = self._make(read_begin(read_message(path.read_bytes(), self.max_bytes)))
            self.say(f"the run {self.run} goes on")
        return self._silo

    def _make(self, begin: Begin) -> Silo:
        """Return the silo of the rounds.

        Raises:
            Mistake: the silo's policy refuses the run, or it cannot be made here.
        """
        rows = self._own_rows(begin.tables)
        self._judge(begin.tables, rows)
        if rows.digest != begin.digest:
            self._rows = None  # the next request reads them again: somebody may have put them back
            raise Mistake("the silo's data have changed since it sent its facts; put them back, or begin another run")
        start_folder = self._write_starts(begin)
        experiment = silo_experiment(
            begin.tables, rows, begin.agreement, begin.scale, self.machine, begin.models, start_folder
        )
        waits = self.approve(begin.tables, rows, experiment.plan)
        if waits:
            raise Mistake(f"this run may not begin here: {'; '.join(waits)}")
        threads = experiment.settings.engine.threads
        assert threads != "auto", "the settings are resolved"
        self._threads = threads
        for remark in experiment.remarks:
            self.say(remark)
        return Silo(experiment.plan, self.folder, self.run, begin.text(), self.max_bytes, self.say)

    def _judge(self, tables: Any, rows: OwnRows) -> None:
        """Refuse a run that the silo's policy refuses; its facts do not leave for one either.

        Raises:
            Mistake: it does.
        """
        refused = self.judge(tables if isinstance(tables, dict) else {}, rows)
        if refused:
            raise Mistake(f"the silo's policy refuses this run: {'; '.join(refused)}")

    def _write_starts(self, begin: Begin) -> Path | None:
        """Write the weights that the models of this silo start from, where the coordinator has sent some."""
        if self.file.model is not None or not begin.starts:
            return None
        names = model_names(settings_at_silo(begin.tables, self.file, begin.models))
        missing = [name for name in names if name not in begin.starts]
        if len(missing) == len(names):
            return None
        if missing:
            raise Mistake(
                f"the model {missing[0]} starts from initial weights and another one of this silo does not; host one "
                "client at this silo, or give weights to each of its models"
            )
        folder = self.folder / "start"
        for path, name in zip(start_files(folder, len(names)), names, strict=True):
            write_atomic(path, begin.starts[name])
        write_atomic(folder / START_FILE, b"[]\n")
        return folder
