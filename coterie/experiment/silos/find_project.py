"""Find the project that an experiment file was made for, and a silo's folder."""

from __future__ import annotations

from pathlib import Path

from coterie.core.errors import Mistake, few
from coterie.experiment.silos.silo_folder import INVITATION_FILE
from coterie.silos.project import PROJECT_FILE


def find_project(file: Path, given: Path | None) -> Path:
    """Return the folder of a project: the one that is given, or the only one at the file or in the working directory.

    Raises:
        Mistake: there is none, or there are several.
    """
    if given is not None:
        return given
    here = dict.fromkeys([file.resolve().parent, Path.cwd()])
    places = [place for folder in here for place in (folder, *sorted(folder.glob("*/")))]
    found = list(dict.fromkeys(place for place in places if (place / PROJECT_FILE).is_file()))
    if len(found) == 1:
        return found[0]
    if not found:
        raise Mistake(
            f"no project is here: make one with coterie deploy init {file} DIR --silos NAME,NAME, or give --project"
        )
    raise Mistake(f"there are several projects here ({few([str(path) for path in found])}); choose one with --project")


def find_silo(folder: Path | None) -> Path:
    """Return a silo's folder: the one that is given, the working directory, or the only one in it.

    Raises:
        Mistake: there is none, or there are several.
    """
    if folder is not None:
        if not (folder / INVITATION_FILE).is_file():
            raise Mistake(f"{folder}: is not a silo's folder; make one with coterie deploy request INVITATION")
        return folder
    found = [place for place in (Path(), *sorted(Path().glob("*/"))) if (place / INVITATION_FILE).is_file()]
    if found[:1] == [Path()] or len(found) == 1:
        return found[0]
    if not found:
        raise Mistake("no silo's folder is here: make one with coterie deploy request INVITATION, or name it")
    raise Mistake(f"there are several silos' folders here ({few([str(path) for path in found])}); name one")
