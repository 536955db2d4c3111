"""Print why.jsonl as Markdown and draw it as SVG: drift by start and partition, and the loss between final models.

    python benchmarks/pretrain/why_report.py [RESULTS] [--figure FILE.svg]

The first table has the means over the probed rounds of a federation. The second has the barrier between two final
models of one start, which is how far the loss rises above the chord. Both are means over rng seeds. The figure shows
the loss along those lines for the first rng seed. A missing row is a dash.
"""

from __future__ import annotations

import argparse
import json
from itertools import combinations
from pathlib import Path
from statistics import fmean
from typing import Any

from matplotlib.figure import Figure
from report import table

HERE = Path(__file__).resolve().parent
CONDITIONS = ("dirichlet 0.1", "dirichlet 0.3", "iid")
PROBES = ("dispersion", "distance", "cosine", "diversity", "direction", "gain", "travelled")

Entries = list[dict[str, Any]]


def read_entries(path: Path) -> Entries:
    """Read the finished rows with their results; a start is "random" or "pre-trained"."""
    read = [json.loads(line) for line in path.read_text().splitlines()]
    return [{**e["row"], **e["result"], "start": _start(e["row"]["start"])} for e in read]


def _start(name: str) -> str:
    return "random" if name == "random" else "pre-trained"


def starts(found: Entries) -> list[str]:
    """Return the starts in the rows, random weights first."""
    return sorted({e["start"] for e in found}, key=lambda name: name != "random")


def mean(found: Entries, what: str, **same: Any) -> str:
    """Return the mean of a number over the rows with the values `same`; a dash where there is none."""
    values = [e[what] for e in found if all(e.get(k) == v for k, v in same.items()) and e.get(what) is not None]
    return f"{fmean(values):.3g}" if values else "–"


def drift(found: Entries) -> str:
    """Return the table of drift, with a line for each start and partition."""
    what = ("test_accuracy", *PROBES)
    return table(
        ["start", "partition", "test accuracy", *PROBES],
        [
            [
                start,
                c,
                *(mean(found, name, kind="federation", start=start, condition=c) for name in what),
            ]
            for start in starts(found)
            for c in CONDITIONS
        ],
    )


def barriers(found: Entries) -> str:
    """Return the table of barriers between final models and of the curvature at the start, a line for each start."""
    pairs = list(combinations(CONDITIONS, 2))
    return table(
        ["start", *(" to ".join(pair) for pair in pairs), "top Hessian eigenvalue at the start"],
        [
            [
                start,
                *(mean(found, "barrier", kind="line", start=start, between=list(pair)) for pair in pairs),
                mean(found, "value", kind="curvature", start=start),
            ]
            for start in starts(found)
        ],
    )


def figure(found: Entries) -> Figure:
    """Draw the test loss along the line between every two final models, a panel for each pair."""
    drawing = Figure(figsize=(9, 3), layout="constrained")
    pairs = list(combinations(CONDITIONS, 2))
    for axes, (a, b) in zip(drawing.subplots(1, len(pairs), sharey=True), pairs, strict=True):
        for e in found:
            if e["kind"] == "line" and e["between"] == [a, b] and e["rng_seed"] == 0:
                axes.plot(e["t"], e["loss"], label=e["start"])
        axes.set(xlabel=f"{a} at 0, {b} at 1", xlim=(-0.2, 1.2))
        axes.axvspan(0, 1, color="0.95", zorder=0)
    drawing.axes[0].set_ylabel("test loss")
    drawing.axes[0].legend(frameon=False)
    return drawing


def main() -> None:
    """Print the tables, and draw the figure where a file is named for it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("results", nargs="?", type=Path, default=HERE / "why.jsonl")
    parser.add_argument("--figure", type=Path)
    chosen = parser.parse_args()
    found = read_entries(chosen.results)
    print(drift(found), barriers(found), sep="\n\n")
    if chosen.figure:
        figure(found).savefig(chosen.figure, format="svg", metadata={"Date": None})


if __name__ == "__main__":
    main()
