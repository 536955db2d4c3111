"""Which tests and modules are left out: those of an optional package that is absent, and those of real silos."""

from importlib.util import find_spec

collect_ignore = [] if find_spec("nvflare") else ["coterie/silos/nvflare_relay.py"]


def pytest_addoption(parser):
    """Add the option of `make test-deploy`."""
    parser.addoption("--deploy", action="store_true", help="run the tests of real silos too, a quarter of an hour")
