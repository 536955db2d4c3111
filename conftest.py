"""Which tests and modules are left out: of an absent package, of real silos, and the long ones."""

import gc
from importlib.util import find_spec

import pytest

collect_ignore = [] if find_spec("nvflare") else ["coterie/silos/nvflare_relay.py"]


def pytest_addoption(parser):
    """Add the options of `make test-deploy`, `make test-long` and `make test-pages`."""
    parser.addoption("--deploy", action="store_true", help="run the tests of real silos too, a quarter of an hour")
    parser.addoption("--pages", action="store_true", help="open pages in a browser too")
    parser.addoption("--long", action="store_true", help="run the long tests too, of whole runs and other processes")


def pytest_configure(config):
    """Name the markers of the tests that are left out."""
    config.addinivalue_line("markers", "long: takes long for what it shows; `make test-long` runs it")
    config.addinivalue_line("markers", "pages: opens pages in a browser; `make test-pages` runs it")


def pytest_collection_modifyitems(config, items):
    """Skip the long tests, and those in a browser, unless they are asked for."""
    for marker in ("long", "pages"):
        for item in items if not config.getoption(f"--{marker}") else ():
            if item.get_closest_marker(marker):
                item.add_marker(pytest.mark.skip(reason=f"make test-{marker} runs it"))


def pytest_collection_finish(session):
    """Let the garbage collector pass over what the imports and the list of tests left: it stays until the end."""
    gc.collect()
    gc.freeze()
