"""What a run that goes on takes over from its folder, and whether anything of it is left to do."""

from __future__ import annotations

from coterie.core.errors import Mistake
from coterie.core.threads import threads_by_default
from coterie.experiment.algorithm_options import adopt_algorithm, complete_algorithm
from coterie.experiment.config_toml import adopt_choices, complete_threads, find_changes
from coterie.experiment.folder_jobs import write_missing_report
from coterie.experiment.mend_folder import is_whole
from coterie.experiment.settings import Settings, load_settings
from coterie.experiment.trust import code_of_file
from coterie.track import RunFolder

ROUNDS = "rounds"


def adopt_settings(settings: Settings, folder: RunFolder, may_change: str = ROUNDS) -> Settings:
    """Fill what the settings leave open from the run in the folder, and refuse those that differ from it.

    Args:
        settings: of a run that goes on.
        folder: where it was stopped.
        may_change: the key, or the table, that may differ.

    Raises:
        Mistake: they differ from those of the run.
    """
    with code_of_file(folder.path, settings.tables()):
        earlier = complete_threads(complete_algorithm(load_settings(folder.config)), threads_by_default())
    settings = adopt_choices(adopt_algorithm(settings, earlier), earlier)
    changed = [key for key in find_changes(settings, earlier) if key.partition(".")[0] != may_change]
    if changed:
        raise Mistake(
            f"{', '.join(changed)}: changed since the run in {folder.path} began; "
            f"only {may_change} may change with --resume, so start another run with --out"
        )
    return settings


def is_finished(folder: RunFolder, settings: Settings) -> bool:
    """Return whether a run needs no more rounds and its files are whole; a missing report is written."""
    end = folder.read_summary()
    if end is None or (end["stopped"] == "rounds" and end["rounds"] < settings.rounds):
        return False
    if not is_whole(folder):
        return False
    write_missing_report(folder)
    return True
