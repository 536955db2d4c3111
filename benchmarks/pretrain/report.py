"""Print the tables of table.jsonl as Markdown, and draw its figure as SVG.

    python benchmarks/pretrain/report.py [RESULTS] [--figure FILE.svg]

There is one table for each question: what each start brings under each partition, and how far federated training stays
behind centralized training; what more minutes of fractals bring; whether a better start and a better algorithm add up.
A number is the mean over rng seeds of the last test accuracy, followed by the sample deviation and the number of seeds.
In every cell the first seed chose the learning rate, by the same test images. A cell without runs is a dash.
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections import defaultdict
from pathlib import Path
from typing import NamedTuple

from matplotlib.figure import Figure

HERE = Path(__file__).resolve().parent
PARTITIONS = ("dirichlet 0.1", "dirichlet 0.3", "iid")
MINUTES = {"random": 0, "fps5": 5, "fps15": 15, "fps30": 30}


class Value(NamedTuple):
    """The test accuracy of a cell."""

    mean: float
    deviation: float | None
    number: int

    def __str__(self) -> str:
        spread = "" if self.deviation is None else f" ± {100 * self.deviation:.1f}"
        return f"{100 * self.mean:.1f}{spread} ({self.number})"


Values = dict[tuple[str, str, str], Value]
"""(start, partition, algorithm) -> its value, at the rate that was best for rng seed 0."""


def read_values(path: Path) -> Values:
    """Read the values of all cells with a run."""
    runs: dict[tuple[str, str, str], dict[int, dict[int, float]]] = defaultdict(lambda: defaultdict(dict))
    for line in path.read_text().splitlines():
        row = json.loads(line)
        cell = (row["start"], row["partition"], row["algorithm"])
        runs[cell][row["exponent"]][row["rng_seed"]] = row["test_accuracy"] or 0.0
    return {cell: _value(by_rate) for cell, by_rate in runs.items()}


def _value(by_rate: dict[int, dict[int, float]]) -> Value:
    best = max(by_rate.values(), key=lambda seeds: (seeds.get(0, 0.0), len(seeds)))
    found = list(best.values())
    return Value(statistics.mean(found), statistics.stdev(found) if len(found) > 1 else None, len(found))


def table(head: list[str], rows: list[list[str]]) -> str:
    """Return rows as a Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def headline(found: Values) -> str:
    """Return the table of starts against partitions, beside centralized training from the same start."""
    rows = []
    for start in ("random", "fps15", "fedssl", "fps15+fedssl"):
        cells = [found.get((start, partition, "fedavg")) for partition in PARTITIONS]
        pooled = found.get((start, "iid", "centralized"))
        gap = f"{100 * (pooled.mean - cells[0].mean):.1f}" if pooled and cells[0] else "-"
        rows.append([start, *(str(cell or "-") for cell in cells), str(pooled or "-"), gap])
    return table(["start", *PARTITIONS, "centralized", "gap under dirichlet 0.1"], rows)


def by_time(found: Values) -> str:
    """Return the table of minutes of fractals against partitions."""
    rows = [
        [str(minutes), *(str(found.get((start, partition, "fedavg"), "-")) for partition in ("dirichlet 0.1", "iid"))]
        for start, minutes in MINUTES.items()
    ]
    return table(["minutes of fractals", "dirichlet 0.1", "iid"], rows)


def by_algorithm(found: Values) -> str:
    """Return the table of algorithms against starts, under Dirichlet 0.1."""
    rows = [
        [name, *(str(found.get((start, "dirichlet 0.1", name), "-")) for start in ("random", "fps15"))]
        for name in ("fedavg", "fedprox", "scaffold", "feddyn", "fedadam")
    ]
    return table(["algorithm", "random", "fps15"], rows)


def figure(found: Values) -> Figure:
    """Draw test accuracy against minutes of fractals."""
    drawing = Figure(figsize=(5, 3.2), layout="constrained")
    axes = drawing.add_subplot()
    for partition in ("dirichlet 0.1", "iid"):
        points = [(m, found[s, partition, "fedavg"]) for s, m in MINUTES.items() if (s, partition, "fedavg") in found]
        means, deviations = [100 * v.mean for _, v in points], [100 * (v.deviation or 0) for _, v in points]
        axes.errorbar([m for m, _ in points], means, deviations, marker="o", capsize=3, label=partition)
    axes.set_xlabel("minutes of fractals")
    axes.set_ylabel("test accuracy, %")
    axes.legend(frameon=False)
    return drawing


def main() -> None:
    """Print the tables, and draw the figure where a file is named for it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("results", nargs="?", type=Path, default=HERE / "table.jsonl")
    parser.add_argument("--figure", type=Path)
    chosen = parser.parse_args()
    found = read_values(chosen.results)
    print("\n\n".join([headline(found), by_time(found), by_algorithm(found)]))
    if chosen.figure:
        figure(found).savefig(chosen.figure, format="svg", metadata={"Date": None})


if __name__ == "__main__":
    main()
