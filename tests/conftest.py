"""Settings of the whole suite."""

import os
from typing import Any

import hypothesis
import pytest
import torch
from matplotlib.figure import Figure

save_whole_picture = Figure.savefig
os.fsync = lambda handle: None  # the kernel keeps what a killed process wrote; of power loss no test can tell

torch.set_num_threads(1)  # tests run side by side, one process a core
hypothesis.settings.register_profile("suite", deadline=None, max_examples=40, derandomize=True)
hypothesis.settings.load_profile("suite")

collect_ignore_glob = ["experiment/older_folders/*"]  # modules of the fixtures, two of the same name


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "pictures: looks at what the charts of a report show")


@pytest.fixture(autouse=True)
def quick_pictures(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Draw charts, but lay none of them out, which takes longer than the run that a test is about.

    Tests of reports, and those with the mark `pictures`, have whole ones.
    """
    if request.path.parent.name != "report" and not request.node.get_closest_marker("pictures"):
        monkeypatch.setattr(Figure, "savefig", save_empty_picture)


def save_empty_picture(figure: Figure, file: Any, *, format: str, **options: Any) -> None:
    if format == "svg":
        file.write('<svg viewBox="0 0 1 1"></svg>')
    else:
        save_whole_picture(figure, file, format=format, **options)
