"""Milliseconds of a FedAvg round in which the clients do nothing: what the library itself costs.

    python benchmarks/speed/idle.py [--clients 10] [--rounds 60]

Ten clients of 600 examples and the 2NN (199,210 parameters). A step leaves the carry as it is; the rest is a round as
ever: cohort, keys, context, the checks of every update, the weighted mean, the server's update, the record. No
checkpoint, no evaluation, one thread. Prints the median over all rounds but the first five.
"""

from __future__ import annotations

import argparse
import statistics
from dataclasses import replace

import torch

import coterie
from coterie.core.algorithm import Algorithm
from coterie.core.task import Task
from coterie.models.registry import build


def idle(task: Task) -> Algorithm:
    """FedAvg without its work."""
    algorithm = coterie.fedavg(lr=0.05, batch_size=10, local_steps=1)(task)
    facts = {"loss": torch.zeros(()), "count": torch.ones(())}
    return replace(algorithm, client=replace(algorithm.client, step=lambda carry, batches, ctx: (carry, facts)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clients", type=int, default=10)
    parser.add_argument("--rounds", type=int, default=60)
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    n, g = 600 * chosen.clients, torch.Generator().manual_seed(0)
    x, y = torch.rand(n, 1, 28, 28, generator=g), torch.randint(10, (n,), generator=g)
    clients = {str(k): coterie.Examples(x, y, rows) for k, rows in enumerate(torch.arange(n).split(600))}
    rounds = coterie.federate(idle, build("2nn", (1, 28, 28), 10, 0), clients, rounds=chosen.rounds)
    print(f"{1000 * statistics.median([round.seconds for round in rounds][5:]):.2f} ms")


if __name__ == "__main__":
    main()
