"""Names of sources, partitions and augmentations, which can be read without PyTorch."""

from __future__ import annotations

import inspect
import subprocess
import sys

import pytest

from coterie import data
from coterie.data import AUGMENTATIONS, PARTITIONS, SOURCES, Source
from coterie.data.sources import MADE_OF

READ = """
import sys
sys.modules["torch"] = None  # importing torch fails
from coterie.data import AUGMENTATIONS, PARTITIONS, SOURCES
from coterie.data.partitions import dirichlet
print(*AUGMENTATIONS, *PARTITIONS, *SOURCES)
print(dirichlet(alpha=0.3).arguments["alpha"])
try:
    SOURCES.find("mnits")
except ValueError as mistake:
    print(mistake)
"""


def test_names_are_read_and_partitions_are_made_without_pytorch():
    done = subprocess.run([sys.executable, "-c", READ], capture_output=True, text=True, check=True)
    names, alpha, mistake = done.stdout.splitlines()
    assert names.split() == [*AUGMENTATIONS, *PARTITIONS, *SOURCES]
    assert alpha == "0.3"
    assert mistake.startswith('source = "mnits": did you mean "mnist"?')


@pytest.mark.parametrize("name", SOURCES)
def test_a_source_is_a_documented_function_that_returns_a_source(name):
    function = SOURCES[name]
    assert function.__name__ == name
    assert inspect.get_annotations(function, eval_str=True)["return"] is Source
    assert inspect.getdoc(function)
    for key in inspect.signature(function).parameters:
        assert key not in ("source", "partition", "standardize", "augment"), "it is a key of [data] already"


def test_sources_that_read_files_of_others_are_registered():
    assert MADE_OF.keys() <= SOURCES.keys()
    assert all(name in SOURCES for names in MADE_OF.values() for name in names)


def test_every_exported_name_exists():
    assert all(hasattr(data, name) for name in data.__all__)
