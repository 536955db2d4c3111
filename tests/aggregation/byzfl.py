"""ByzFL (LPD-EPFL, MIT licence) as an oracle, where it is installed.

Its top package imports torchvision for data sets; its rules need none of it, so they are imported beside it. `make`
installs it so: pip install --no-deps byzfl (and scipy, which scikit-learn brings).
"""

import importlib.util
import sys
from types import ModuleType

import pytest


def oracle(name: str) -> ModuleType:
    """byzfl.aggregators, say; skips the test where ByzFL is missing."""
    if "byzfl" not in sys.modules:
        spec = importlib.util.find_spec("byzfl")
        if spec is None or spec.submodule_search_locations is None:
            pytest.skip("ByzFL is not installed")
        package = ModuleType("byzfl")
        package.__path__ = list(spec.submodule_search_locations)
        sys.modules["byzfl"] = package
    return importlib.import_module(f"byzfl.{name}")
