"""Packages that not everyone has, imported when they are used."""

from __future__ import annotations

import importlib
from typing import Any

from coterie.core.errors import Mistake, reason


def package(name: str, wanted_by: str, extra: str) -> Any:
    """A module of a package.

    Args:
        name: as in an import statement.
        wanted_by: the key and value that need it, for the message.
        extra: of coterie's, which installs it.

    Raises:
        Mistake: it is not installed, or not as it should be.

    >>> package("os.path", "this line", "nothing").basename("a/b")
    'b'
    """
    called = name.partition(".")[0].replace("_", "-")
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        raise Mistake(
            f"{wanted_by}: needs the package {called}, which is not installed; pip install 'coterie[{extra}]'"
        ) from error
    except (ImportError, RuntimeError, OSError) as error:  # a build for another PyTorch, say
        why = reason(error)
        raise Mistake(
            f"{wanted_by}: needs the package {called}, which cannot be imported here ({why}); install one that fits, "
            f"such as that of pip install 'coterie[{extra}]'"
        ) from error
