"""Flower's own FedAvg by its SuperLink and SuperNodes, with TLS."""

from __future__ import annotations

import os
import shutil
import subprocess
from dataclasses import replace

from case import Case, Ended
from programs import THIS, Peaks, Programs, wait_until

from coterie.silos.nvflare_carrier import free_port
from coterie.silos.project import create_project


def run(case: Case) -> Ended:
    """Run the case."""
    case = replace(case, folder=case.folder.resolve())
    keys = create_project(case.folder / "keys", "bench", "localhost", case.dialled, ["silo-0"])
    root, startup = case.folder / "keys/root/certificate.pem", case.folder / "keys/coordinator/startup"
    assert keys.port == case.dialled
    home, app = case.folder / "home", case.folder / "app"
    home.mkdir()
    shutil.copytree(THIS / "flower_app", app)
    (home / "config.toml").write_text(
        f'[superlink]\ndefault = "bench"\n[superlink.bench]\naddress = "localhost:{case.listening}"\n'
        f'root-certificates = "{root}"\n'
    )
    environment = {"FLWR_HOME": str(home), "BENCH_FOLDER": str(case.folder), "BENCH_HIDDEN": str(case.hidden)}
    environment |= {"PYTHONPATH": str(THIS), "PATH": f"{case.flower}{os.pathsep}{os.environ['PATH']}"}
    environment |= {"FLWR_TELEMETRY_ENABLED": "0"}
    tls = ["--ssl-certfile", startup / "server.crt", "--ssl-keyfile", startup / "server.key", "--ssl-ca-certfile", root]
    link = ["--host", "localhost", "--port", case.listening, "--disable-runtime-dependency-installation"]
    ends = case.folder / "ends.txt"
    with Programs(case.folder, environment) as programs:
        superlink = programs.start("superlink", [*map(str, ["flower-superlink", *tls, *link])])
        peaks = Peaks(superlink.pid)
        wait_until(lambda: "running on" in programs.log("superlink"), 120.0, "starting the SuperLink")
        for k in range(case.silos):
            node = ["--superlink", f"localhost:{case.dialled}", "--root-certificates", root, "--port", free_port()]
            programs.start(f"silo-{k}", [*map(str, ["flower-supernode", *node, "--node-config", f"silo={k}"])])
        submit = ["flwr", "run", str(app), "bench", "--run-config", f"rounds={case.rounds} silos={case.silos}"]
        done = subprocess.run(submit, env=programs.environment, capture_output=True, text=True, check=False)
        if done.returncode:
            raise RuntimeError(done.stdout + done.stderr)
        wait_until((case.folder / "end.safetensors").is_file, 500.0, "the run")
    return Ended([float(line) for line in ends.read_text().split()], case.folder / "end.safetensors", peaks.sum())
