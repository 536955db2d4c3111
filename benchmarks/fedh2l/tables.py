"""Tables and plots of the rows that `domains.py` has finished, for docs/algorithms/fedh2l.md.

    python benchmarks/fedh2l/tables.py            print them
    python benchmarks/fedh2l/tables.py --write    put them between their markers in the page, and draw its figure

Numbers are percent: "all" is the mean over every participant's model and every domain; "own" over the own domains;
"worst" over each model's worst domain. Where several rng seeds ran, the mean with the largest distance from it.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from domains import SETS, Row, finished_rows, key
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure

PAGE = Path(__file__).parents[2] / "docs" / "algorithms" / "fedh2l.md"
FIGURE = PAGE.parent / "figures" / "fedh2l-effects.svg"
ALL = "domain_test_accuracy"
MEASURES = {"all": ALL, "own": "own_test_accuracy", "worst": "domain_test_accuracy_worst"}
Results = dict[str, dict[str, Any]]
"""Each row's result by the row's key."""


def percent(results: Sequence[dict[str, Any]], measure: str) -> str:
    values = [100 * r[measure] for r in results]
    mean = sum(values) / len(values)
    spread = f" ± {max(abs(v - mean) for v in values):.1f}" if len(values) > 1 else ""
    return f"{mean:.1f}{spread}"


def size(count: float) -> str:
    return "0" if not count else f"{count / 1000:,.1f} kB" if count < 1e6 else f"{count / 1e6:,.1f} MB"


def label(row: Row) -> str:
    """What a row has that the others of its table have not."""
    words = [row.method, *(f"{name} {value}" for name, value in row.options.items())]
    words += [f"{row.seed_examples} seed images each"] if row.seed_examples not in (20, 100) else []
    words += [] if row.labels else ["seed set without labels"]
    words += [] if row.bits == 32 else [f"{row.bits} bits"]
    words += ["one architecture"] if row.one else []
    words += [f"{row.liars} of six {'lies' if row.liars == 1 else 'lie'}"] if row.liars else []
    return ", ".join(words)


def lines(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    table = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in table)


def comparison(rows: Sequence[Row], results: Results) -> str:
    """Methods side by side, over rng seeds."""
    seeds, found = sorted({row.rng_seed for row in rows}), []
    for row in (r for r in rows if r.rng_seed == seeds[0]):
        each = [results[k] for k in (key(replace(row, rng_seed=seed)) for seed in seeds) if k in results]
        if each:
            sent = [size(each[0][direction]) for direction in ("bytes_up", "bytes_down")]
            found.append([label(row), *(percent(each, m) for m in MEASURES.values()), *sent, str(len(each))])
    return lines(["method", *MEASURES, "up", "down", "runs"], found)


BASE = Row("rotated_mnist", "fedh2l")
MORE = [
    replace(BASE, options=options) for options in ({"mutual_weight": 0.0}, {"mutual_weight": 2.0}, {"conflict": "none"})
]
"""What `main` has of the settings that `effects` changes."""


def effects(rows: Sequence[Row], results: Results) -> str:
    """One setting changed at a time, beside the run that has none changed; one rng seed."""
    base, found = results[key(BASE)], []
    for row in (r for r in [BASE, *MORE, *rows] if key(r) in results):
        result = results[key(row)]
        against = "" if row == BASE else f"{100 * (result[ALL] - base[ALL]):+.1f}"
        cells = [percent([result], m) for m in MEASURES.values()]
        found.append([label(row).replace("fedh2l, ", ""), *cells, against, size(result["bytes_up"])])
    return lines(["setting", *MEASURES, "change in all", "up"], found)


TABLES: dict[str, Callable[[Sequence[Row], Results], str]] = {
    "main": comparison,
    "small": comparison,
    "pacs": comparison,
    "digits": comparison,
    "liars": comparison,
    "effects": effects,
}


def curve(rows: Sequence[tuple[float, Row]], results: Results) -> tuple[list[float], list[float]]:
    known = [(x, results[key(row)]) for x, row in rows if key(row) in results]
    return [x for x, _ in known], [100 * result[ALL] for _, result in known]


def by_size(axes: Axes, results: Results) -> None:
    kinds = {
        "labels and peers": BASE,
        "labels alone": MORE[0],
        "independent": replace(BASE, method="independent with the seed set"),
    }
    for text, row in kinds.items():
        axes.plot(
            *curve([(6 * n, replace(row, seed_examples=n)) for n in (20, 50, 100, 200)], results), "o-", label=text
        )
    axes.set_xlabel("seed images, |S|")
    axes.legend(frameon=False, fontsize=8)


def by_option(axes: Axes, results: Results, option: str, values: Sequence[float]) -> None:
    rows = [(v, replace(BASE, options={} if v == 1 else {option: float(v)})) for v in values]
    axes.plot(*curve(rows, results), "o-")
    axes.set_xlabel(option)


def by_conflict(axes: Axes, results: Results) -> None:
    rules = {"project_global": BASE} | {
        rule: replace(BASE, options={"conflict": rule}) for rule in ("project_local", "gem", "none")
    }
    xs, ys = curve([(k, row) for k, row in enumerate(rules.values())], results)
    axes.plot(xs, ys, "o")
    axes.set_xticks(range(len(rules)), [rule.replace("project_", "project\n") for rule in rules], fontsize=8)
    axes.set_xlabel("conflict")


def plot(results: Results, path: Path) -> None:
    """Accuracy over all domains against the size of the seed set, lambda, T and the rule for conflicts."""
    figure = Figure(figsize=(11, 2.8), layout="constrained")
    panels = figure.subplots(1, 4)
    by_size(panels[0], results)
    by_option(panels[1], results, "mutual_weight", (0, 1, 2, 4, 8))
    by_option(panels[2], results, "temperature", (1, 2, 3))
    by_conflict(panels[3], results)
    for axes in panels[1:]:
        axes.set_ylim(81, 86)  # one scale, so that the effects can be compared
    for axes in panels:
        axes.spines[["top", "right"]].set_visible(False)
    panels[0].set_ylabel("accuracy on all domains, %")
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": path.stem}):  # the same bytes for the same rows
        figure.savefig(path, metadata={"Date": None, "Creator": None})


def fill_page(page: str, tables: dict[str, str]) -> str:
    """The page with each table between `<!-- NAME -->` and `<!-- end -->`."""
    for name, text in tables.items():
        page, count = re.subn(f"(<!-- {name} -->\n).*?(<!-- end -->)", rf"\g<1>{text}\n\g<2>", page, flags=re.DOTALL)
        assert count == 1, f"{PAGE} has no place for the table {name}"
    return page


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--write", action="store_true")
    chosen, results = parser.parse_args(), {key(row): result for row, result in finished_rows()}
    tables = {name: make(SETS[name], results) for name, make in TABLES.items()}
    if chosen.write:
        PAGE.write_text(fill_page(PAGE.read_text("utf-8"), tables), "utf-8")
        plot(results, FIGURE)
    else:
        print("\n\n".join(f"### {name}\n\n{text}" for name, text in tables.items()))


if __name__ == "__main__":
    main()
