"""Optional packages, imported when they are used."""

from __future__ import annotations

import importlib
from typing import Any

from coterie.core.errors import UNSET, Mistake, reason


def import_package(name: str, wanted_by: str, extra: str, value: Any = UNSET) -> Any:
    """Import and return a module of an optional package.

    Args:
        name: as in an import statement.
        wanted_by: the argument that needs it, with its `value`; or in words what needs it, without.
        extra: the extra of coterie that installs it.
        value: the argument's value.

    Raises:
        Mistake: it is not installed, or cannot be imported.

    >>> import_package("os.path", "this line", "nothing").basename("a/b")
    'b'
    """
    called = name.partition(".")[0].replace("_", "-")
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        sentence = f"needs the package {called}, which is not installed; pip install 'coterie[{extra}]'"
        raise _mistake(wanted_by, value, sentence) from error
    except (ImportError, RuntimeError, OSError) as error:  # a build for another PyTorch, say
        why = reason(error)
        sentence = (
            f"needs the package {called}, which cannot be imported here ({why}); install one that fits, "
            f"such as that of pip install 'coterie[{extra}]'"
        )
        raise _mistake(wanted_by, value, sentence) from error


def _mistake(wanted_by: str, value: Any, sentence: str) -> Mistake:
    """Return a mistake about the argument `wanted_by`, or, without a value, about what it names in words."""
    if value is UNSET:
        return Mistake(f"{wanted_by}: {sentence}")
    return Mistake(sentence, key=wanted_by, value=value)
