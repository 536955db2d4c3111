"""Measure the report of a long run: ten thousand rounds, a hundred clients, 19 layers and every probe.

The numbers are drawn at random, so curves are as uneven as they can be.

    python benchmarks/report/measure.py [--rounds N] [--clients N]
"""

from __future__ import annotations

import argparse
import json
import random
import tempfile
import time
from pathlib import Path

from coterie.report import read_run, write_report
from coterie.report.probe_charts import PROBE_CHARTS

CONFIG = """
rounds = {rounds}
[data]
source = "digits"
partition = "label"
[model]
name = "mlp"
[algorithm]
name = "fbn"
lr = 0.1
[evaluate]
target_accuracy = 0.9
"""
LABELS = 10
LAYERS = 19


def write_folder(path: Path, rounds: int, clients: int) -> Path:
    """Write the folder of a finished run, and return its path."""
    rng = random.Random(0)
    path.mkdir()
    (path / "config.toml").write_text(CONFIG.format(rounds=rounds))
    records = (record(k, rounds, clients, rng) for k in range(1, rounds + 1))
    (path / "rounds.jsonl").write_text("".join(json.dumps(each) + "\n" for each in records))
    counts = [{str(label): rng.randint(1, 60) for label in range(LABELS)} for _ in range(clients)]
    each = [{"id": str(k), "examples": sum(c.values()), "label_counts": c} for k, c in enumerate(counts)]
    (path / "clients.json").write_text(json.dumps(each))
    (path / "summary.json").write_text(json.dumps(read_run(path).end))
    return path


def record(k: int, rounds: int, clients: int, rng: random.Random) -> dict[str, object]:
    """Return the record of round k."""
    late = [{"client": str(rng.randrange(clients)), "why": "straggled"}] if rng.random() < 0.1 else []
    found: dict[str, object] = {"round": k, "seconds": 0.5, "elapsed": 0.75 * k, "cohort_size": clients}
    found |= {"reached": clients - len(late), "dropped": late, "bytes_up": 1_000_000, "bytes_down": 2_000_000}
    found |= {"train_loss": rng.random() + 3 / k**0.5, "test_loss": rng.random() + 3 / k**0.5}
    found |= {"test_accuracy": 0.9 * k / rounds + 0.1 * rng.random(), "own_test_accuracy": rng.random()}
    found["own_test_accuracy_worst_tenth"] = 0.1
    found |= {f"{name}.layer{j}": (j + 1) * rng.random() for j in range(LAYERS) for name in ("shift", "drift")}
    found |= {f"probe.{name}": rng.random() for chart in PROBE_CHARTS for name in chart.lines}
    if k == rounds:
        own = {"examples": 10, "test_loss": 1.0, "test_accuracy": 0.5}
        found["own_tests"] = {str(client): own for client in range(clients)}
    return found


def main() -> None:
    """Write the folder and its report, and print the report's size and the time that it took."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=10_000)
    parser.add_argument("--clients", type=int, default=100)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        folder = write_folder(Path(place) / "run", given.rounds, given.clients)
        began = time.perf_counter()
        page = write_report(folder)
        seconds = time.perf_counter() - began
        print(
            f"{given.rounds:,} rounds, {given.clients} clients: {page.stat().st_size / 1e6:.2f} MB in {seconds:.1f} s"
        )


if __name__ == "__main__":
    main()
