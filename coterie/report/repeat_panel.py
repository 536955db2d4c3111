"""How to repeat a run, and what to cite."""

from __future__ import annotations

import shlex

from coterie.report import page_parts
from coterie.report.citations import citations
from coterie.report.run_reader import Run
from coterie.track.run_folder import CONFIG_FILE, ROSTER_FILE, SILOS_FILE, STAGES_FOLDER

_BY_FILES = "A run between silos or without a server is repeated from the files that each of its places has."
_LAST_STAGE = "This repeats the last stage alone; the stages before it have commands of their own."


def repeat_panel(run: Run, pretraining: bool = False) -> str:
    """Return the command that repeats a run, as HTML; a sentence where one command cannot."""
    if (run.folder / SILOS_FILE).is_file() or (run.folder / ROSTER_FILE).is_file():
        return f"<p>{_BY_FILES}</p>"
    verb = "pretrain" if pretraining else "run"
    text = shlex.join(["coterie", verb, CONFIG_FILE, "--out", f"../{run.name}-again"])
    command = page_parts.copyable(text, "the command that repeats this run")
    note = f"<p class=soft>{_LAST_STAGE}</p>" if (run.folder / STAGES_FOLDER).is_dir() else ""
    return f"<p>In this run's folder, with the versions below and the same data:</p>{command}{note}"


def citation_panel(run: Run) -> str | None:
    """Return the BibTeX entries of what a run used, as HTML; None where nothing is known to cite."""
    text = citations(run.config)
    if not text:
        return None
    intro = "<p>The methods, the data and the tools of this run, as BibTeX.</p>"
    return intro + page_parts.copyable(text, "references as BibTeX")
