"""What a population and a cohort cost: seconds of a round and memory, each row in a process of its own.

    python benchmarks/speed/populations.py

Clients: 10^2 to 10^6 of the synthetic source, ten of which are asked in a round, with FedAvg and with SCAFFOLD, whose
clients keep a state. Cohort: 10, 100 and 1,000 of 10^4 clients, with both engines. Medians of twenty rounds after
three. Memory is the most that the process took. Writes populations.json.
"""

from __future__ import annotations

import json
import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import torch

RESULTS = Path(__file__).with_name("populations.json")
ROWS: list[dict[str, Any]] = [
    *({"clients": 10**n, "cohort": 10, "algorithm": name} for name in ("fedavg", "scaffold") for n in range(2, 7)),
    *({"clients": 10**4, "cohort": n, "engine": e} for e in ("sequential", "vectorised") for n in (10, 100, 1000)),
]


def run(clients: int, cohort: int, algorithm: str = "fedavg", engine: str = "sequential") -> dict[str, float]:
    """One row, measured in this process."""
    import coterie
    from coterie.data import deal, load
    from coterie.engines.sequential import Sequential
    from coterie.engines.vectorised import Vectorised
    from coterie.models.registry import build

    torch.set_num_threads(1)
    source = load("synthetic", num_clients=clients, examples_per_client=50)
    recipe = {"fedavg": coterie.fedavg, "scaffold": coterie.scaffold}[algorithm](lr=0.05, batch_size=10)
    model = build("mlp", tuple(source.train.x.shape[1:]), source.num_classes, 0)
    runs = {"sequential": Sequential, "vectorised": Vectorised}[engine]()
    began = time.perf_counter()
    federation = coterie.federate(recipe, model, deal(source), rounds=23, cohort=cohort, engine=runs)
    seconds = [round.seconds for round in federation]
    return {
        "seconds": statistics.median(seconds[3:]),
        "start": time.perf_counter() - began - sum(seconds),
        "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }


def main() -> None:
    """Every row, as a line and in the file."""
    if len(sys.argv) > 1:
        print(json.dumps(run(**json.loads(sys.argv[1]))))
        return
    found = []
    for row in ROWS:
        done = subprocess.run(
            [sys.executable, __file__, json.dumps(row)], check=True, stdout=subprocess.PIPE, text=True
        )
        found.append({**row, **json.loads(done.stdout.splitlines()[-1])})
        print(json.dumps(found[-1]), flush=True)
    facts = {"command": "python benchmarks/speed/populations.py", "date": time.strftime("%Y-%m-%d")}
    RESULTS.write_text(json.dumps({**facts, "torch": torch.__version__, "rows": found}, indent=1) + "\n")


if __name__ == "__main__":
    main()
