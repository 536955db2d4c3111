"""Rounds to a target accuracy, as in Tables 1, 2 and 4 of McMahan et al. 2017, with the paper's learning-rate protocol.

    COTERIE_DATA=... python benchmarks/fedavg/tables.py [table1 ...] [--cell iid 0.1 1 10] [--minutes 60] [--part 0/2]

For every cell the learning rate is tuned on a multiplicative grid of resolution 10^(1/3): three rates around a guess,
then further ones on the side of the best until the best has a worse neighbour on either side. A rate is given up when
it has used as many rounds as the best so far needed, or half as many and is then half as slow again at some accuracy
that both have passed (`MILESTONES`). While no rate has reached the target, the one with the highest accuracy counts as
the best. Rounds are counted as in the paper: best accuracy so far, linearly interpolated at the crossing.

Every finished (cell, rate) is a line in results.jsonl at once, and is only printed while that line is there: stop it
whenever you like. Cells are run in the order of their cost, as the paper's rounds foretell it; `--part 0/2` and
`--part 1/2`, in two shells, share them between two cores, and `--cell` picks one by its split, C, E and B. `report.py`
writes the tables from the results.
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import torch

import coterie
from coterie.data import deal, load
from coterie.engines.sequential import Sequential
from coterie.models.registry import build
from coterie.track.summary import rounds_to_target

RESULTS = Path(__file__).with_name("results.jsonl")
RESOLUTION = 10 ** (1 / 3)
GIVE_UP = 2.0
"""A cell is given up after this many times the paper's rounds: what two runs of one setting may differ by."""
LAG = 1.5
"""A rate is given up, past half the best rate's rounds, when it needs this many times the best's to some milestone."""
MILESTONES = (0.9, 0.93, 0.95, 0.96, 0.965, 0.975, 0.98, 0.985)


