"""What ends a run early, and how rounds to a target are counted for metrics that fall."""

from coterie.track.stopping import Goal, Stopping
from coterie.track.summary import rounds_to_target


def records(*values: float | None) -> list[dict[str, object]]:
    return [{"test_rmse": value} for value in values]


def test_a_target_of_a_falling_metric_is_reached_from_above() -> None:
    stopping = Stopping(Goal("test_rmse", False), target=2.0)
    assert stopping.why(records(3.0, 2.5)) is None
    assert stopping.why(records(3.0, 2.0)) == "target"


def test_rounds_that_were_not_evaluated_count_neither_way() -> None:
    stopping = Stopping(watched=Goal("test_rmse", False), patience=2)
    assert stopping.why(records(1.0, None, 2.0, None)) is None
    assert stopping.why(records(1.0, None, 2.0, None, 3.0)) == "patience"
    assert stopping.why(records(1.0, 2.0, 0.5, 0.5)) is None


def test_rounds_to_a_falling_target_are_interpolated() -> None:
    """From 4 after round 1 to 2 after round 3, the value 3 lies at round 2."""
    assert rounds_to_target([(1, 4.0), (2, None), (3, 2.0)], 3.0, higher_is_better=False) == 2.0
