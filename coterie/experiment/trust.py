"""Trust in the code that a run folder names.

A run's config.toml may name functions as "package.module:function", and using the run again imports them, which runs
them. The user's own file is the user's word. A folder may come from somebody else.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

from coterie.core.registry import refuse_own_functions


def code_of_folder(folder: Path, trust: bool) -> AbstractContextManager[None]:
    """Refuse, within a block, the code that a run folder names, unless the user trusts it.

    Args:
        folder: the run folder.
        trust: whether its code may be run.
    """
    if trust:
        return nullcontext()
    return refuse_own_functions(
        f"{folder} names this code, and using it would run the code; if you know it, trust it with --trust "
        "(in Python, trust=True)"
    )


def code_of_file(folder: Path, tables: Mapping[str, Any]) -> AbstractContextManager[None]:
    """Refuse, within a block, the code that a run folder names, unless the user's own file names it too.

    Args:
        folder: the run folder, which is to be continued.
        tables: the content of the user's file.
    """
    return refuse_own_functions(
        f"{folder} names this code, but your file does not, so it is another run; start yours with --out",
        set(_list_texts(tables)),
    )


def _list_texts(value: Any) -> Iterator[str]:
    """Yield the texts in nested tables and lists."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for each in value.values():
            yield from _list_texts(each)
    elif isinstance(value, list | tuple):
        for each in value:
            yield from _list_texts(each)