@dataclass(frozen=True)
class Cell:
    """One cell of a table: what was run, and how many rounds the paper needed."""

    table: str
    model: Literal["2nn", "cnn"]
    split: Literal["iid", "shards"]
    fraction: float
    epochs: int
    batch: int | Literal["full"]
    paper: int
    rng_seed: int = 0

    @property
    def target(self) -> float:
        """97 % for the 2NN, 99 % for the CNN."""
        return 0.97 if self.model == "2nn" else 0.99

    def guess(self) -> int:
        """The exponent k of the middle of the first three rates, 10^(k/3)."""
        if self.model == "cnn":
            return {10: -3, 50: -2, "full": -1}[self.batch]
        if self.batch == "full":
            return -2 if self.split == "shards" and self.epochs > 1 else -1
        return -3 if self.split == "shards" and (self.epochs > 1 or self.fraction == 0) else -2

    @property
    def row(self) -> list[str]:
        """Split, C, E and B as they are typed."""
        return [self.split, f"{self.fraction:g}", str(self.epochs), str(self.batch)]

    @property
    def evaluate_every(self) -> int:
        """How many rounds lie between two tests. Testing a CNN takes a third of the time, so its long runs are tested
        about sixty times in the paper's rounds."""
        return max(1, self.paper // 60) if self.model == "cnn" else 1

    def cost(self) -> float:
        """What one rate takes, about, in passes of the model over 10,000 examples."""
        clients = max(1, 100 * self.fraction)
        overhead = {10: 6.0, 50: 2.0, "full": 1.5}[self.batch]
        size = 1 if self.model == "2nn" else 30
        return size * self.paper * (1 + 0.06 * clients * self.epochs * overhead)


def pairs(
    table: str, model: Literal["2nn", "cnn"], rows: list[tuple[float, int, int | Literal["full"], int, int]]
) -> list[Cell]:
    """Cells from rows of (C, E, B, rounds IID, rounds non-IID)."""
    return [
        Cell(table, model, split, fraction, epochs, batch, paper)
        for fraction, epochs, batch, *papers in rows
        for split, paper in zip(("iid", "shards"), papers, strict=True)
    ]


TABLES: dict[str, list[Cell]] = {
    "table1": pairs(
        "table1",
        "2nn",
        [
            (0.1, 1, 10, 87, 664),
            (0.1, 1, "full", 1474, 1796),
            (0.0, 1, 10, 316, 3275),
            (0.2, 1, 10, 77, 619),
            (0.0, 1, "full", 1455, 4278),
            (0.5, 1, 10, 75, 443),
            (0.2, 1, "full", 1658, 1528),
            (1.0, 1, 10, 70, 380),
        ],
    ),
    "table4": pairs(
        "table4",
        "2nn",
        [
            (0.1, 1, 50, 144, 1183),
            (0.1, 10, "full", 156, 1100),
            (0.1, 10, 50, 45, 881),
            (0.1, 20, "full", 92, 957),
            (0.1, 10, 10, 34, 497),
            (0.1, 20, 50, 39, 835),
            (0.1, 20, 10, 32, 738),
        ],
    ),
    "table2": pairs(
        "table2",
        "cnn",
        [
            (0.1, 1, "full", 626, 483),
            (0.1, 5, "full", 179, 1000),
            (0.1, 1, 50, 65, 600),
            (0.1, 20, "full", 234, 672),
            (0.1, 1, 10, 34, 350),
            (0.1, 5, 50, 29, 334),
            (0.1, 20, 50, 32, 426),
            (0.1, 5, 10, 20, 229),
            (0.1, 20, 10, 18, 173),
        ],
    ),
}


def finished_cells() -> dict[tuple[object, ...], dict[str, object]]:
    """Finished runs by cell and exponent."""
    lines = RESULTS.read_text().splitlines() if RESULTS.exists() else []
    return {
        (*(row[name] for name in asdict(TABLES["table1"][0])), row["exponent"]): row for row in map(json.loads, lines)
    }


def milestones_passed(curve: list[tuple[int, float]], below: float) -> dict[str, float]:
    """The rounds to each milestone below the target that the curve has passed."""
    each = {str(m): rounds_to_target(curve, m) for m in MILESTONES if m < below}
    return {m: rounds for m, rounds in each.items() if rounds is not None}


def lags(curve: list[tuple[int, float]], best: dict[str, float], rounds: float) -> bool:
    """Whether this rate is, past half of the best one's `rounds`, LAG times as slow at a milestone."""
    now, top = curve[-1][0], max(accuracy for _, accuracy in curve)
    return now > rounds / 2 and any(now > LAG * when and top < float(m) for m, when in best.items())


def run(cell: Cell, exponent: int, best: dict[str, object] | None) -> dict[str, object]:
    """Train until the target, or until it is plain that another rate is better."""
    limit = float(str(best["rounds"])) if best is not None and best["rounds"] else GIVE_UP * cell.paper
    milestones = {} if best is None else dict(best.get("milestones", {}))  # type: ignore[call-overload]
    lr, started = 10 ** (exponent / 3), time.perf_counter()
    source = load("mnist")
    clients = deal(source, partition=cell.split, num_clients=100, shards_per_client=2, rng_seed=cell.rng_seed)
    model = build(cell.model, (1, 28, 28), 10, cell.rng_seed)
    engine = Sequential(compile=cell.model == "2nn" and cell.batch != "full")
    recipe = coterie.fedavg(lr=lr, local_epochs=cell.epochs, batch_size=cell.batch)
    curve: list[tuple[int, float]] = []
    ran = 0
    for round in coterie.federate(
        recipe,
        model,
        clients,
        rounds=max(1, int(limit)),
        cohort=cell.fraction,
        rng_seed=cell.rng_seed,
        test=source.test,
        evaluate_every=cell.evaluate_every,
        engine=engine,
    ):
        ran = round.round
        if round.train_loss != round.train_loss:
            break
        if round.test_accuracy is not None:
            curve.append((round.round, round.test_accuracy))
            if round.test_accuracy >= cell.target or lags(curve, milestones, limit):
                break
    return {
        **asdict(cell),
        "exponent": exponent,
        "lr": round_to(lr),
        "rounds": rounds_to_target(curve, cell.target),
        "evaluate_every": cell.evaluate_every,
        "rounds_run": ran,
        "best_accuracy": max((accuracy for _, accuracy in curve), default=0.0),
        "milestones": {m: round_to(rounds) for m, rounds in milestones_passed(curve, cell.target).items()},
        "seconds": round_to(time.perf_counter() - started),
        "date": time.strftime("%Y-%m-%d"),
        "version": coterie.__version__,
    }


def round_to(value: float) -> float:
    """Four significant digits."""
    return float(f"{value:.4g}")


def tune(cell: Cell, finished: dict[tuple[object, ...], dict[str, object]], until: float) -> None:
    """Run the rates that the protocol asks for and that are not finished yet."""
    tried: dict[int, dict[str, object]] = {}
    while (exponent := next_exponent(cell, tried)) is not None:
        place = (*asdict(cell).values(), exponent)
        if place not in finished:
            if time.time() > until:
                return
            finished[place] = run(cell, exponent, min(tried.values(), key=rank, default=None))
            with RESULTS.open("a") as file:
                file.write(json.dumps(finished[place]) + "\n")
        print(json.dumps(finished[place]), flush=True)
        tried[exponent] = finished[place]


def rank(row: dict[str, object]) -> tuple[float, float]:
    """Smaller is better: rounds to the target, and short of it the accuracy that was reached."""
    return (float("inf") if row["rounds"] is None else float(str(row["rounds"])), -float(str(row["best_accuracy"])))


def next_exponent(cell: Cell, tried: dict[int, dict[str, object]]) -> int | None:
    """The next rate to try: the guess, then outward from the best until it has a worse neighbour on both sides."""
    if not tried:
        return cell.guess()
    best = min(tried, key=lambda k: (rank(tried[k]), abs(k - cell.guess())))
    return next((k for k in (best + 1, best - 1) if k not in tried and abs(k - cell.guess()) <= 4), None)


def main() -> None:
    """Run what is asked for, cell by cell."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tables", nargs="*", default=[], choices=[[], *TABLES], help="all unless named")
    parser.add_argument("--cell", nargs=4, metavar=("SPLIT", "C", "E", "B"), help="one row, as in: iid 0.1 1 full")
    parser.add_argument("--minutes", type=float, default=float("inf"), help="start nothing new after so many minutes")
    parser.add_argument("--part", default="0/1", help="k/n: every n-th cell, from the k-th")
    chosen = parser.parse_args()
    part, parts = map(int, chosen.part.split("/"))
    torch.set_num_threads(1)
    until, finished = time.time() + 60 * chosen.minutes, finished_cells()
    cells = sorted((cell for name in chosen.tables or TABLES for cell in TABLES[name]), key=Cell.cost)
    if chosen.cell:
        cells = [cell for cell in cells if cell.row == chosen.cell]
        if not cells:
            parser.error(f"--cell {' '.join(chosen.cell)}: there is no such row; they are as in iid 0.1 1 full")
    for cell in cells[part::parts]:
        tune(cell, finished, until)


if __name__ == "__main__":
    main()
