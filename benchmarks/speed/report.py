"""The comparison as a table: in a terminal, and in docs/speed.md between its markers.

python benchmarks/speed/report.py
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from rich.table import Table

HERE = Path(__file__).parent
PAGE = HERE.parents[1] / "docs" / "speed.md"
START, END = "<!-- comparison: written by benchmarks/speed/report.py -->", "<!-- end of comparison -->"
TITLES = {
    "2nn": "2NN, 10 clients x 600 images of 28 x 28",
    "cnn": "CNN (1,663,370 parameters), 10 clients x 600 images of 28 x 28",
    "resnet20": "ResNet-20 with BatchNorm, 10 clients x 100 images of 3 x 32 x 32",
    "lstm": "LSTM (embedding 8, 2 x 256), 10 clients x 60 texts of 80 characters",
}
HEAD = (
    "program",
    "s / round",
    "times coterie's",
    "of the GEMM rate",
    "first round, s",
    "peak memory, MB",
)


def cells(row: dict[str, Any]) -> list[tuple[str, ...]]:
    """One line for each contestant; ratios are to the fastest of ours."""
    best = min(c["seconds"] for c in row["contestants"] if c["name"].startswith("coterie"))
    return [
        (
            c["name"],
            f"{c['seconds']:.3f}",
            f"{c['seconds'] / best:.2f}",
            f"{row['operations'] / c['seconds'] / row['gemm_rate']:.0%}",
            f"{c['first']:.1f}",
            f"{c['peak_mb']:,}",
        )
        for c in row["contestants"]
    ]


def facts(row: dict[str, Any]) -> str:
    """Under what conditions."""
    rounds = len(row["contestants"][0]["all"])
    return (
        f"{row['date']}, {row['cores']} cores, {row['gemm_rate'] / 1e9:.0f} GFLOP/s in 1024 x 1024 products on all of "
        f"them, torch {row['torch']}; medians of {rounds} rounds in turns, after a first one"
    )


def table(row: dict[str, Any]) -> Table:
    """For a terminal."""
    shown = Table(*HEAD, title=TITLES[row["model"]], caption=facts(row))
    for line in cells(row):
        shown.add_row(*line)
    return shown


def markdown(row: dict[str, Any]) -> str:
    """For the page."""
    lines = [
        f"**{TITLES[row['model']]}** (`{row['command']}`)",
        "",
        f"| {' | '.join(HEAD)} |",
        "|---" * len(HEAD) + "|",
    ]
    lines += [f"| {' | '.join(line)} |" for line in cells(row)]
    return "\n".join([*lines, "", f"{facts(row)}."])


def main() -> None:
    """Put the tables into the page."""
    rows = {row["model"]: row for row in map(json.loads, (HERE / "compare.jsonl").read_text().splitlines())}
    before, rest = PAGE.read_text().split(START)
    body = "\n\n".join(markdown(rows[model]) for model in TITLES if model in rows)
    PAGE.write_text(f"{before}{START}\n\n{body}\n\n{END}{rest.split(END)[1]}")


if __name__ == "__main__":
    main()
