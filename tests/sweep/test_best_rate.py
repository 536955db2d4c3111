"""The learning-rate protocol of McMahan et al. 2017, on results that are written down."""

from pathlib import Path
from typing import Any

import pytest

from coterie.report.run_reader import Run
from coterie.sweep.axes import Axis, parse_axis
from coterie.sweep.best_rate import find_best_rates
from coterie.sweep.points import Point, point_name
from coterie.sweep.run_sweep import widen
from coterie.sweep.write_results import Results

LR = parse_axis("algorithm.lr=0.01,0.1,1")


def run_with(**end: Any) -> Run:
    """Return a finished run with these entries of summary.json."""
    summary = {"rounds_to_target": None, "test_accuracy": None, "test_loss": None} | end
    return Run(Path("run"), "run", {}, {}, [], summary, True, [])


def point(lr: float, **others: Any) -> Point:
    settings: Any = None
    return Point(point_name({"lr": lr} | others), {"algorithm.lr": lr} | others, [], settings)


def best(runs: list[tuple[Point, Run]], *others: Axis) -> list[str]:
    found = find_best_rates([LR, *others], [each for each, _ in runs], {each.name: run for each, run in runs})
    return [str(each) for each in found]


def by_accuracy(*accuracies: float | None) -> list[tuple[Point, Run]]:
    return [(point(lr), run_with(test_accuracy=a)) for lr, a in zip((0.01, 0.1, 1), accuracies, strict=True)]


@pytest.mark.parametrize(
    ("accuracies", "sentence"),
    [
        ((0.5, 0.9, 0.7), "0.1, inside the grid"),
        ((0.5, 0.7, 0.9), "1, the largest of the grid, so a better one may lie outside"),
        ((0.9, 0.7, 0.5), "0.01, the smallest of the grid, so a better one may lie outside"),
        ((0.5, 0.9, None), "0.1, inside the grid"),
    ],
)
def test_the_best_rate_has_the_highest_accuracy(accuracies: tuple[float | None, ...], sentence: str) -> None:
    assert best(by_accuracy(*accuracies)) == [f"best algorithm.lr: {sentence}"]


def test_fewer_rounds_to_the_target_count_more_than_accuracy() -> None:
    runs = [(point(0.01), 90.0, 0.97), (point(0.1), 40.0, 0.97), (point(1), None, 0.99)]
    given = [(each, run_with(rounds_to_target=rounds, test_accuracy=a)) for each, rounds, a in runs]
    assert best(given) == ["best algorithm.lr: 0.1, inside the grid"]


def test_without_accuracy_the_lowest_loss_is_best() -> None:
    given = [(point(lr), run_with(test_loss=loss)) for lr, loss in ((0.01, 3.0), (0.1, 1.0), (1, 2.0))]
    assert best(given) == ["best algorithm.lr: 0.1, inside the grid"]


def test_a_rate_that_failed_is_not_the_best() -> None:
    given = by_accuracy(0.5, 0.7, 0.9)
    given[2] = given[2][0], run_with(test_accuracy=0.9, failure="it diverged")
    assert best(given) == ["best algorithm.lr: 0.1, inside the grid"]
    assert best(given[:2]) == ["best algorithm.lr: 0.1, inside the grid"]  # the run of 1 left no folder
    assert best(by_accuracy(None, None, None)) == []


def test_the_mean_over_seeds_decides_where_every_seed_has_a_result() -> None:
    """0.1 has the mean 0.75, and 1 has 0.7; 0.01 has 0.99 with one of its two seeds."""
    results = {(0.1, 0): 0.9, (0.1, 1): 0.6, (1, 0): 0.7, (1, 1): 0.7, (0.01, 0): 0.99}
    points = [point(lr, rng_seed=seed) for lr in (0.01, 0.1, 1) for seed in (0, 1)]
    runs = {point(lr, rng_seed=seed).name: run_with(test_accuracy=a) for (lr, seed), a in results.items()}
    [found] = find_best_rates([LR, parse_axis("rng_seed=0,1")], points, runs)
    assert (found.value, found.beyond) == (0.1, None)


def test_each_setting_has_its_own_best_rate_and_the_grid_is_widened_for_each() -> None:
    """fedavg is best at 0.01 and fedsgd at 1; the ratio is 10 on both sides."""
    names = parse_axis("algorithm.name=fedavg,fedsgd")
    results = {"fedavg": (0.9, 0.8, 0.7), "fedsgd": (0.7, 0.8, 0.9)}
    runs = [
        (point(lr, **{"algorithm.name": name}), run_with(test_accuracy=a))
        for name, accuracies in results.items()
        for lr, a in zip((0.01, 0.1, 1), accuracies, strict=True)
    ]
    found = find_best_rates([LR, names], [each for each, _ in runs], {each.name: run for each, run in runs})
    assert str(found[0]).startswith("best algorithm.lr with name = fedavg: 0.01, the smallest")
    assert str(found[1]).startswith("best algorithm.lr with name = fedsgd: 1, the largest")
    wider = widen([LR, names], Results(None, found, {}, []))
    assert wider[0].values == (0.001, 0.01, 0.1, 1, 10.0)
    assert wider[1] == names


def test_two_rates_are_tuned_together() -> None:
    """The best pair is (1, 0.5): the first at the end of its grid, the second inside."""
    server = parse_axis("algorithm.server_lr=0.1,0.5,2")
    accuracy = {(1, 0.5): 0.9}
    runs = [
        (point(lr, **{"algorithm.server_lr": s}), run_with(test_accuracy=accuracy.get((lr, s), 0.3)))
        for lr in LR.values
        for s in server.values
    ]
    assert best(runs, server) == [
        "best algorithm.lr: 1, the largest of the grid, so a better one may lie outside",
        "best algorithm.server_lr: 0.5, inside the grid",
    ]
