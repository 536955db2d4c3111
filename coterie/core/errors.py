"""`Mistake`, the exception for what the user can mend, and functions that write its sentences."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from coterie.core.toml_text import toml_text

_ARGUMENT = re.compile(r"`([a-z_]+)`")


class _Unset:
    """The value of a mistake that is about no value."""


UNSET = _Unset()


class Mistake(ValueError):
    """Something the user wrote or gave cannot be used.

    A mistake about an argument says which one, its value, and what is allowed. It names the argument as the function
    that raises it does; the experiment adds the table of the file that the argument comes from (`in_table`). So a
    caller in Python reads `num_clients = 0: it must be 1 or more`, and a user of the command reads
    `data.num_clients = 0: it must be 1 or more`. The command prints it and exits with status 2.

    Args:
        sentence: what is wrong and what to do, where `allowed` does not say it. Names of other arguments stand in
            backticks, such as "lower `num_clients`", so that they get the table's name too.
        key: the argument, or None where the mistake is about something else, such as a file.
        value: what was given; left out where nothing was.
        allowed: what the value must be, as in "1 or more".

    Attributes:
        table: the table of a file that the argument comes from; empty in Python.

    >>> str(Mistake(key="alpha", value=-1, allowed="above 0"))
    'alpha = -1: it must be above 0'
    >>> str(Mistake("no draw fits; lower `num_clients`", key="alpha", value=0.1).in_table("data"))
    'data.alpha = 0.1: no draw fits; lower data.num_clients'
    >>> str(Mistake("a.csv: row 3 has no ward; leave out `client_column`").in_table("data"))
    'a.csv: row 3 has no ward; leave out data.client_column'
    """

    def __init__(
        self,
        sentence: str = "",
        *,
        key: str | None = None,
        value: Any = UNSET,
        allowed: str = "",
        table: str = "",
    ) -> None:
        super().__init__(sentence)
        self.sentence, self.key, self.value, self.allowed, self.table = sentence, key, value, allowed, table

    def __str__(self) -> str:
        """Return the whole sentence: the argument with its table, its value, and what is wrong."""
        text = self.sentence or f"it must be {self.allowed}"
        if self.key is not None:
            given = "" if self.value is UNSET else f" = {toml_text(self.value)}"
            text = f"{self._full_name(self.key)}{given}: {text}"
        return _ARGUMENT.sub(lambda match: self._full_name(match[1]), text)

    def __reduce__(self) -> tuple[Any, ...]:
        """Return how to make this mistake again after pickling, since processes of one run send their mistakes."""
        return _remake, (
            self.sentence,
            self.key,
            None if self.value is UNSET else (self.value,),
            self.allowed,
            self.table,
        )

    def in_table(self, table: str) -> Mistake:
        """Return this mistake with the table that its arguments come from, unless it names a table already."""
        if self.table:
            return self
        return Mistake(self.sentence, key=self.key, value=self.value, allowed=self.allowed, table=table)

    def _full_name(self, name: str) -> str:
        """Return an argument's name after its table's, if there is one."""
        return f"{self.table}.{name}" if self.table else name


class FolderGone(RuntimeError):
    """A run folder was removed or replaced while a run wrote into it. The command prints it and exits with status 1.

    Args:
        folder: the folder.

    >>> print(FolderGone("runs/a"))
    runs/a: was removed or replaced while the run wrote there, so the run has ended; start it again
    """

    def __init__(self, folder: object) -> None:
        super().__init__(folder)
        self.folder = folder

    def __str__(self) -> str:
        return f"{self.folder}: was removed or replaced while the run wrote there, so the run has ended; start it again"


def _remake(sentence: str, key: str | None, value: tuple[Any, ...], allowed: str, table: str) -> Mistake:
    """Return the mistake that `__reduce__` described."""
    return Mistake(sentence, key=key, value=value[0] if value else UNSET, allowed=allowed, table=table)


@contextmanager
def mistakes_in(table: str) -> Iterator[None]:
    """Add a table's name to the mistakes that are raised in a block, for functions that get their arguments from it.

    >>> with mistakes_in("cohort"):
    ...     raise Mistake(key="size", value=0, allowed="1 or more")
    Traceback (most recent call last):
    ...
    coterie.core.errors.Mistake: cohort.size = 0: it must be 1 or more
    """
    try:
        yield
    except Mistake as mistake:
        raise mistake.in_table(table) from mistake.__cause__


def require(key: str, value: object, right: bool, allowed: str) -> None:
    """Refuse an argument unless it is `right`.

    Raises:
        Mistake: it is not; the sentence names the argument, the value and what is allowed.
    """
    if not right:
        raise Mistake(key=key, value=value, allowed=allowed)


def reason(error: Exception) -> str:
    """Return what an exception says, on one line; its type if it says nothing.

    >>> reason(ValueError("not\\n  so")), reason(EOFError())
    ('not so', 'EOFError')
    """
    return " ".join(str(error).split()) or type(error).__name__


def few(names: Sequence[str], number: int = 3) -> str:
    """Return the first `number` names, and how many more there are, as text.

    >>> few(["a", "b", "c", "d"], 2)
    'a, b and 2 more'
    """
    more = len(names) - number
    return ", ".join(names[:number]) + (f" and {more} more" if more > 0 else "")
