"""Functions by the name that a file gives them: one of ours, or "package.module:function" of the user's own."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

from coterie.core.errors import Mistake
from coterie.experiment.refuse import nearest, shown


def find(key: str, name: str, known: Mapping[str, Callable[..., Any]], folders: Sequence[Path]) -> Callable[..., Any]:
    """The function called `name`.

    Args:
        key: the key that names it, for the message.
        name: one of `known`, or "package.module:function".
        folders: where such a module is looked for before the usual places, first to last.

    Raises:
        Mistake: there is no such function.
    """
    if ":" in name:
        return own(key, name, folders)
    if name not in known:
        near = nearest(name, known)
        hint = f'did you mean "{near}"? It' if near else "it"
        raise Mistake(f"{key} = {shown(name)}: {hint} must be {offered(known)}")
    return known[name]


def offered(known: Iterable[str]) -> str:
    """What such a key may be, in words."""
    return f'one of {", ".join(known)}, or "package.module:function"'


def own(key: str, name: str, folders: Sequence[Path]) -> Callable[..., Any]:
    """The user's own function called "package.module:function".

    Raises:
        Mistake: its module cannot be imported, or has no such function.
    """
    module_name, _, function_name = name.partition(":")
    try:
        module = _imported(module_name, folders)
    except (ImportError, SyntaxError, ValueError) as error:
        looked = ", ".join(str(folder) for folder in folders)
        raise Mistake(f"{key} = {shown(name)}: {module_name} cannot be imported from {looked} ({error})") from error
    function = getattr(module, function_name, None)
    if not callable(function):
        raise Mistake(f'{key} = {shown(name)}: {module.__file__} has no function "{function_name}"')
    found: Callable[..., Any] = function
    return found


def _imported(name: str, folders: Sequence[Path]) -> ModuleType:
    top = name.partition(".")[0]
    home = next((f for f in folders if (f / top).is_dir() or (f / f"{top}.py").is_file()), None)
    if home is None:
        return importlib.import_module(name)
    _forget_namesake(top, home)
    with _first_on_path(home):
        return importlib.import_module(name)


def _forget_namesake(top: str, home: Path) -> None:
    """Drop a module of the same name that came from another folder, as when two experiments each have a `model.py`."""
    loaded = sys.modules.get(top)
    file = getattr(loaded, "__file__", None)
    if loaded is None or (file and Path(file).resolve().is_relative_to(home.resolve())):
        return
    for name in [n for n in sys.modules if n == top or n.startswith(f"{top}.")]:
        del sys.modules[name]


@contextmanager
def _first_on_path(folder: Path) -> Iterator[None]:
    before = list(sys.path)
    sys.path.insert(0, str(folder))
    importlib.invalidate_caches()
    try:
        yield
    finally:
        sys.path[:] = before
