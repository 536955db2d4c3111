"""Four participants as processes of their own, as `coterie peer` starts them, beside one process that simulates them.

    COTERIE_DATA=... python benchmarks/fedh2l/processes.py

Rotated MNIST at 0, 25, 50 and 75 degrees, 1,000 private, 100 seed and 500 test images each; three architectures; 20
rounds of 40 local steps. Each process reads its own npz and the common seed set, and writes its model; nothing but the
mailbox's folder connects them. In the second run one of them is killed by SIGKILL after its fifth round, and started
again as soon as the others have gone three rounds further. Results are appended to processes.jsonl: accuracies in
percent, and for each participant how many counted in each of its rounds.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file

import coterie
from coterie import Examples
from coterie.data import deal, load, own_test
from coterie.data.seed_set import from_clients
from coterie.models.registry import build
from coterie.peers.keys import make_key
from coterie.peers.roster import roster_line

RESULTS = Path(__file__).with_name("processes.jsonl")
MODELS = {"0": "mlp", "25": "2nn", "50": "logistic", "75": "mlp"}
ROUNDS, STEPS = 20, 40
PROGRAM = "from coterie.cli.main import main; main()"
EXPERIMENT = f"""
rounds = {ROUNDS}
[data]
source = "npz"
path = "0.npz"
[model.clients]
0 = "mlp"
25 = "2nn"
50 = "logistic"
75 = "mlp"
[algorithm]
name = "fedh2l"
lr = 0.05
local_steps = {STEPS}
[seed_set]
source = "npz"
path = "seed.npz"
[engine]
threads = 1
"""


def write_data(home: Path) -> None:
    """An npz for each participant, with its test images marked, and the seed set's."""
    source = load("rotated_mnist", angles=[0, 25, 50, 75], examples_per_client=1100)
    dealt = deal(source)
    seed, tests = from_clients(dealt, 100), own_test(source, dealt)
    for client, examples in seed.clients.items():
        (x, y), (tx, ty) = examples.tensors(), tests[client].take(torch.arange(500)).tensors()
        assert y is not None
        assert ty is not None
        marks = np.arange(len(x) + len(tx)) >= len(x)
        np.savez(home / f"{client}.npz", x=torch.cat([x, tx]), y=torch.cat([y, ty]), test=marks)
    x, y = seed.examples.tensors()
    np.savez(home / "seed.npz", x=x, y=y)


def write_keys(home: Path) -> None:
    """A key for each participant, and the roster."""
    made = {client: make_key(home / f"{client}.key").public_key for client in MODELS}
    (home / "roster.toml").write_text("".join(roster_line(client, key) for client, key in made.items()))
    (home / "rotated.toml").write_text(EXPERIMENT)


def start_process(home: Path, client: str, *more: str) -> subprocess.Popen[bytes]:
    """The command that a person types."""
    words = ["peer", "rotated.toml", f"data.path={home / client}.npz", "--id", client, "--mailbox", "box"]
    words += ["--roster", "roster.toml", "--key", f"{client}.key", "--deadline", "30", "--out", f"run-{client}", *more]
    log = (home / f"{client}.log").open("ab")
    return subprocess.Popen(
        [sys.executable, "-c", PROGRAM, *words], cwd=home, stdout=log, stderr=log,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )  # fmt: skip


def records(home: Path, client: str) -> list[dict[str, Any]]:
    file = home / f"run-{client}" / "rounds.jsonl"
    return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []


def wait_for_round(home: Path, client: str, round: int, process: subprocess.Popen[bytes]) -> None:
    while len(records(home, client)) < round:
        assert process.poll() in (None, 0), (home / f"{client}.log").read_text()
        time.sleep(0.02)


def run_processes(home: Path, kill: str | None) -> dict[str, dict[str, torch.Tensor]]:
    """The participants' models after all processes have ended."""
    processes = {client: start_process(home, client) for client in MODELS}
    if kill is not None:
        wait_for_round(home, kill, 5, processes[kill])
        processes[kill].send_signal(signal.SIGKILL)
        processes[kill].wait()
        other = next(client for client in MODELS if client != kill)
        wait_for_round(home, other, 9, processes[other])
        processes[kill] = start_process(home, kill, "--resume")
    for client, process in processes.items():
        assert process.wait() == 0, (home / f"{client}.log").read_text()
    return {client: load_file(home / f"run-{client}" / "clients" / f"{client}.safetensors") for client in MODELS}


def simulate(parts: dict[str, Any], seed: Examples) -> dict[str, dict[str, torch.Tensor]]:
    """The same in one process."""
    rounds = coterie.federate(
        coterie.fedh2l(lr=0.05, local_steps=STEPS),
        {client: model_of(client, seed) for client in MODELS},
        {client: part.train for client, part in parts.items()},
        rounds=ROUNDS,
        seed_set=seed,
    )
    last = list(rounds)[-1]
    return {client: last.weights(client) for client in MODELS}


def model_of(client: str, seed: Examples) -> torch.nn.Module:
    return build(MODELS[client], list(seed.x.shape[1:]), 10, rng_seed=0)


def accuracies(weights: dict[str, dict[str, torch.Tensor]], parts: dict[str, Any], seed: Examples) -> dict[str, float]:
    """Means over participants, in percent: on all domains, on the own one, on the seed set."""
    matrix, on_seed = [], []
    for client, state in weights.items():
        model = model_of(client, seed)
        model.load_state_dict(state)
        matrix.append([accuracy(model, part.test) for part in parts.values()])
        on_seed.append(accuracy(model, seed))
    whole = torch.tensor(matrix)
    found = {"all": float(whole.mean()), "own": float(whole.diagonal().mean()), "seed": sum(on_seed) / len(on_seed)}
    return {name: round(value, 2) for name, value in found.items()}


@torch.no_grad()
def accuracy(model: torch.nn.Module, examples: Examples) -> float:
    x, y = examples.tensors()
    return 100 * float((model.eval()(x).argmax(1) == y).float().mean())


def main() -> None:
    torch.set_num_threads(1)
    for kill in (None, "50"):
        with TemporaryDirectory() as folder:
            home = Path(folder)
            write_data(home)
            write_keys(home)
            ours = run_processes(home, kill)
            parts = {client: load("npz", path=home / f"{client}.npz") for client in MODELS}
            arrays = np.load(home / "seed.npz")
            seed = Examples(torch.from_numpy(arrays["x"]), torch.from_numpy(arrays["y"]))
            counted = {client: [each["reached"] for each in records(home, client)] for client in MODELS}
            result = {"killed": kill, "processes": accuracies(ours, parts, seed), "counted": counted}
            if kill is None:
                one = simulate(parts, seed)
                gap = max(float((ours[c][n] - one[c][n]).abs().max()) for c in MODELS for n in one[c])
                result |= {"simulated": accuracies(one, parts, seed), "largest_difference_of_a_weight": gap}
        print(result, flush=True)
        with RESULTS.open("a") as file:
            file.write(json.dumps(result) + "\n")


if __name__ == "__main__":
    main()
