"""These tests kill and restart the processes of real silos: `make test-deploy` runs them, `make test` does not."""

import pytest


def pytest_collection_modifyitems(config, items):
    if not config.getoption("--deploy"):
        for item in items:
            if item.path.is_relative_to(config.rootpath / "tests/deploy"):
                item.add_marker(pytest.mark.skip(reason="make test-deploy runs it"))
