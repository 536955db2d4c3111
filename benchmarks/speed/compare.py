"""Seconds of one FedAvg round, coterie beside Flower, pfl-research and FedJAX, on the same work and in turns.

    python benchmarks/speed/compare.py [--model 2nn cnn resnet20 lstm] [--rounds 7]

Ten clients, E = 1, B = 10, plain SGD, random examples: 600 each of MNIST's shape for the 2NN and the CNN, 100 of
CIFAR-10's for ResNet-20 with BatchNorm, 60 texts of 80 characters for the LSTM. Every contestant is a process of its
own that has been started, warmed up by one round (in which some compile) and then waits. Rounds of all of them take
turns, so that a machine whose speed drifts slows all alike; medians count. A peer takes part if its environment is
there, see install_peers.sh. All of it takes about seven minutes on two cores (eight rounds of everyone, by the medians
in docs/speed.md), without peers less than half of that. A model's row in compare.jsonl replaces the one before;
report.py writes them into docs/speed.md.

The arithmetic rate beside it: 3 times the forward pass's floating-point operations over the rate of a 1024 x 1024
product on all cores at once, which no program can beat by much.
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
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import torch_models as work
from ours import model as our_model
from rich.console import Console
from rich.progress import track
from torch.utils.flop_counter import FlopCounterMode
from turns import MARK

HERE = Path(__file__).parent
RESULTS = HERE / "compare.jsonl"
VENVS = Path(os.environ.get("COTERIE_PEERS", HERE / "venvs"))
CORES = os.cpu_count() or 1
OURS = [sys.executable, str(HERE / "ours.py")]
COMPILED = {"2nn": ["--compile"], "cnn": ["--compile"], "resnet20": ["--compile"], "lstm": []}
"""What "auto" does in a run of some hundred rounds."""


@dataclass
class Contestant:
    """One program at the start, and the seconds of its rounds."""

    name: str
    command: list[str]
    seconds: list[float] = field(default_factory=list)
    first: float = 0.0
    peak: float = 0.0

    def start(self) -> bool:
        """Wait until it is ready; False if it cannot take part."""
        env = {**os.environ, "RAY_DEDUP_LOGS": "0", "FLWR_TELEMETRY_ENABLED": "0"}
        pipe = subprocess.PIPE
        self.process = subprocess.Popen(self.command, stdin=pipe, stdout=pipe, stderr=self._log(), text=True, env=env)
        return self._answer() is not None

    def _log(self) -> Any:
        path = Path(tempfile.gettempdir()) / f"compare-{self.name.replace(', ', '-').replace(' ', '-')}.log"
        return path.open("w")

    def round(self) -> float:
        """Ask for a round, and wait for it."""
        assert self.process.stdin is not None
        self.process.stdin.write("go\n")
        self.process.stdin.flush()
        answer = self._answer()
        if answer is None:
            raise RuntimeError(f"{self.name} has ended in the middle of a round")
        return float(answer["seconds"])

    def _answer(self) -> dict[str, Any] | None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if MARK in line:
                return dict(json.loads(line[line.index(MARK) + len(MARK) :]))
        return None

    def stop(self) -> None:
        """Note the memory that it took at most, its children included, and let it end."""
        self.peak = sum(map(peak, [self.process.pid, *children(self.process.pid)]))
        assert self.process.stdin is not None
        self.process.stdin.close()
        try:
            self.process.wait(30)
        except subprocess.TimeoutExpired:
            self.process.kill()


def contestants(model: str) -> list[Contestant]:
    """Everyone who can run this model here."""
    ours = [
        Contestant(f"coterie, {n} worker{'s' * (n > 1)}", [*OURS, model, "--workers", str(n), *COMPILED[model]])
        for n in dict.fromkeys((1, CORES))
    ]
    found = [
        Contestant(name, [str(VENVS / name.lower() / "bin" / "python"), str(HERE / f"peer_{name.lower()}.py"), model])
        for name in ("Flower", "pfl", "FedJAX")
        if name != "FedJAX" or model in ("2nn", "cnn")  # its models are functions without a state such as BatchNorm's
    ]
    return ours + [peer for peer in found if Path(peer.command[0]).exists()]


def children(pid: int) -> list[int]:
    """All processes below one."""
    try:
        own = [int(p) for p in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []
    return own + [below for child in own for below in children(child)]


def peak(pid: int) -> float:
    """The most memory that a process has taken, in MB. What processes share counts in each of them."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0.0
    return sum(float(line.split()[1]) / 1000 for line in lines if line.startswith("VmHWM"))


def gemm_rate(seconds: float = 1.0) -> float:
    """Floating-point operations a second of 1024 x 1024 products, one process with one thread on every core."""
    code = (
        "import time, torch; torch.set_num_threads(1); a = torch.rand(1024, 1024); a @ a\n"
        "n, t = 0, time.perf_counter()\n"
        f"while time.perf_counter() - t < {seconds}: a @ a; n += 1\n"
        "print(n * 2 * 1024**3 / (time.perf_counter() - t))"
    )
    running = [subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) for _ in range(CORES)]
    return sum(float(each.communicate()[0]) for each in running)


def operations(model: str) -> float:
    """Floating-point operations of a round: three forward passes for each example."""
    module, (x, _) = our_model(model), work.examples(model, 0)
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        module.eval()(x[:2])
    lstm = 2 * work.UNROLL * 4 * 256 * (8 + 3 * 256) if model == "lstm" else 0  # which the counter does not know
    return 3 * work.CLIENTS * work.EXAMPLES[model] * (counter.get_total_flops() / 2 + lstm)


def measure(model: str, rounds: int) -> dict[str, Any]:
    """One model's comparison."""
    entered = contestants(model)
    missing = {"Flower", "pfl", "FedJAX"} - {c.name for c in entered}
    if missing:
        print(f"{model}: without {', '.join(sorted(missing))}: not installed in {VENVS}, or cannot run this model")
    running = [contestant for contestant in entered if contestant.start()]
    for contestant in running:
        contestant.first = contestant.round()
    for _ in track(range(rounds), f"{model}: {', '.join(c.name for c in running)}"):
        for contestant in running:
            contestant.seconds.append(contestant.round())
    for contestant in running:
        contestant.stop()
    rate = gemm_rate()
    return {
        "model": model,
        "contestants": [
            {
                "name": c.name,
                "seconds": statistics.median(c.seconds),
                "all": [round(s, 4) for s in c.seconds],
                "first": round(c.first, 2),
                "peak_mb": round(c.peak),
            }
            for c in running
        ],
        "operations": operations(model),
        "gemm_rate": rate,
        "cores": CORES,
        "torch": torch.__version__,
        "date": time.strftime("%Y-%m-%d"),
        "command": f"python benchmarks/speed/compare.py --model {model} --rounds {rounds}",
        "load": os.getloadavg()[0],
    }


def main() -> None:
    """Compare, model by model, and keep each result at once."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", nargs="*", default=list(work.EXAMPLES), choices=list(work.EXAMPLES))
    parser.add_argument("--rounds", type=int, default=7)
    chosen = parser.parse_args()
    for model in chosen.model:
        row = measure(model, chosen.rounds)
        kept = RESULTS.read_text().splitlines() if RESULTS.exists() else []
        lines = [line for line in kept if json.loads(line)["model"] != model] + [json.dumps(row)]
        RESULTS.write_text("\n".join(lines) + "\n")
        from report import table

        Console().print(table(row))


if __name__ == "__main__":
    main()
