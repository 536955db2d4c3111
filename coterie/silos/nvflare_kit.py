"""The files that NVFlare reads in a party's folder, and the rules that a silo keeps by itself.

A kit has `startup/` (keys, certificates, the coordinator's address) and `local/` (this party's own rules). Nothing in
it is code. The rules of a silo are the same whatever the coordinator sends:

- a job may only name the classes in `ALLOWED_CLASSES`, which are installed here;
- a job that brings code is refused (`byoc` none), and so is every command that looks into the silo;
- no log leaves it.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from coterie.core.files import write_atomic

COORDINATOR = "coordinator"
"""The name in the coordinator's certificate."""

CONSOLE = "console"
"""The name of the run's own connection to the coordinator's process, by which it submits jobs."""

CONSOLE_ROLE = "project_admin"

ALLOWED_CLASSES = ("coterie.silos.nvflare_relay.", "nvflare.collab.runtime.", "nvflare.app_common.logging.")

LARGEST_BYTES = 512 * 2**20
"""The largest message, unless it is told otherwise: NVFlare needs several times as much memory at both ends."""

HEARTBEAT_SECONDS = 2
"""How often a silo shows the coordinator that it is there."""

LOOK_SECONDS = 0.3
"""How often something is looked for that nobody announces."""

RESTART_SECONDS = 3.0
"""How long after its end a process is started again."""

_JOB_FOLDER = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")

REGISTERED_SECONDS = 60
"""After how long without a sign of life the coordinator's process forgets a silo."""


def write_coordinator_kit(kit: Path, project: str, host: str, port: int) -> None:
    """Write the coordinator's files, all but its key and certificates.

    Raises:
        OSError: the folder cannot be written.
    """
    service = {"target": f"{host}:{port}", "scheme": "grpc"}
    security = {"ssl_private_key": "server.key", "ssl_cert": "server.crt", "ssl_root_cert": "rootCA.pem"}
    server = {"name": project, "service": service, "admin_server": host, "admin_port": port, **security}
    _write(
        kit / "startup/fed_server.json", {"format_version": 2, "servers": [server | {"connection_security": "mtls"}]}
    )
    _write(kit / "local/resources.json", _coordinator_resources(kit))
    _write_rules(kit, "disable_client")


def write_disabled(kit: Path, silos: Iterable[str]) -> None:
    """Write which silos the coordinator's process refuses by name, whatever certificate they show.

    Raises:
        OSError: the folder cannot be written.
    """
    _write(kit / "disabled_clients.json", {"disabled_clients": sorted(silos)})


def write_console_kit(kit: Path, project: str, host: str, port: int) -> None:
    """Write the files of the run's own connection, all but its key and certificates.

    Raises:
        OSError: the folder cannot be written.
    """
    admin = {
        "project_name": project,
        "username": CONSOLE,
        "server_identity": COORDINATOR,
        "scheme": "grpc",
        "host": host,
        "port": port,
        "connection_security": "mtls",
        "uid_source": "user_input",
        "with_file_transfer": True,
        "upload_dir": str(kit / "transfer"),
        "download_dir": str(kit / "transfer"),
        "client_key": "client.key",
        "client_cert": "client.crt",
        "ca_cert": "rootCA.pem",
    }
    _write(kit / "startup/fed_admin.json", {"format_version": 1, "admin": admin})
    quiet = {"idle_timeout": 900.0, "login_timeout": 10.0, "with_debug": False, "authenticate_msg_timeout": 2.0}
    _write(kit / "local/resources.json", {"format_version": 1, "admin": quiet | {"prompt": "> "}})
    (kit / "transfer").mkdir(parents=True, exist_ok=True)


def write_silo_kit(kit: Path, project: str, silo: str, host: str, port: int) -> None:
    """Write a silo's files, all but its key and certificates.

    Raises:
        OSError: the folder cannot be written.
    """
    service = {"target": f"{host}:{port}", "scheme": "grpc"}
    client = {"ssl_private_key": "client.key", "ssl_cert": "client.crt", "ssl_root_cert": "rootCA.pem"}
    client |= {"fqsn": silo, "connection_security": "mtls"}
    servers = [{"name": project, "service": service, "identity": COORDINATOR}]
    _write(
        kit / "startup/fed_client.json", {"format_version": 2, "servers": servers, "client": client | {"is_leaf": True}}
    )
    _write(kit / "local/resources.json", _silo_resources())
    _write_rules(kit)


