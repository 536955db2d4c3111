"""A coordinator or a silo of a small federation in a process of its own, for tests between hosts.

    python -m tests.deploy.party coordinator PROJECT OUT [OPTIONS]
    python -m tests.deploy.party silo KIT FOLDER [OPTIONS]
    python -m tests.deploy.party simulation OUT [OPTIONS]

Options: --rounds, --hidden (units), --batch; of the coordinator also --pause, --timeout (seconds) and --quorum.

FedAvg on digits, dealt to north, south and west. A coordinator prints a line of JSON for each round, and writes the
weights into OUT in the end, as the simulation does. Each ends with its standard input.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import coterie
from coterie import Evaluation, Plan
from coterie.core import tree
from coterie.core.files import write_atomic
from coterie.core.packing import pack
from coterie.data import deal, load
from coterie.loop.federate import federate
from coterie.models import build
from coterie.silos.coordinate import coordinate
from coterie.silos.counts import CountedClients
from coterie.silos.nvflare_carrier import NVFlareCoordinator
from coterie.silos.nvflare_silo import NVFlareSilo
from coterie.silos.silo import Silo

NAMES = ("north", "south", "west")
LARGEST = 512 * 2**20


def plan_of(given: argparse.Namespace, names: tuple[str, ...]) -> Plan:
    """Return the plan of those who hold these clients."""
    digits = load("digits")
    dealt = deal(digits, partition="iid", num_clients=len(NAMES), rng_seed=0)
    clients = {name: data for name, data in zip(NAMES, dealt.values(), strict=True) if name in names}
    model = build("mlp", (1, 8, 8), 10, rng_seed=0, hidden=[given.hidden])
    recipe = coterie.fedavg(lr=0.1, batch_size=given.batch)
    return coterie.plan(recipe, model, clients, rounds=given.rounds, rng_seed=0)


def run_coordinator(given: argparse.Namespace) -> None:
    """Print each round, then write the weights."""
    plan = plan_of(given, NAMES)
    counts = CountedClients({client: len(plan.clients[client]) for client in plan.ids})
    plan = replace(plan, clients=counts, evaluation=Evaluation())
    with NVFlareCoordinator(given.project, quorum=given.quorum, max_bytes=LARGEST, say=say) as carrier:
        ends = time.monotonic() + 90.0
        while carrier.sites() != NAMES and time.monotonic() < ends:
            time.sleep(0.2)
        began = time.monotonic()
        rounds = coordinate(
            plan, carrier, min_clients=given.quorum, round_timeout=given.timeout, say=say, save_models=False
        )
        for round in rounds:
            now, used = time.monotonic(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
            line: dict[str, Any] = {"round": round.round, "reached": round.reached, "dropped": round.dropped}
            print(json.dumps(line | {"seconds": round.seconds, "at": now - began, "mib": used}), flush=True)
            last = round
            time.sleep(given.pause)
        write_weights(given.out, last.state)


def run_silo(given: argparse.Namespace) -> None:
    """Answer until standard input is closed."""
    name = given.kit.name
    with NVFlareSilo(given.kit, max_bytes=LARGEST, say=say) as carrier:
        carrier.serve(Silo(plan_of(given, (name,)), given.folder, say=lambda _: None))


def run_simulation(given: argparse.Namespace) -> None:
    """Write the weights of the simulation."""
    *_, last = federate(plan_of(given, NAMES))
    write_weights(given.out, last.state)


def write_weights(out: Path, state: tree.Tree) -> None:
    """Write a server state."""
    write_atomic(out, pack(state))


def say(sentence: str) -> None:
    """Print a sentence that is no round."""
    print(f"# {sentence}", flush=True)


def end_with_input() -> None:
    """End this process when whoever started it is done with it."""
    while sys.stdin.readline():
        pass
    os._exit(0)  # NVFlare's processes end with this one


def main() -> None:
    """Run one party."""
    parser = argparse.ArgumentParser()
    kinds = parser.add_subparsers(dest="kind", required=True)
    for kind, paths in (("coordinator", "project out"), ("silo", "kit folder"), ("simulation", "out")):
        one = kinds.add_parser(kind)
        for path in paths.split():
            one.add_argument(path, type=Path)
        one.add_argument("--rounds", type=int, default=3)
        one.add_argument("--hidden", type=int, default=32)
        one.add_argument("--batch", type=int, default=32)
        one.add_argument("--pause", type=float, default=0.0)
        one.add_argument("--timeout", type=float, default=60.0)
        one.add_argument("--quorum", type=int, default=2)
    given = parser.parse_args()
    threading.Thread(target=end_with_input, daemon=True).start()
    {"coordinator": run_coordinator, "silo": run_silo, "simulation": run_simulation}[given.kind](given)


if __name__ == "__main__":
    main()
