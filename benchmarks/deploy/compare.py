"""Rounds between real silos on one machine: coterie, and the FedAvg of Flower and NVFlare, on the same work.

    python3 -m venv flower && flower/bin/pip install flwr==1.42.0 torch==2.13.0 safetensors
    python benchmarks/deploy/compare.py --flower flower/bin [--silos 3] [--rounds 6] [--mb 4] [--times 3]

Each system runs as its users run it: a process for each silo and one for the coordinator, with TLS, started by its own
programs; NVFlare is the one of coterie's environment. The work is that of work.py, and every case must end with the
weights of a plain loop, up to rounding. Systems take turns. A case is a line of compare.jsonl, and is not run again.

Measured are the seconds from the end of a round to the end of the next one (the median of a case, without its first
round), the seconds from nothing to the end of the first round, the bytes between silos and coordinator in a round after
the first, TLS and all, counted at a port in between, and the peak memory of the coordinator's processes, added up.
"""

from __future__ import annotations

import argparse
import importlib
import json
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import safetensors.torch
from case import Case, Ended
from programs import ROOT
from wire import Wire
from work import average_here, hidden_units

RESULTS = Path(__file__).with_name("compare.jsonl")
SYSTEMS = ("coterie", "flower", "nvflare")
TOLERANCE = 1e-4
MEASURES = {
    "seconds": "s a round",
    "first": "s to the first round's end",
    "wire_mb": "MB a round",
    "mib": "MiB at the coordinator",
}


def measure(system: str, given: argparse.Namespace, folder: Path) -> dict[str, float]:
    """Run one case; return its measures.

    Raises:
        RuntimeError: it does not end, or with other weights than a plain loop.
    """
    from coterie.silos.nvflare_carrier import free_port

    hidden = hidden_units(given.mb)
    dialled, listening = free_port(), free_port()
    wire, began = Wire(dialled, listening), time.time()
    case = Case(folder, given.silos, given.rounds, hidden, dialled, listening, given.flower.absolute())
    ended: Ended = importlib.import_module(f"run_{system}").run(case)
    weights, wanted = safetensors.torch.load_file(ended.weights), average_here(hidden, given.silos, given.rounds)
    error = max(float((weights[name] - x).abs().max()) for name, x in wanted.items())
    if len(ended.ends) != given.rounds or error > TOLERANCE:
        raise RuntimeError(f"{len(ended.ends)} rounds, and weights that differ by {error:.2g}")
    steps = [after - before for before, after in zip(ended.ends, ended.ends[1:], strict=False)]
    passed = wire.until(ended.ends[-1]) - wire.until(ended.ends[0])
    return {
        "seconds": round(statistics.median(steps), 3),
        "first": round(ended.ends[0] - began, 1),
        "wire_mb": round(passed / len(steps) / 1e6, 2),
        "mib": round(ended.coordinator_mib),
        "error": error,
    }


def run_case(system: str, key: dict[str, Any], given: argparse.Namespace) -> dict[str, Any] | None:
    """Run one case in a process of its own; None if it could not run, which is printed."""
    command = [sys.executable, __file__, "--one", system, "--flower", str(given.flower)]
    command += [f"--{name}={key[name]}" for name in ("silos", "rounds", "mb")] + ["--keep"] * given.keep
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        lines = done.stderr.strip().splitlines() or ["it printed nothing"]
        print(f"{system} could not run: {lines[-1]}", file=sys.stderr)
        return None
    return key | json.loads(done.stdout.splitlines()[-1])


def print_table(rows: list[dict[str, Any]]) -> None:
    """Print each size's medians, and how many times coterie's they are."""
    print("| MB of weights | silos | system | runs | " + " | ".join(MEASURES.values()) + " |")
    print("|---" * (4 + len(MEASURES)) + "|")
    for silos, rounds, mb in sorted({(row["silos"], row["rounds"], row["mb"]) for row in rows}):
        here = [row for row in rows if (row["silos"], row["rounds"], row["mb"]) == (silos, rounds, mb)]
        medians = {
            system: {m: statistics.median(row[m] for row in here if row["system"] == system) for m in MEASURES}
            for system in SYSTEMS
            if any(row["system"] == system for row in here)
        }
        ours = medians.get("coterie")
        for system, found in medians.items():
            cells = [f"{found[m]:g}" + (f" ({found[m] / ours[m]:.2f} x)" if ours else "") for m in MEASURES]
            runs = sum(row["system"] == system for row in here)
            print(f"| {mb:g} | {silos} | {system} | {runs} | " + " | ".join(cells) + " |")


def main() -> None:
    """Run the cases that are not in compare.jsonl, and print the table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--flower", type=Path, default=Path("flower/bin"), help="the folder with Flower's programs")
    parser.add_argument("--systems", nargs="+", default=SYSTEMS)
    parser.add_argument("--silos", type=int, default=3)
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--mb", type=float, default=4.0)
    parser.add_argument("--times", type=int, default=3)
    parser.add_argument("--keep", action="store_true", help="keep the folders of the cases, to look into their logs")
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--one")
    given = parser.parse_args()
    sys.path.insert(0, str(ROOT))
    if given.one:
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # its programs end with it
        folder = Path(tempfile.mkdtemp(prefix=f"bench-{given.one}-"))
        print(folder, file=sys.stderr)
        found = measure(given.one, given, folder)
        print(json.dumps(found), flush=True)
        if not given.keep:
            shutil.rmtree(folder, ignore_errors=True)
        return
    rows = [json.loads(line) for line in given.results.read_text().splitlines()] if given.results.exists() else []
    for turn in range(given.times):
        for system in given.systems:
            key = {"system": system, "silos": given.silos, "rounds": given.rounds, "mb": given.mb, "turn": turn}
            if any(key.items() <= row.items() for row in rows):
                continue
            row = run_case(system, key, given)
            if row is None:
                continue
            rows.append(row)
            with given.results.open("a") as file:
                file.write(json.dumps(row) + "\n")
            print(json.dumps(row), flush=True)
    print_table(rows)


if __name__ == "__main__":
    main()