def remove_old_jobs(kit: Path) -> None:
    """Remove what the jobs of an earlier process left: each is a lease that nobody waits for any more.

    Raises:
        OSError: the folder cannot be written.
    """
    for folder in kit.iterdir():
        if folder.is_dir() and (folder.name == "store" or _JOB_FOLDER.fullmatch(folder.name)):
            shutil.rmtree(folder)


def _coordinator_resources(kit: Path) -> dict[str, Any]:
    """Return what the coordinator's process is made of; what it stores goes into the kit."""
    common = "nvflare.app_common"
    storage = f"{common}.storages.filesystem_storage.FilesystemStorage"
    snapshots = {"path": storage, "args": {"root_dir": str(kit / "store/snapshots"), "uri_root": "/"}}
    jobs = {"uri_root": str(kit / "store/jobs"), "job_store_id": "job_store"}
    server = {
        "admin_storage": "transfer",
        "max_num_clients": 1000,
        "heart_beat_timeout": REGISTERED_SECONDS,
        "download_job_url": "http://download.server.com/",
        "admin_timeout": 10.0,
    }
    return {
        "format_version": 2,
        **_class_rules(),
        "servers": [server],
        "snapshot_persistor": {
            "path": f"{common}.state_persistors.storage_state_persistor.StorageStatePersistor",
            "args": {"uri_root": "/", "storage": snapshots},
        },
        "components": [
            _component("job_scheduler", f"{common}.job_schedulers.job_scheduler.DefaultJobScheduler", max_jobs=4),
            _component("job_manager", "nvflare.apis.impl.job_def_manager.SimpleJobDefManager", **jobs),
            _component("job_store", storage),
            _component("process_launcher", f"{common}.job_launcher.server_process_launcher.ServerProcessJobLauncher"),
        ],
    }


def _silo_resources() -> dict[str, Any]:
    """Return what a silo's process is made of: no part that sends logs."""
    common = "nvflare.app_common"
    gpus = {"num_of_gpus": 0, "mem_per_gpu_in_GiB": 0, "expiration_period": 300}
    consumer = f"{common}.resource_consumers.gpu_resource_consumer.GPUResourceConsumer"
    return {
        "format_version": 2,
        **_class_rules(),
        "allow_log_streaming": False,
        "client": {"retry_timeout": 30, "compression": "Gzip"},
        "components": [
            _component(
                "resource_manager", f"{common}.resource_managers.gpu_resource_manager.GPUResourceManager", **gpus
            ),
            _component("resource_consumer", consumer),
            _component("process_launcher", f"{common}.job_launcher.client_process_launcher.ClientProcessJobLauncher"),
        ],
    }


def _class_rules() -> dict[str, Any]:
    """Return which classes a job may name."""
    return {"class_list_enforcement_mode": "enforce", "class_allow_list": list(ALLOWED_CLASSES)}


def _component(name: str, path: str, **arguments: Any) -> dict[str, Any]:
    """Return a part of a process as NVFlare's files describe it."""
    return {"id": name, "path": path, "args": arguments}


def _write_rules(kit: Path, *commands: str) -> None:
    """Write what the console may do here: submit, see and end jobs that bring no code, these commands, nothing else."""
    allowed = {"submit_job": "any", "manage_job": "any", "view": "any", **dict.fromkeys(commands, "any")}
    refused = ("clone_job", "download_job", "operate", "shell_commands", "byoc", "server-predeployed-flwr")
    permissions = {CONSOLE_ROLE: allowed | dict.fromkeys(refused, "none")}
    _write(kit / "local/authorization.json", {"format_version": "1.0", "permissions": permissions})
    _write(kit / "local/log_config.json", _log_rules())


def _log_rules() -> dict[str, Any]:
    """Return that a party logs into `log.txt` in its own folder, at most 5 files of 5 MB."""
    text = {
        "()": "nvflare.fuel.utils.log_utils.BaseFormatter",
        "fmt": "%(asctime)s - %(name)s - %(levelname)s - %(fl_ctx)s - %(message)s",
    }
    file = {
        "class": "logging.handlers.RotatingFileHandler",
        "level": "DEBUG",
        "formatter": "text",
        "filename": "log.txt",
        "mode": "a",
        "maxBytes": 5_000_000,
        "backupCount": 4,
    }
    return {
        "version": 1,
        "disable_existing_loggers": False,
        "formatters": {"text": text},
        "handlers": {"logFileHandler": file},
        "loggers": {"root": {"level": "INFO", "handlers": ["logFileHandler"]}},
    }


def _write(path: Path, content: dict[str, Any]) -> None:
    """Write a JSON file."""
    write_atomic(path, (json.dumps(content, indent=2) + "\n").encode())
