"""The keys of an experiment, for the Tab key of a shell."""

from __future__ import annotations

from pathlib import Path

import typer

from coterie.core.errors import Mistake


def complete_override(context: typer.Context, incomplete: str) -> list[str]:
    """Return the keys that begin so, each with its "=", for the file that the command line names before.

    A file that is absent, or has a mistake, gives none: what is printed while a user types would spoil the line.
    """
    from coterie.experiment.check_values import full_name
    from coterie.experiment.read_keys import read_keys
    from coterie.experiment.tables import CHOSEN, FIXED, TOP
    from coterie.experiment.toml_file import read_toml

    try:
        raw = read_toml(Path(str(context.params.get("file"))))
        names = [*TOP]
        for table in (*CHOSEN, *FIXED):
            keys = CHOSEN[table](raw.get(table, {}), []) if table in CHOSEN else read_keys(FIXED.places[table])
            names += [full_name(table, key) for key in keys]
    except (Mistake, OSError, AttributeError, TypeError):
        return []
    return [f"{name}=" for name in names if name.startswith(incomplete)]
