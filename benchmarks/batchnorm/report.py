"""Print or write the tables and the plot of docs/algorithms/fbn.md, from the rows that `runs.py` has finished.

    python benchmarks/batchnorm/report.py [RESULTS]            print the tables
    python benchmarks/batchnorm/report.py [RESULTS] --write    put them between their markers in the page, and draw

A number is test accuracy in percent: the mean over the rng seeds that have run, its standard error where there are two
or more, and in brackets their number. A cell without a row is a dash; a run that diverged counts as a guess, 10 %.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from runs import (
    ATTACKS,
    MAIN,
    METHODS,
    RATES,
    RECOMMENDED,
    RESULTS,
    RULES,
    SPLITS,
    Results,
    Row,
    accuracy,
    base,
    conv,
    gradients,
    key,
    options10,
    read_results,
    resnet20_rows,
    row_at_best_rate,
    with_attack,
)

PAGE = Path(__file__).parents[2] / "docs" / "algorithms" / "fbn.md"
FIGURE = PAGE.parent / "figures" / "fbn-skews.svg"
DATA = {
    "fashion_mnist": ("Fashion-MNIST", tuple(METHODS)),
    "cifar10": ("CIFAR-10", (*MAIN[:4], "FBN, recommended", *MAIN[4:])),
}
SEEDS, DASH, MINUS = range(5), "–", "−"

BySeed = dict[int, float]
"""A number in percent for each rng seed that has run."""


def by_seed(row: Row | None, results: Results, measure: str = "test_accuracy") -> BySeed:
    """Return what a row measured with each rng seed; empty for a row whose rate is not known yet."""
    rows = {} if row is None else {seed: key(replace(row, rng_seed=seed)) for seed in SEEDS}
    found = {seed: results[k] for seed, k in rows.items() if k in results}
    if measure == "test_accuracy":
        return {seed: 100 * accuracy(result) for seed, result in found.items()}
    return {seed: 100 * result[measure] for seed, result in found.items() if result.get(measure) is not None}


def error(values: Sequence[float]) -> float | None:
    """Return the standard error of the mean; None for fewer than two values."""
    return stdev(values) / len(values) ** 0.5 if len(values) > 1 else None


def cell(found: BySeed, sign: str = "") -> str:
    """Return mean, standard error and number of seeds as text; `sign` is that of a format."""
    values = list(found.values())
    if not values:
        return DASH
    se = error(values)
    return f"{mean(values):{sign}.1f}{'' if se is None else f' ± {se:.1f}'} ({len(values)})".replace("-", MINUS)


def markdown_table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return rows as a Markdown table."""
    return "\n".join(f"| {' | '.join(cells)} |" for cells in [head, ["---"] * len(head), *rows])


def split_title(split: str) -> str:
    """Return a split's name for a table's head."""
    return {"iid": "IID"}.get(split, split.replace("dirichlet", "Dirichlet"))


def rate(row: Row | None) -> str:
    """Return a method's learning rate, marked where the grid ends there, so that a rate beyond may be better."""
    ends = {RATES[0]: ", the lowest", RATES[-1]: ", the highest"}
    return DASH if row is None else f"{row.lr:g}{ends.get(row.lr, '')}"


def methods_with_options(data: str) -> list[tuple[str, dict[str, Any]]]:
    """Return a data set's methods with their options: all by default, and "FBN, pooled" with faster statistics."""
    plain: list[tuple[str, dict[str, Any]]] = [(method, {}) for method in DATA[data][1]]
    place = plain.index(("FBN, pooled", {})) + 1
    return [*plain[:place], ("FBN, pooled", RECOMMENDED), *plain[place:]]


def skew_table(data: str, results: Results) -> str:
    """Return methods against skews. A client that holds all data has no skew, and one number."""
    rows = []
    for method, options in methods_with_options(data):
        row = row_at_best_rate(data, method, results, **options)
        splits = ["iid"] if METHODS[method].alone else list(SPLITS)
        found = {split: row and replace(row, split=split) for split in splits}
        each = [cell(by_seed(found[s], results)) if s in found else "" for s in SPLITS]
        rows.append([variant(base(data, method, **options)), rate(row), *each])
        if method == "FedBN":
            own = [cell(by_seed(row, results, "own_test_accuracy")) for row in found.values()]
            rows.append(["FedBN, on a client's own labels", rate(row), *own])
    return markdown_table(["method", "lr", *map(split_title, SPLITS)], rows)


