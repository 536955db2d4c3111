"""Write the tables of `tables.py` into docs/algorithms/fedavg.md, between its markers.

python benchmarks/fedavg/report.py
"""

from __future__ import annotations

import json
import math
from dataclasses import asdict
from pathlib import Path
from typing import Any

from tables import TABLES, Cell, rank

HERE = Path(__file__).parent
PAGE = HERE.parents[1] / "docs" / "algorithms" / "fedavg.md"
START, END = "<!-- tables: written by benchmarks/fedavg/report.py -->", "<!-- end of tables -->"
TITLES = {
    "table1": "Table 1: 2NN, 97 %, the cohort's share C",
    "table4": "Table 4: 2NN, 97 %, local work E and B",
    "table2": "Table 2: CNN, 99 %, local work E and B",
}
CELL = ("table", "split", "fraction", "epochs", "batch", "paper")


def rows() -> list[dict[str, Any]]:
    """Every finished run."""
    return [json.loads(line) for line in (HERE / "results.jsonl").read_text().splitlines()]


def table(name: str, runs: list[dict[str, Any]]) -> str:
    """One table in Markdown, a line per cell, whether it was run or not; where the best rate is at the grid's edge so
    far, that is marked."""
    lines = [
        f"**{TITLES[name]}** (`python benchmarks/fedavg/tables.py {name}`)",
        "",
        "| split | C | E | B | paper's rounds | ours | ours / paper | best lr | rates tried |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for cell in sorted(TABLES[name], key=place):
        tried = [r for r in runs if key(r) == key(asdict(cell))]
        lines.append(line(tried) if tried else f"| {' | '.join(cell.row)} | {cell.paper} | not run | – | – | – |")
    return "\n".join(lines)


def place(cell: Cell) -> tuple[str, float, int, float]:
    """A cell's place in its table."""
    return cell.split, cell.fraction, cell.epochs, math.inf if cell.batch == "full" else cell.batch


def key(row: dict[str, Any]) -> list[Any]:
    """What tells a cell from others."""
    return [row[name] for name in CELL]


def line(tried: list[dict[str, Any]]) -> str:
    """One cell: the best of the rates tried."""
    first = tried[0]
    best = min(tried, key=rank)
    exponents = sorted(r["exponent"] for r in tried)
    inside = exponents[0] < best["exponent"] < exponents[-1]
    rates = ", ".join(f"{r['lr']:g}" for r in sorted(tried, key=lambda r: r["lr"]))
    start = f"| {first['split']} | {first['fraction']:g} | {first['epochs']} | {first['batch']} | {first['paper']} |"
    if best["rounds"] is None:
        return f"{start} not in {best['rounds_run']} ({100 * best['best_accuracy']:.1f} %) | – | – | {rates} |"
    mark = "" if inside else " (not yet bracketed)"
    return f"{start} {best['rounds']:.0f} | {best['rounds'] / first['paper']:.2f} | {best['lr']:g}{mark} | {rates} |"


def main() -> None:
    """Put the tables into the page."""
    runs, page = rows(), PAGE.read_text()
    parts = [
        table(name, [r for r in runs if r["table"] == name]) for name in TITLES if any(r["table"] == name for r in runs)
    ]
    before, rest = page.split(START)
    PAGE.write_text(f"{before}{START}\n\n" + "\n\n".join(parts) + f"\n\n{END}{rest.split(END)[1]}")


if __name__ == "__main__":
    main()
