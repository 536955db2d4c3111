"""How participants' names are spelled in a mailbox: as names of files, without anything that leads elsewhere."""

from __future__ import annotations

from urllib.parse import quote, unquote

from coterie.core.errors import Mistake
from coterie.core.printable import printable

MAX_NAME_BYTES = 220
"""Length of the longest name, spelled as in the mailbox; with an ending it must be the name of a file."""


def spell(name: str) -> str:
    """Return how a participant's name is spelled in a mailbox.

    Raises:
        Mistake: it is too long, empty, or not text.

    >>> spell("../St. Mary's")
    '%2E%2E%2FSt%2E%20Mary%27s'
    """
    try:
        spelled = quote(name, safe="").replace(".", "%2E")
    except UnicodeEncodeError:
        spelled = ""
    if not 0 < len(spelled) <= MAX_NAME_BYTES:
        raise Mistake(
            f"a participant cannot be called {printable(name)[:80]}: choose a shorter name, of letters and digits"
        )
    return spelled


def read_name(spelled: str) -> str | None:
    """Return the name that is spelled so in a mailbox; None if no participant spells one so.

    >>> read_name("St%2E%20Mary%27s"), read_name("%ff")
    ("St. Mary's", None)
    """
    name = unquote(spelled)
    try:
        return name if spell(name) == spelled else None
    except Mistake:
        return None
