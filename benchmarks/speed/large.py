"""What a model of 100 million parameters costs in memory: how many copies of it a run holds at most.

    python benchmarks/speed/large.py [--parameters 100e6] [--clients 4]

FedAvg, four clients, each with one step on a batch of eight, three rounds, one thread: from Python by `federate`, and
as `coterie run` does it, with checkpoints and an evaluation. Each row has a process of its own, and so has the same
with a model of a thousand parameters. Copies are the difference of the most that the two took, in multiples of the
model's bytes.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
from pathlib import Path

WAYS = ("federate", "run")
ROUNDS = 3


def width_for(parameters: float) -> int:
    """Return the width of the three hidden layers with about as many parameters as asked: 2 w^2 + 797 w."""
    return max(1, round(((797**2 + 8 * parameters) ** 0.5 - 797) / 4))


def measure(way: str, parameters: float, clients: int) -> dict[str, float]:
    """Run three rounds in this process; return the bytes of the model, and the most that the process took."""
    import torch

    torch.set_num_threads(1)
    hidden = [width_for(parameters)] * 3
    with tempfile.TemporaryDirectory() as folder:
        size = run_from_python(hidden, clients) if way == "federate" else run_as_command(hidden, clients, Path(folder))
    return {"model": size, "peak": 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss}


def run_from_python(hidden: list[int], clients: int) -> int:
    """Run the federation by `federate`; return the bytes of its weights."""
    import torch

    import coterie
    from coterie.models.registry import build

    g = torch.Generator().manual_seed(0)
    x, y = torch.rand(8 * clients, 784, generator=g), torch.randint(10, (8 * clients,), generator=g)
    held = {str(k): coterie.Examples(x, y, rows) for k, rows in enumerate(torch.arange(len(x)).split(8))}
    recipe = coterie.fedavg(lr=0.01, batch_size=8, local_steps=1)
    model = build("mlp", (784,), 10, 0, hidden=hidden)
    for round in coterie.federate(recipe, model, held, rounds=ROUNDS):
        assert round.reached == clients
        del round
    return sum(p.numel() * p.element_size() for p in model.parameters())


def run_as_command(hidden: list[int], clients: int, folder: Path) -> int:
    """Run it as the command does, into a folder; return the bytes of the file with the weights that it leaves."""
    from coterie.experiment.run import run
    from coterie.experiment.settings import load_settings

    path = folder / "large.toml"
    path.write_text(
        f"rounds = {ROUNDS}\n[data]\nsource = 'synthetic'\nnum_clients = {clients}\nexamples_per_client = 8\n"
        f"num_features = 784\n[model]\nname = 'mlp'\nhidden = {hidden}\n"
        "[algorithm]\nname = 'fedavg'\nlr = 0.01\nbatch_size = 8\nlocal_steps = 1\n"
        "[engine]\nname = 'sequential'\ncompile = false\nworkers = 1\nthreads = 1\n"
    )
    done = run(load_settings(path), folder / "run")
    return (done.folder / "model.safetensors").stat().st_size


def count_copies(way: str, parameters: float, clients: int) -> tuple[float, float, float]:
    """Return the model's bytes, the most that a run took beyond one with a tiny model, and that in copies of it."""

    def in_process(size: float) -> dict[str, float]:
        options = json.dumps({"way": way, "parameters": size, "clients": clients})
        done = subprocess.run([sys.executable, __file__, "--row", options], check=True, stdout=subprocess.PIPE)
        found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
        return found

    large, tiny = in_process(parameters), in_process(1e3)
    more = large["peak"] - tiny["peak"]
    return large["model"], more, more / large["model"]


def main() -> None:
    """Print a line for each way."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parameters", type=float, default=100e6)
    parser.add_argument("--clients", type=int, default=4)
    parser.add_argument("--row", help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.row:
        print(json.dumps(measure(**json.loads(chosen.row))))
        return
    for way in WAYS:
        size, more, copies = count_copies(way, chosen.parameters, chosen.clients)
        print(
            f"{way:10} a model of {size / 1e6:,.0f} MB, {chosen.clients} clients: {more / 1e6:,.0f} MB more than a "
            f"tiny model, {copies:.1f} copies",
            flush=True,
        )


if __name__ == "__main__":
    main()
