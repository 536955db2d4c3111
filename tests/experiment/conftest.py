"""What tests of whole runs begin with."""

from collections.abc import Callable
from pathlib import Path

import pytest

from coterie.experiment.folder_jobs import Outcome
from coterie.experiment.run import RunWatch, run
from coterie.experiment.settings import load_settings
from tests.experiment.files import written

Start = Callable[..., Outcome]


@pytest.fixture
def start(tmp_path: Path) -> Start:
    """Runs the digits file, with overrides, into a folder of tmp_path."""
    path = written(tmp_path)

    def started(*overrides: str, out: str = "run", resume: bool = False, watch: RunWatch | None = None) -> Outcome:
        return run(load_settings(path, overrides), tmp_path / out, resume, watch)

    return started
