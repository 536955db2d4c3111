"""benchmarks/speed/large.py at a tiny size: that it runs what it says, from Python and as the command does."""

from pathlib import Path
from types import ModuleType

import pytest
from torch import nn

from coterie.models.registry import build

SPEED = Path(__file__).parents[2] / "benchmarks" / "speed"


@pytest.fixture
def large(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(SPEED)
    return __import__("large")


def test_the_model_has_about_as_many_parameters_as_asked(large: ModuleType) -> None:
    """Two layers of w x w, 784 inputs, 10 outputs and the biases: 2 w^2 + 797 w + 10."""
    model = build("mlp", (784,), 10, 0, hidden=[50] * 3)
    assert isinstance(model, nn.Module)
    assert sum(p.numel() for p in model.parameters()) == 2 * 50**2 + 797 * 50 + 10
    assert large.width_for(2 * 50**2 + 797 * 50) == 50
    assert abs(2 * large.width_for(1e8) ** 2 + 797 * large.width_for(1e8) - 1e8) < 2e4


def test_both_ways_run_three_rounds_and_tell_the_bytes_of_the_model(large: ModuleType) -> None:
    """A width of 12 has 9,862 float32 parameters; the file of the command has a header besides."""
    sizes = {way: large.measure(way, 2 * 12**2 + 797 * 12, 2) for way in large.WAYS}
    assert sizes["federate"]["model"] == 4 * (2 * 12**2 + 797 * 12 + 10)
    assert 0 < sizes["run"]["model"] - sizes["federate"]["model"] < 2000
    assert min(size["peak"] for size in sizes.values()) > 1e6
