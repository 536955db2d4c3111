"""The run's commands to NVFlare's process of the coordinator: who is connected, submit a job, end it.

Besides the relay of a job (`coterie.silos.nvflare_relay`), this is the only module that imports NVFlare.
"""

from __future__ import annotations

import json
import logging.handlers
import shutil
import tempfile
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from coterie.core.errors import reason
from coterie.core.packages import import_package
from coterie.silos.nvflare_kit import CONSOLE

CONNECT_SECONDS = 5.0

TASK_SECONDS = 0.5
"""How often a silo's part of a job asks for a task. A job begins with two, and NVFlare's default is 2 seconds."""
_NO_REPLY = "no_reply"


class Console:
    """A connection to NVFlare's process of the coordinator, made when it is first needed and again after an error.

    Args:
        kit: the folder `console` of a project.

    Raises:
        Mistake: NVFlare is not installed.
        OSError: the kit cannot be written.
    """

    def __init__(self, kit: Path) -> None:
        self._api = import_package("nvflare.fuel.flare_api.flare_api", "coterie deploy", "deploy")
        self._kit = kit
        self._session: Any = None
        self.last_error = ""
        _log_into(kit / "log.txt")

    def signs_of_life(self) -> dict[str, float]:
        """Return each silo that is registered, and when it last gave a sign of life, in seconds since 1970."""
        found = self._command(lambda session: session.get_system_info())
        clients = found.client_info if found is not None else []
        return {each.name: float(each.last_connect_time or 0) for each in clients}

    def submit(self, lease: str, sites: Sequence[str], quorum: int) -> str | None:
        """Submit a job for some silos, and return NVFlare's name for it; None if NVFlare's process does not take it."""
        folder = Path(tempfile.mkdtemp(prefix="coterie-job-"))
        try:
            write_job(folder / "job", lease, sites, quorum)
            job = self._command(lambda session: session.submit_job(str(folder / "job")))
        finally:
            shutil.rmtree(folder, ignore_errors=True)
        return None if job is None else str(job)

    def find_end(self, job: str) -> str:
        """Return how a job ended, or that NVFlare's process does not answer; an empty text while it may still run."""
        status = self._command(lambda session: str(session.get_job_meta(job).get("status")))
        if status is None:
            return self.last_error
        return status if status.startswith("FINISHED") else ""

    def parts(self, job: str, sites: Sequence[str]) -> dict[str, str | None]:
        """Return the state of each silo's part of a job: NVFlare's word such as "starting" or "started".

        It is an empty text where the silo says that it has none, and None where it says nothing. Nothing is returned if
        NVFlare's process does not answer.
        """
        if not sites:
            return {}
        answers = self._command(lambda session: session.get_client_job_status(list(sites))) or []
        found: dict[str, str | None] = {}
        for each in answers:
            site, state = each["client_name"], str(each.get("status"))
            if each.get("job_id") == job:
                found[site] = state
            elif not found.get(site):  # it has another job, or none
                found[site] = None if state == _NO_REPLY else ""
        return found

    def find_refusals(self, job: str) -> dict[str, str]:
        """Return the silos that did not take a job, and what they or NVFlare said."""
        details = self._command(lambda session: session.get_job_meta(job).get("job_deploy_detail")) or []
        words = dict(str(each).split(": ", 1) for each in details if ": " in str(each))
        return {site: " ".join(why.split())[:200] for site, why in words.items() if why != "OK"}

    def disable(self, silo: str) -> None:
        """Let NVFlare's process forget a silo, and refuse its name from then on."""
        self._command(lambda session: session.disable_client(silo))

    def abort(self, job: str) -> None:
        """End a job."""
        self._command(lambda session: session.abort_job(job))

    def close(self) -> None:
        """Close the connection: its threads would keep this process alive."""
        session, self._session = self._session, None
        if session is not None:
            with suppress(Exception):
                session.close()

    def _command(self, command: Callable[[Any], Any]) -> Any:
        """Give a command; None if that fails, which closes the connection."""
        try:
            if self._session is None:
                self._session = self._api.Session(CONSOLE, str(self._kit))
                self._session.api._print_hci = lambda _: None  # it would print into the run's own display
                self._session.try_connect(CONNECT_SECONDS)
            return command(self._session)
        except Exception as error:  # NVFlare raises its own, and plain ones
            self.last_error = reason(error)
            self.close()
            return None


def write_job(folder: Path, lease: str, sites: Sequence[str], quorum: int) -> None:
    """Write a job that hands bytes on: three files and no code.

    Raises:
        OSError: the folder cannot be written.
    """
    runtime, relay = "nvflare.collab.runtime", "coterie.silos.nvflare_relay"
    filters: dict[str, Any] = {"format_version": 2, "task_data_filters": [], "task_result_filters": []}
    controller = {"server_obj_id": "_server", "collab_obj_ids": [], "props": {}}
    executor = {"client_obj_id": "_client", "collab_obj_ids": [], "props": {}}
    executor = {"path": f"{runtime}.executor.CollabExecutor", "args": executor}
    server = {
        "server": {"task_request_interval": TASK_SECONDS},
        "workflows": [{"id": "controller", "path": f"{runtime}.controller.CollabController", "args": controller}],
        "components": [{"id": "_server", "path": f"{relay}.CoordinatorRelay", "args": {"lease": lease}}],
    }
    client = {
        "executors": [{"tasks": ["*"], "executor": executor}],
        "components": [{"id": "_client", "path": f"{relay}.SiloRelay", "args": {}}],
    }
    meta = {"name": "coterie", "resource_spec": {}, "min_clients": quorum, "deploy_map": {"app": ["server", *sites]}}
    config = folder / "app/config"
    config.mkdir(parents=True)
    (config / "config_fed_server.json").write_text(json.dumps(filters | server))
    (config / "config_fed_client.json").write_text(json.dumps(filters | client))
    (folder / "meta.json").write_text(json.dumps(meta))


def _log_into(file: Path) -> None:
    """Send what NVFlare logs in this process into a file: its warnings are no news to people."""
    file.parent.mkdir(parents=True, exist_ok=True)
    logger = logging.getLogger("nvflare")
    for old in [each for each in logger.handlers if isinstance(each, logging.handlers.RotatingFileHandler)]:
        logger.removeHandler(old)  # of an earlier connection in this process
        old.close()
    handler = logging.handlers.RotatingFileHandler(file, "a", 5_000_000, 1, delay=True)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s %(message)s"))
    logger.addHandler(handler)
    logger.propagate = False
