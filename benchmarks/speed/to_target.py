"""Seconds from the shell to the written model: MNIST's 2NN until 97 %, beside Flower and pfl-research, in turns.

    COTERIE_DATA=... python benchmarks/speed/to_target.py [--split iid shards] [--seeds 3]

The work is that of experiments/mnist-2nn-iid.toml and mnist-2nn-shards.toml: 100 clients, ten in a round, E = 1,
B = 10, lr 0.1, a test on all 10,000 images after each round, and an end at 97 %. The peers get the images as coterie
dealt them, ready in a file; coterie reads MNIST's own files and deals them. Its run ends with checkpoint, records and
report. Start and end of each program are counted, a first compilation is not: coterie runs once before the first turn,
since compiled programs are kept. Rounds until 97 % depend on each program's draws, so they stand beside the seconds. A
peer takes part if its environment is there, see install_peers.sh. Nothing else should run on the machine at the same
time.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch

from coterie.data import deal, load

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
VENVS = Path(os.environ.get("COTERIE_PEERS", HERE / "venvs"))
SPLITS = {"iid": {"partition": "iid"}, "shards": {"partition": "shards", "shards_per_client": 2}}
MOST_ROUNDS, TARGET = 1000, 0.97


def write_data(split: str, path: Path) -> None:
    """Write MNIST as coterie deals it, for the peers."""
    source = load("mnist")
    clients = deal(source, num_clients=100, rng_seed=0, **SPLITS[split]).values()
    assert source.test is not None
    torch.save(
        {
            "x": torch.stack([client.tensors()[0] for client in clients]),
            "y": torch.stack([client.tensors()[1] for client in clients]),
            "test_x": source.test.tensors()[0],
            "test_y": source.test.tensors()[1],
        },
        path,
    )


def run_coterie(split: str, seed: int, folder: Path) -> tuple[int, float]:
    """Run coterie's command; return the rounds that it took and the accuracy that it reached."""
    file, out = ROOT / f"experiments/mnist-2nn-{split}.toml", folder / f"coterie-{split}-{seed}"
    command = [sys.executable, "-m", "coterie", "run", str(file), f"rng_seed={seed}", "--out", str(out), "--quiet"]
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    subprocess.run(command, check=True, env=env, cwd=folder, stdout=subprocess.DEVNULL)
    assert (out / "model.safetensors").is_file()
    last = json.loads((out / "rounds.jsonl").read_text().splitlines()[-1])
    return last["round"], last["test_accuracy"]


def peer(name: str) -> Callable[[str, int, Path], tuple[int, float]]:
    """Return what runs a peer's program, as `run_coterie` does coterie's."""

    def run(split: str, seed: int, folder: Path) -> tuple[int, float]:
        command = [str(VENVS / name / "bin/python"), str(HERE / f"target_{name}.py")]
        given = {"DATA": folder / f"{split}.pt", "OUT": folder / "model.pt", "SEED": seed, "ROUNDS": MOST_ROUNDS}
        env = {**os.environ, "FLWR_TELEMETRY_ENABLED": "0", **{f"TARGET_{key}": str(x) for key, x in given.items()}}
        done = subprocess.run(command, env=env, cwd=HERE, text=True, capture_output=True)
        said = [line for line in done.stdout.splitlines() if line.startswith("@ ")]
        if not said:
            raise RuntimeError(f"{name} ended without a model: {done.stderr[-2000:]}")
        rounds, reached = said[0].split()[1:]
        return int(rounds), float(reached)

    return run


def main() -> None:
    """Print a line for each program and split."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--split", nargs="*", default=list(SPLITS), choices=SPLITS)
    parser.add_argument("--seeds", type=int, default=3)
    chosen = parser.parse_args()
    programs = {"coterie": run_coterie}
    programs |= {name: peer(name) for name in ("flower", "pfl") if (VENVS / name / "bin/python").exists()}
    print("| split | program | seconds | times coterie's | rounds | seconds of each run |")
    print("|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for split in chosen.split:
            write_data(split, folder / f"{split}.pt")
            run_coterie(split, 1000, folder)  # compiled programs are kept from here on
            seconds: dict[str, list[float]] = {program: [] for program in programs}
            rounds: dict[str, list[int]] = {program: [] for program in programs}
            for seed in range(chosen.seeds):
                for program, run in programs.items():
                    began = time.monotonic()
                    count, reached = run(split, seed, folder)
                    if reached < TARGET:
                        raise RuntimeError(f"{program} ended at {reached:.2%} after {count} rounds")
                    seconds[program].append(time.monotonic() - began)
                    rounds[program].append(count)
                    print(f"{split} {program} {count} {reached:.4f} {seconds[program][-1]:.1f}", file=sys.stderr)
            ours = statistics.median(seconds["coterie"])
            for program in programs:
                median, each = statistics.median(seconds[program]), ", ".join(f"{x:.1f}" for x in seconds[program])
                counts = ", ".join(map(str, rounds[program]))
                print(f"| {split} | {program} | {median:.1f} | {median / ours:.2f} | {counts} | {each} |", flush=True)


if __name__ == "__main__":
    main()
