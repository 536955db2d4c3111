"""The one exception that means: the user can mend this; and pieces of its sentences."""

from __future__ import annotations

from collections.abc import Sequence


class Mistake(ValueError):
    """Something the user wrote or gave cannot be used.

    The message is one sentence: the key or file at fault, the value found, and what is allowed or what to do next.
    The command prints it and exits with status 2; a library caller catches it as the `ValueError` it is.
    """


def require(name: str, value: object, right: bool, allowed: str, table: str = "algorithm") -> None:
    """Refuse an argument of an algorithm, or of what another table of the settings names, unless it is `right`.

    Raises:
        Mistake: it is not; the sentence names the key, the value and what is allowed.
    """
    if not right:
        raise Mistake(f"{table}.{name} = {value}: it must be {allowed}")


def reason(error: Exception) -> str:
    """What an exception says, on one line; its kind where it says nothing.

    >>> reason(ValueError("not\\n  so")), reason(EOFError())
    ('not so', 'EOFError')
    """
    return " ".join(str(error).split()) or type(error).__name__


def few(names: Sequence[str], number: int = 3) -> str:
    """The first names, and how many more there are.

    >>> few(["a", "b", "c", "d"], 2)
    'a, b and 2 more'
    """
    more = len(names) - number
    return ", ".join(names[:number]) + (f" and {more} more" if more > 0 else "")