def option_table(rows: Iterable[Row], results: Results, grid: Sequence[float]) -> str:
    """Return FBN's options with one label per client, at each rate, and the bytes that a client sends for them."""
    variants = {key(replace(row, lr=0.0, rng_seed=0)): replace(row, rng_seed=0) for row in rows}.values()
    found = []
    for row in variants:
        tried = {lr: by_seed(replace(row, lr=lr), results) for lr in grid}
        found.append([variant(row), *at_rates(tried), extra_bytes(row, results)])
    return markdown_table(["variant", *(f"lr {lr:g}" for lr in grid), "bytes up, beside parameters"], found)


def variant(row: Row) -> str:
    """Return a method's name with its changed options."""
    changes = [f"no `{name}`" if value is None else f"`{name} = {value:g}`" for name, value in row.options.items()]
    return ", ".join([row.method, *changes])


def at_rates(tried: Mapping[float, BySeed]) -> list[str]:
    """Return each rate's accuracy, the best in bold."""
    best = max((mean(found.values()) for found in tried.values() if found), default=None)
    return [f"**{cell(found)}**" if found and mean(found.values()) == best else cell(found) for found in tried.values()]


def extra_bytes(row: Row, results: Results) -> str:
    """Return the bytes that a client sends in a round besides its parameters; a client alone sends none."""
    known = [results[k] for lr in RATES if (k := key(replace(row, lr=lr))) in results]
    if METHODS[row.method].alone or not known:
        return DASH
    shape = {"fashion_mnist": [1, 28, 28], "cifar10": [3, 32, 32]}[row.data]
    parameters = 4 * sum(p.numel() for p in conv(shape, 10).parameters())
    return f"{known[0]['bytes_up'] - parameters:,.0f}"


def attack_table(results: Results) -> str:
    """Return rules against attacks, for each split of the set `attacks`."""
    plain = row_at_best_rate("fashion_mnist", "FBN", results)
    columns = [(split, attack) for split in ("iid", "dirichlet 0.5") for attack in ("none", *ATTACKS)]
    rows = [
        [
            rule,
            *(cell(by_seed(plain and with_attack(replace(plain, split=s, rule=rule), a), results)) for s, a in columns),
        ]
        for rule in RULES
    ]
    return markdown_table(
        ["rule", *(f"{split_title(split)}, {attack.replace('_', ' ')}" for split, attack in columns)], rows
    )


def price_table(results: Results) -> str:
    """Return what each rule loses to the mean where no client attacks, rng seed by rng seed."""
    plain = row_at_best_rate("fashion_mnist", "FBN", results)
    means = {split: by_seed(plain and replace(plain, split=split), results) for split in SPLITS}
    rows = [["mean", *(cell(found) for found in means.values())]]
    for rule in RULES[1:]:
        found = {split: by_seed(plain and replace(plain, split=split, rule=rule), results) for split in SPLITS}
        rows.append([rule, *(cell(difference(found[split], means[split]), "+") for split in SPLITS)])
    return markdown_table(["rule", *map(split_title, SPLITS)], rows)


def difference(one: BySeed, other: BySeed) -> BySeed:
    """Return the differences for the rng seeds that both have."""
    return {seed: value - other[seed] for seed, value in one.items() if seed in other}


def resnet20_table(results: Results) -> str:
    """Return the rows of ResNet-20."""
    rows = []
    for row in resnet20_rows(results):
        found = [by_seed(replace(row, split=split), results) for split in ("1 label", "iid")]
        rows.append([variant(row), rate(row), *map(cell, found)])
    return markdown_table(["method", "lr", "1 label", "IID"], rows)


