"""coterie between silos, by its commands: a process for each silo, keys, TLS, policies and audit logs."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import safetensors.torch
from case import Case, Ended
from programs import ROOT, Peaks, Programs
from work import RATE, ROWS, STEPS, Model, make_rows

from coterie.silos.policy import DEFAULT_POLICY
from coterie.silos.project import create_project, join_all


def run(case: Case) -> Ended:
    """Run the case."""
    names = [f"silo-{k}" for k in range(case.silos)]
    project, file = case.folder / "project", case.folder / "bench.toml"
    create_project(project, "bench", "localhost", case.dialled, names)
    kits = join_all(project, case.folder / "silos", names)
    for path in (project / "project.toml", project / "console/startup/fed_admin.json"):
        path.write_text(path.read_text().replace(str(case.dialled), str(case.listening)))
    for k, (name, kit) in enumerate(kits.items()):
        write_silo(kit, name, k)
    write_experiment(case, file)
    coterie = [sys.executable, "-m", "coterie", "deploy"]
    with Programs(case.folder, {"PYTHONPATH": str(ROOT)}) as programs:
        for name, kit in kits.items():
            programs.start(name, [*coterie, "serve", str(kit)])
        out = case.folder / "out"
        coordinator = programs.start(
            "coordinator", [*coterie, "run", str(file), "--project", str(project), "--out", str(out)]
        )
        peaks = Peaks(coordinator.pid)
        if coordinator.wait(500.0):
            raise RuntimeError(programs.log("coordinator"))
    records = [json.loads(line) for line in (out / "rounds.jsonl").read_text().splitlines()]
    assert all(record["reached"] == case.silos for record in records), records
    began = (out / "rounds.jsonl").stat().st_mtime - records[-1]["elapsed"]  # the last line is written at its end
    return Ended([began + record["elapsed"] for record in records], out / "model.safetensors", peaks.sum())


def write_silo(kit: Path, name: str, number: int) -> None:
    """Write a silo's rows, silo.toml and policy.toml."""
    x, y = make_rows(number)
    test = np.arange(len(y) + 1) == len(y)  # one more row, since a silo must have some to test on
    np.savez(kit / "rows.npz", x=np.append(x, x[:1], 0), y=np.append(y, y[:1]), test=test)
    (kit / "silo.toml").write_text(f'name = "{name}"\n[data]\nsource = "npz"\npath = "rows.npz"\n')
    (kit / "policy.toml").write_text(DEFAULT_POLICY.replace('approve = "new runs"', 'approve = "never"'))


def write_experiment(case: Case, file: Path) -> None:
    """Write the experiment file, and the weights that it starts from."""
    safetensors.torch.save_file(Model(case.hidden).state_dict(), case.folder / "start.safetensors")
    file.write_text(f"""
rounds = {case.rounds}
[data]
source = "npz"
path = "each silo names its own"
standardize = "none"
[model]
name = "mlp"
hidden = [{case.hidden}]
[pretrain]
weights = "start.safetensors"
[algorithm]
name = "fedavg"
lr = {RATE}
batch_size = {ROWS}
local_epochs = {STEPS}
[evaluate]
every = {case.rounds}
[deploy]
min_clients = {case.silos}
""")
