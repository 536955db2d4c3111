"""Options that several commands have, and their names in mistakes about a function's arguments."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from coterie.cli.complete_keys import complete_override
from coterie.core.errors import Mistake

File = Annotated[Path, typer.Argument(metavar="FILE", help="The experiment, a TOML file.")]
Overrides = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="TABLE.KEY=VALUE",
        help="Keys to change, such as algorithm.lr=0.05.",
        autocompletion=complete_override,
    ),
]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Print only notes and mistakes, to standard error.")]
AsJson = Annotated[
    bool, typer.Option("--json", help="Print each round's record and then the summary as JSON, one a line.")
]
Resume = Annotated[bool, typer.Option("--resume", help="Continue a stopped run; start if there is none.")]
Trust = Annotated[bool, typer.Option("--trust", help="Run code that a run folder names, package.module:function.")]


@contextmanager
def mistakes_in_options() -> Iterator[None]:
    """Turn a mistake in a block about an argument, `on = "x"`, into one about the option of its name, `--on x`.

    >>> with mistakes_in_options():
    ...     raise Mistake(key="target", value=97.0, allowed="an accuracy")
    Traceback (most recent call last):
    ...
    coterie.core.errors.Mistake: --target 97: it must be an accuracy
    """
    try:
        yield
    except Mistake as mistake:
        if mistake.key is None or mistake.table:
            raise
        value = f"{mistake.value:g}" if isinstance(mistake.value, float) else mistake.value
        text = mistake.sentence or f"it must be {mistake.allowed}"
        raise Mistake(f"--{mistake.key} {value}: {text}") from mistake.__cause__