def tables(results: Results) -> dict[str, str]:
    """Return each table by the name of its place in the page."""
    ours = [base("cifar10", method) for method in ("FBN", "FBN, renorm")]
    return {
        "accuracy, Fashion-MNIST": skew_table("fashion_mnist", results),
        "accuracy, CIFAR-10": skew_table("cifar10", results),
        "options": option_table(gradients({}), results, RATES[1:5]),
        "options, CIFAR-10": option_table([*ours, *options10({})], results, RATES[1:4]),
        "attacks": attack_table(results),
        "price": price_table(results),
        "ResNet-20": resnet20_table(results),
    }


def plot(results: Results, path: Path) -> None:
    """Draw accuracy against skew, a line for each method with a common model; centralised training is a level."""
    drawn = [data for data in DATA if any(row_at_best_rate(data, method, results) for method in MAIN)]
    if not drawn:
        return
    figure = Figure(figsize=(2 + 4.8 * len(drawn), 4.4), layout="constrained")
    for axes, data in zip(figure.subplots(1, len(drawn), squeeze=False)[0], drawn, strict=True):
        draw_curves(axes, data, results)
    named = dict(pair[::-1] for axes in figure.axes for pair in zip(*axes.get_legend_handles_labels(), strict=True))
    figure.legend(list(named.values()), list(named), loc="outside right center", frameon=False)
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": path.stem}):  # the same bytes for the same rows
        figure.savefig(path, metadata={"Date": None, "Creator": None})


def draw_curves(axes: Axes, data: str, results: Results) -> None:
    """Draw one data set's lines, a little apart so that error bars do not overlap."""
    name, methods = DATA[data]
    federated = [method for method in METHODS if not METHODS[method].alone and method != "FedBN"]
    drawn: list[tuple[str, str, dict[str, Any]]] = [(method, method, {}) for method in federated]
    drawn.append(("FBN, pooled, faster statistics", "FBN, pooled", RECOMMENDED))
    for k, (label, method, options) in enumerate(drawn):
        row = row_at_best_rate(data, method, results, **options) if method in methods else None
        found = [(x, list(by_seed(row and replace(row, split=s), results).values())) for x, s in enumerate(SPLITS)]
        points = [(x + 0.03 * (k - len(drawn) / 2), values) for x, values in found if values]
        if points:
            xs, reached = [x for x, _ in points], [values for _, values in points]
            bars = [error(values) or 0.0 for values in reached]
            style: dict[str, Any] = {
                "marker": MARKERS[k % len(MARKERS)],
                "markersize": 4,
                "linewidth": 1.2,
                "capsize": 2,
            }
            axes.errorbar(xs, [mean(values) for values in reached], bars, color=f"C{k}", label=label, **style)
    if central := by_seed(row_at_best_rate(data, "centralised BatchNorm", results), results):
        level = mean(central.values())
        axes.axhline(level, color="grey", linestyle="--", linewidth=1, label="centralised BatchNorm")
    axes.set(title=name, ylabel="test accuracy, %")
    axes.set_xticks(range(len(SPLITS)), [split_title(split).replace(" ", "\n") for split in SPLITS])
    axes.spines[["top", "right"]].set_visible(False)


MARKERS = "osD^v<>Ph*Xp"


def fill_page(page: str, made: dict[str, str]) -> str:
    """Return the page with each table between `<!-- NAME -->` and `<!-- end -->`."""
    for name, text in made.items():
        begin = re.escape(f"<!-- {name} -->\n")
        page, count = re.subn(f"({begin}).*?(<!-- end -->)", rf"\g<1>{text}\n\g<2>", page, flags=re.DOTALL)
        assert count == 1, f"{PAGE} has no place for the table {name}"
    return page


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("results", nargs="?", type=Path, default=RESULTS)
    parser.add_argument("--write", action="store_true")
    chosen = parser.parse_args()
    results = read_results(chosen.results)
    made = tables(results)
    if chosen.write:
        PAGE.write_text(fill_page(PAGE.read_text("utf-8"), made), "utf-8")
        plot(results, FIGURE)
    else:
        print("\n\n".join(f"### {name}\n\n{text}" for name, text in made.items()))


if __name__ == "__main__":
    main()
