"""coterie's contestant: `python ours.py MODEL --workers 2 [--compile] [--engine vectorised]`; see `turns.py`."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterator

import torch
import torch_models as work
from turns import take_turns

import coterie
from coterie.core.engine import Engine
from coterie.engines.sequential import Sequential
from coterie.engines.vectorised import Vectorised
from coterie.loop.plan import Round
from coterie.models.registry import build
from coterie.processes.spawn import run_in_processes
from coterie.processes.team import Team


def model(name: str) -> torch.nn.Module:
    """The registry's model of that name, for the work's examples."""
    if name == "lstm":
        return build("char_lstm", [work.UNROLL], work.CHARACTERS, 0, peepholes=False)
    return build(name, [3, 32, 32] if name == "resnet20" else [1, 28, 28], 10, 0)


def rounds(name: str, engine: Engine, team: Team) -> Iterator[Round]:
    """FedAvg on the work of the comparison."""
    clients = {str(k): coterie.Examples(*work.examples(name, k)) for k in range(work.CLIENTS)}
    recipe = coterie.fedavg(lr=work.LR, batch_size=work.BATCH)
    torch.manual_seed(0)
    return coterie.federate(recipe, model(name), clients, rounds=10_000, engine=engine, team=team)


def run(team: Team, name: str, compiled: bool, vectorised: bool) -> None:
    """What every process does; the first one takes turns, the others follow it."""
    engine: Engine = Vectorised(compile=compiled) if vectorised else Sequential(compile=compiled)
    going = rounds(name, engine, team)
    if team.rank > 0:
        for _ in going:
            pass
    take_turns(lambda: next(going))
    sys.stdout.flush()
    os._exit(0)  # the others wait for a round that will not come; they end with this process


def main() -> None:
    """Take turns until nobody asks any more."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", choices=list(work.EXAMPLES))
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--vectorised", action="store_true")
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    run_in_processes(chosen.workers, run, chosen.model, chosen.compile, chosen.vectorised)


if __name__ == "__main__":
    main()
