"""Memory at the coordinator while the answers of many silos are added: coterie, and the FedAvg of Flower and NVFlare.

    python3 -m venv flower && flower/bin/pip install flwr==1.42.0 torch==2.13.0
    python benchmarks/deploy/memory.py --flower flower/bin [--systems coterie flower nvflare] [--silos 3 30] [--mb 25]

No silo runs. Every answer is made when it is wanted and has the same numbers, so that only what the coordinator keeps
counts. Each case is a process of its own and a line of memory.jsonl, and is not run again. The memory is the process's
peak above what it was before the round. coterie gets the answers in the worst order, the last client first. What the
libraries' transports hold beside this is not in it.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import torch
from torch import nn

RESULTS = Path(__file__).with_name("memory.jsonl")


def peak_mib() -> float:
    """Return the most memory that this process has had, in MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def layer(mb: int) -> nn.Linear:
    """Return a layer whose weights take so many MB."""
    return nn.Linear(250_000, mb, bias=False)


def measure_coterie(silos: int, mb: int) -> float:
    """Run one round of `coordinate` with answers that are made up."""
    from dataclasses import replace

    import coterie
    from coterie import Evaluation, Examples
    from coterie.core.packing import pack
    from coterie.silos.coordinate import coordinate
    from coterie.silos.counts import CountedClients
    from coterie.silos.letters import Result, Run, answer_work, experiment_digest

    ids = [f"{k:02d}" for k in range(silos)]
    row = Examples(torch.zeros(1, 250_000), torch.zeros(1, dtype=torch.int64))
    recipe, model = coterie.fedavg(lr=0.1, batch_size=1), layer(mb)
    plan = coterie.plan(recipe, model, dict.fromkeys(ids, row), rounds=1, num_classes=mb)
    plan = replace(plan, clients=CountedClients(dict.fromkeys(ids, 1)), evaluation=Evaluation())
    run = Run("run", experiment_digest(plan, ""))

    class MadeUp:
        """A carrier with all silos, whose answers come last client first."""

        def sites(self) -> list[str]:
            return ids

        def ask(self, messages: Mapping[str, bytes], deadline: float) -> Iterator[tuple[str, bytes]]:
            for client in reversed(list(messages)):
                update = {"delta": {"params": {"weight": torch.full((mb, 250_000), 0.001)}, "buffers": {}}}
                result = Result(
                    client,
                    None,
                    pack(update),
                    {"examples": 1.0, "processed": 1.0, "one": 1.0},
                    {"loss": 1.0, "count": 1.0},
                )
                yield client, answer_work(run, messages[client], [result])

        def renew(self) -> None: ...

        def close(self) -> None: ...

    before = peak_mib()
    for round in coordinate(plan, MadeUp(), save_models=False):
        assert round.reached == silos, round.dropped
    return peak_mib() - before


def measure_flower(silos: int, mb: int) -> float:
    """Let Flower's FedAvg aggregate one round's replies, which its driver hands over as a list."""
    from flwr.app import ArrayRecord, Message, MetricRecord, RecordDict
    from flwr.serverapp.strategy import FedAvg
    from flwr.supercore.task_identity import TaskIdentity

    def reply(k: int) -> Message:
        ask = Message(RecordDict(), dst_node_id=k + 1, message_type="train")
        arrays = ArrayRecord({"weight": torch.full((mb, 250_000), 0.001)})
        return Message(RecordDict({"arrays": arrays, "metrics": MetricRecord({"num-examples": 1})}), reply_to=ask)

    TaskIdentity.run_id = TaskIdentity.task_id = TaskIdentity.node_id = 1
    strategy, model = FedAvg(), layer(mb)
    before = peak_mib()
    arrays, _ = strategy.aggregate_train(1, [reply(k) for k in range(silos)])
    assert arrays is not None
    model.load_state_dict(arrays.to_torch_state_dict())
    return peak_mib() - before


def measure_nvflare(silos: int, mb: int) -> float:
    """Let the helper of NVFlare's FedAvg add one round's results, each as it arrives."""
    from nvflare.app_common.aggregators.weighted_aggregation_helper import WeightedAggregationHelper

    helper, model = WeightedAggregationHelper(), layer(mb)
    before = peak_mib()
    for k in range(silos):
        helper.add({"weight": torch.full((mb, 250_000), 0.001)}, 1.0, str(k), 1)
    model.load_state_dict(helper.get_result())
    return peak_mib() - before


MEASURES = {"coterie": measure_coterie, "flower": measure_flower, "nvflare": measure_nvflare}


def main() -> None:
    """Run the cases that are not in memory.jsonl, and print the table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--systems", nargs="+", default=list(MEASURES))
    parser.add_argument("--silos", nargs="+", type=int, default=[3, 30])
    parser.add_argument("--mb", type=int, default=25)
    parser.add_argument("--flower", type=Path, default=Path("flower/bin"), help="the folder with Flower's programs")
    parser.add_argument("--one", nargs=2)
    given = parser.parse_args()
    if given.one:
        system, silos = given.one
        print(MEASURES[system](int(silos), given.mb))
        return
    rows = [json.loads(line) for line in RESULTS.read_text().splitlines()] if RESULTS.exists() else []
    for system in given.systems:
        for silos in given.silos:
            key = {"system": system, "silos": silos, "mb": given.mb}
            if any(key.items() <= row.items() for row in rows):
                continue
            python = str(given.flower.absolute() / "python") if system == "flower" else sys.executable
            command = [python, __file__, "--mb", str(given.mb), "--one", system, str(silos)]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            if done.returncode:
                print(f"{system} could not run: {done.stderr.strip().splitlines()[-1]}")
                continue
            rows.append(key | {"mib": round(float(done.stdout.split()[-1]))})
            with RESULTS.open("a") as file:
                file.write(json.dumps(rows[-1]) + "\n")
    print("| MB per message | silos | " + " | ".join(MEASURES) + " |")
    print("|---" * (2 + len(MEASURES)) + "|")
    for silos in given.silos:
        found = {row["system"]: row["mib"] for row in rows if (row["silos"], row["mb"]) == (silos, given.mb)}
        print(f"| {given.mb} | {silos} | " + " | ".join(f"{found.get(name, 'not run')}" for name in MEASURES) + " |")


if __name__ == "__main__":
    main()
