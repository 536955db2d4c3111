"""Rounds to a target, and the other entries of a summary."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coterie.track import rounds_to_target, summarise


@pytest.mark.parametrize(
    ("curve", "target", "expected"),
    [
        # between round 1 (0.5) and round 2 (0.9): 0.7 lies half-way
        ([(1, 0.5), (2, 0.9)], 0.7, 1.5),
        # the dip of round 2 does not count: the best so far is 0.5 there, and from it 0.75 is half-way to 1.0
        ([(1, 0.5), (2, 0.25), (3, 1.0)], 0.75, 2.5),
        # evaluated every fourth round: a quarter of the way from round 4 to round 8
        ([(1, None), (4, 0.5), (5, None), (8, 0.9)], 0.6, 5.0),
        ([(3, 0.8), (6, 0.9)], 0.8, 3.0),  # the first evaluation reaches it: nothing to interpolate from
        ([(3, 0.8), (6, 0.9)], 0.5, 3.0),
        ([(1, 0.5), (2, 0.75)], 0.75, 2.0),  # reached exactly
        ([(1, 0.5), (2, 0.6)], 0.7, None),
        ([(1, None), (2, None)], 0.7, None),
        ([], 0.7, None),
    ],
)
def test_rounds_to_target_follows_the_papers_protocol(
    curve: list[tuple[int, float | None]], target: float, expected: float | None
) -> None:
    found = rounds_to_target(curve, target)
    assert found is None if expected is None else found == pytest.approx(expected)


@given(st.lists(st.none() | st.floats(0, 1), max_size=30), st.floats(0.01, 1))
def test_the_crossing_lies_between_the_evaluations_around_it(accuracies: list[float | None], target: float) -> None:
    curve = list(enumerate(accuracies, 1))
    found = rounds_to_target(curve, target)
    first = next((r for r, a in curve if a is not None and a >= target), None)
    if first is None:
        assert found is None
    else:
        before = max((r for r, a in curve if a is not None and r < first), default=first)
        assert found is not None
        assert before <= found <= first


def record(round: int, accuracy: float | None) -> dict[str, object]:
    return {
        "round": round,
        "seconds": 0.5,
        "elapsed": 0.75 * round,
        "dropped": [{"client": "a", "why": "dropped out"}],
        "bytes_up": 10,
        "bytes_down": 20,
        "test_accuracy": accuracy,
        "test_loss": None if accuracy is None else 1 - accuracy,
    }


def test_a_summary_adds_up_rounds_and_has_the_last_evaluation() -> None:
    """Three rounds of 0.5 s, 10 bytes up and 20 down; the second round is not evaluated."""
    found = summarise([record(1, 0.75), record(2, None), record(3, 0.5)], target=0.8)
    expected = {
        "rounds": 3,
        "seconds": 1.5,
        "elapsed": 2.25,
        "test_accuracy": 0.5,
        "best_test_accuracy": 0.75,
        "test_loss": 0.5,
        "rounds_to_target": None,
        "bytes_up": 30,
        "bytes_down": 60,
        "bytes_once": {},
        "dropped": 3,
        "stopped": "rounds",
    }
    assert expected.items() <= found.items()
    assert summarise([record(1, 0.9)], target=0.8, bytes_once={"seed_set": 7})["bytes_once"] == {"seed_set": 7}
    assert summarise([record(1, 0.9)], target=0.8, clients=10**6)["clients"] == 10**6
    assert summarise([record(1, 0.9)], target=0.8)["stopped"] == "target"
    assert summarise([record(1, None)], target=None)["best_test_accuracy"] is None
