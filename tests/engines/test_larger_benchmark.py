"""benchmarks/speed/larger.py at a tiny size."""

from pathlib import Path
from types import ModuleType

import pytest

SPEED = Path(__file__).parents[2] / "benchmarks" / "speed"


@pytest.fixture
def larger(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(SPEED)
    return __import__("larger")


@pytest.mark.parametrize("shape", [(1, 28, 28), None])
def test_a_row_runs_and_tells_seconds_and_memory(larger: ModuleType, shape: tuple[int, ...] | None) -> None:
    model = "2nn" if shape else "transformer"
    row = {**larger.COHORT, "clients": 4, "shape": shape, "model": model, "algorithm": larger.FEDAVG}
    found = larger.measure(row, 1)
    assert found["seconds"] > 0
    assert found["memory"] > 1
