"""data.json: digests of the data and of the user's own code that a run began with, so that it goes on with the same."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from coterie.core.digests import file_digest
from coterie.core.errors import Mistake, reason
from coterie.data.origins import find_difference
from coterie.experiment.build_experiment import Experiment
from coterie.experiment.settings import Settings, model_names
from coterie.track import RunFolder
from coterie.track.run_folder import DATA_FILE


def describe_data(experiment: Experiment) -> dict[str, Any]:
    """Return the entries of data.json.

    Raises:
        Mistake: a file of the data cannot be read any more.
    """
    try:
        return {**experiment.origins.record(), "code": _digest_code(experiment.settings)}
    except OSError as error:
        raise Mistake(f"{error.filename}: cannot be read again ({error.strerror}); put it back") from error


def _digest_code(settings: Settings) -> dict[str, str]:
    """Return the digest of each module of the user's own that the settings name, by the module's name."""
    sources = [settings.data["source"], settings.seed_set.get("source") or ""]
    names = [name for name in [*sources, settings.algorithm["name"], *model_names(settings)] if ":" in name]
    modules = {name.partition(":")[0] for name in names}
    files = {module: getattr(sys.modules.get(module), "__file__", None) for module in modules}
    return {module: file_digest(Path(file)) for module, file in sorted(files.items()) if file}


def check_data(experiment: Experiment, folder: RunFolder, say: Callable[[str], None]) -> None:
    """Refuse to continue a run on other data than it began with.

    Args:
        experiment: built again.
        folder: of the run.
        say: is told of what cannot be checked, and of code that has changed.

    Raises:
        Mistake: a file or the content of the data has changed.
    """
    path = folder.path / DATA_FILE
    if not path.is_file():
        say(f"{folder.path}: has no {DATA_FILE}, so it is not checked that the data are those that the run began with")
        return
    now = describe_data(experiment)
    try:
        before = json.loads(path.read_bytes())
        difference = find_difference(now, before)
        code = [name for name, value in now["code"].items() if before["code"].get(name, value) != value]
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise Mistake(
            f"{path}: is damaged ({reason(error)}); put back a copy, or start another run with --out"
        ) from error
    if difference is not None:
        raise Mistake(
            f"data changed since the run in {folder.path} began: {difference}; put the data back, or start another run "
            "with --out"
        )
    for name in code:
        say(f"the module {name} has changed since this run began: later rounds use the new code")
