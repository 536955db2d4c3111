"""For mkdocstrings: docstrings as Markdown and griffe understand them."""

from __future__ import annotations

import re
from typing import Any

import griffe

SECTIONS = re.compile(r"(.*?)(^(?:Args|Attributes):$|\Z)(.*)", re.DOTALL | re.MULTILINE)
DOCTEST = re.compile(r"^( *)(>>> .*(?:\n(?! *$).+)*)", re.MULTILINE)
SEVERAL = re.compile(r"^( +)(\*{0,2}\w+(?:, \*{0,2}\w+)+)(: .*(?:\n\1 +\S.*)*)", re.MULTILINE)


def mend(text: str) -> str:
    """Return a docstring with fences around doctests, and with an entry for each of several arguments.

    Without a fence, Markdown takes `>>>` for a quotation; griffe takes the second argument for the type of the first.

    >>> print(mend("Args:\\n    a, b: numbers."))
    Args:
        a: numbers.
        b: numbers.
    >>> mend("Add.\\n\\n>>> 1 + 1")
    'Add.\\n\\n```pycon\\n>>> 1 + 1\\n```'
    """
    head, start, sections = SECTIONS.findall(text)[0]
    entries = SEVERAL.sub(lambda m: "\n".join(f"{m[1]}{name}{m[3]}" for name in m[2].split(", ")), sections)
    return DOCTEST.sub(r"\1```pycon\n\1\2\n\1```", head + start + entries)


class Mend(griffe.Extension):
    """Mend every docstring."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        """Mend the docstring of one object."""
        if obj.docstring is not None:
            obj.docstring.value = mend(obj.docstring.value)
