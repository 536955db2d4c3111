"""Kill runs at random instants with SIGKILL, resume them, and compare what they leave with a run that nobody killed.

    python benchmarks/reliability/kills.py [--kills 100] [--rng-seed 0] [--workers 1]

Each run is experiments/digits.toml with twenty rounds and SCAFFOLD, whose clients keep a state, in a process of its own
that is killed with all its children after a random time, again and again, until it comes to its end. Its weights,
records, clients.json and inputs.json must then equal those of the run that was not killed, byte for byte except for
times. It ends with status 1 at the first difference.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
TIMES = ("seconds", "elapsed")
OVERRIDES = ("rounds=20", "algorithm.name=scaffold")


def command(out: Path, workers: int) -> list[str]:
    """Return the command of a run that starts or goes on."""
    file = ROOT / "experiments" / "digits.toml"
    options = ["--out", str(out), "--resume", "--workers", str(workers)]
    return [sys.executable, "-m", "coterie", "run", str(file), *OVERRIDES, *options]


def start(out: Path, workers: int) -> subprocess.Popen[bytes]:
    """Start a run in a process group of its own."""
    env = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    none = subprocess.DEVNULL
    return subprocess.Popen(command(out, workers), env=env, stdout=none, stderr=none, start_new_session=True)


def finish(out: Path, workers: int) -> float:
    """Run to the end and return the seconds."""
    began = time.monotonic()
    status = start(out, workers).wait()
    assert status == 0, f"the run in {out} ended with status {status}"
    return time.monotonic() - began


def run_with_kills(out: Path, workers: int, draw: random.Random, longest: float, most: int) -> int:
    """Run to the end with at most this many kills on the way, and return how many there were."""
    kills = 0
    while kills < most:
        process = start(out, workers)
        try:
            status = process.wait(draw.uniform(0, longest))
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            kills += 1
            continue
        assert status == 0, f"the run in {out} ended with status {status} after {kills} kills"
        return kills
    finish(out, workers)
    return kills


def content(out: Path) -> dict[str, object]:
    """Return what a run leaves that must be equal: files' bytes, and records without times."""
    records = [json.loads(line) for line in (out / "rounds.jsonl").read_text().splitlines()]
    files = ("model.safetensors", "clients.json", "inputs.json")
    bare = [{key: value for key, value in record.items() if key not in TIMES} for record in records]
    return {"rounds.jsonl": bare, **{name: (out / name).read_bytes() for name in files}}


def main() -> None:
    """Kill, resume and compare, and print the counts."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--rng-seed", type=int, default=0)
    parser.add_argument("--workers", type=int, default=1)
    chosen = parser.parse_args()
    draw, kills, runs = random.Random(chosen.rng_seed), 0, 0
    with tempfile.TemporaryDirectory() as folder:
        whole = Path(folder) / "whole"
        longest = finish(whole, chosen.workers)
        expected = content(whole)
        while kills < chosen.kills:
            out = Path(folder) / str(runs)
            kills += run_with_kills(out, chosen.workers, draw, longest, chosen.kills - kills)
            runs += 1
            found = content(out)
            differing = [name for name in expected if found[name] != expected[name]]
            if differing:
                sys.exit(f"after {kills} kills: {', '.join(differing)} differ from the run that nobody killed")
            print(f"{kills} kills, {runs} runs ended as the run that nobody killed", flush=True)


if __name__ == "__main__":
    main()
