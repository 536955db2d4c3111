"""NVFlare's own FedAvg by its recipe, as `nvflare provision` and its server and clients run it, with TLS."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from datetime import datetime
from pathlib import Path

import torch
from case import Case, Ended
from programs import THIS, Peaks, Programs, wait_until
from safetensors.torch import save_file

PROJECT = """api_version: 3
name: bench
description: the comparison
participants:
  - {{name: localhost, type: server, org: hub, fed_learn_port: {port}, admin_port: {port}}}
{silos}
  - {{name: lead@example.org, type: admin, org: hub, role: project_admin}}
builders:
  - path: nvflare.lighter.impl.workspace.WorkspaceBuilder
    args: {{template_file: master_template.yml}}
  - path: nvflare.lighter.impl.static_file.StaticFileBuilder
    args: {{config_folder: config, scheme: grpc}}
  - path: nvflare.lighter.impl.cert.CertBuilder
  - path: nvflare.lighter.impl.signature.SignatureBuilder
"""
SERVER, CLIENT = "nvflare.private.fed.app.server.server_train", "nvflare.private.fed.app.client.client_train"


def run(case: Case) -> Ended:
    """Run the case."""
    kits, names = provision(case), [f"site-{k}" for k in range(case.silos)]
    environment = {"BENCH_HIDDEN": str(case.hidden), "PYTHONPATH": str(THIS)}
    os.environ.update(environment)
    job = export(case)
    common = ["--set", "secure_train=true", "config_folder=config"]
    with Programs(case.folder, environment) as programs:
        server = [sys.executable, "-m", SERVER, "-m", str(kits / "localhost"), "-s", "fed_server.json"]
        peaks = Peaks(programs.start("server", [*server, *common, "org=hub"]).pid)
        for name in names:
            client = [sys.executable, "-m", CLIENT, "-m", str(kits / name), "-s", "fed_client.json"]
            programs.start(name, [*client, *common, f"uid={name}", "org=hospital"])
        result = submit(kits / "lead@example.org", job, case.silos)
        log = programs.log("server")
    end = case.folder / "end.safetensors"
    model = torch.load(next(result.rglob("FL_global_model.pt")), weights_only=False)["model"]
    save_file({name: torch.as_tensor(x) for name, x in model.items()}, end)
    return Ended(ends_in(log, case.rounds), end, peaks.sum())


def provision(case: Case) -> Path:
    """Let NVFlare make its startup kits, and return their folder; silos dial the port that counts."""
    silos = "\n".join(f"  - {{name: site-{k}, type: client, org: hospital}}" for k in range(case.silos))
    (case.folder / "project.yml").write_text(PROJECT.format(port=case.listening, silos=silos))
    command = [Path(sys.executable).with_name("nvflare"), "provision", "-p", "project.yml", "-w", "ws"]
    subprocess.run(command, cwd=case.folder, check=True, capture_output=True)
    kits = case.folder / "ws/bench/prod_00"
    for path in kits.glob("*/local/*.default"):
        shutil.copy(path, path.with_suffix(""))
    for path in kits.glob("site-*/startup/fed_client.json"):
        path.write_text(path.read_text().replace(str(case.listening), str(case.dialled)))
    resources = kits / "localhost/local/resources.json"
    resources.write_text(resources.read_text().replace("/tmp/nvflare", str(case.folder.resolve() / "store")))
    return kits


def export(case: Case) -> Path:
    """Write the job of NVFlare's recipe for PyTorch."""
    from nvflare.app_opt.pt.recipes.fedavg import FedAvgRecipe

    recipe = FedAvgRecipe(
        name="bench",
        model={"class_path": "work.Model", "args": {"hidden": case.hidden}},
        min_clients=case.silos,
        num_rounds=case.rounds,
        train_script=str(THIS / "nvflare_script.py"),
    )
    recipe.export(str(case.folder / "job"))
    return next((case.folder / "job").rglob("meta.json")).parent


def submit(kit: Path, job: Path, silos: int) -> Path:
    """Submit the job once all silos are connected, wait for its end, and return the folder of its result."""
    from nvflare.fuel.flare_api.flare_api import new_secure_session

    sessions = []

    def connect() -> bool:
        try:
            session = sessions[-1] if sessions else new_secure_session("lead@example.org", str(kit), timeout=5.0)
            sessions[:] = [session]
            return len(session.get_system_info().client_info) == silos
        except Exception:  # NVFlare raises its own, and plain ones
            return False

    wait_until(connect, 120.0, "connecting")
    (session,) = sessions
    name = session.submit_job(str(job))
    wait_until(lambda: str(session.get_job_meta(name)["status"]).startswith("FINISHED"), 500.0, "the run")
    status = str(session.get_job_meta(name)["status"])
    if status != "FINISHED:COMPLETED":
        raise RuntimeError(f"the job ended as {status}")
    result = Path(session.download_job_result(name))
    session.close()
    return result


def ends_in(log: str, rounds: int) -> list[float]:
    """Return when rounds ended: each but the last where the next one started, and the last where the job did."""
    line = r"^(\S+ \S+?),(\d+) .*\n(?:\W*\n)?\s*(?:Round \d+ started|Finished FedAvg)"  # a banner after the line
    found = [
        datetime.strptime(at, "%Y-%m-%d %H:%M:%S").timestamp() + int(ms) / 1000
        for at, ms in re.findall(line, log, re.MULTILINE)
    ]
    assert len(found) == rounds + 1, found
    return found[1:]
