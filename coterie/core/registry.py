"""Functions by name: one kind of registry for algorithms, models, sources, partitions, aggregators, attacks and probes.

A registry holds names and where each function is, as text, so that reading the names imports nothing. A function is
imported when it is asked for.
"""

from __future__ import annotations

import difflib
import importlib
import sys
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

from coterie.core.errors import Mistake, reason
from coterie.core.toml_text import toml_text

OWN_FUNCTION = '"package.module:function"'


class Registry(Mapping[str, Callable[..., Any]]):
    """Functions by name, each imported when it is asked for.

    Args:
        key: the argument that takes one of the names, for messages.
        places: name -> "package.module:function".
        takes_own: whether a user may name a function of their own as "package.module:function".
        more: what else a user may name, in words, for messages.

    >>> tools = Registry("tool", {"join": "os.path:join", "split": "os.path:split"})
    >>> list(tools), tools["join"]("a", "b")
    (['join', 'split'], 'a/b')
    >>> tools.find("joint")
    Traceback (most recent call last):
    ...
    coterie.core.errors.Mistake: tool = "joint": did you mean "join"? It must be one of join, split
    """

    def __init__(
        self, key: str, places: Mapping[str, str], *, takes_own: bool = False, more: Sequence[str] = ()
    ) -> None:
        self.key, self.places, self.takes_own, self.more = key, dict(places), takes_own, tuple(more)

    def __getitem__(self, name: str) -> Callable[..., Any]:
        """Import and return the function called `name`; KeyError if there is none."""
        module, _, function = self.places[name].partition(":")
        found: Callable[..., Any] = getattr(importlib.import_module(module), function)
        return found

    def __contains__(self, name: object) -> bool:
        """Return whether there is such a name, without importing its function."""
        return name in self.places

    def __iter__(self) -> Iterator[str]:
        return iter(self.places)

    def __len__(self) -> int:
        return len(self.places)

    def find(self, name: str, folders: Sequence[str | Path] = (), key: str | None = None) -> Callable[..., Any]:
        """Import and return the function called `name`, of the registry or the user's own; refuse unknown names.

        Args:
            name: one of the names, or "package.module:function" where the registry takes such.
            folders: where a module of the user's own is looked for before the usual places, first to last.
            key: the argument that names it, where that is not the registry's.

        Raises:
            Mistake: there is no such function.
        """
        key = key or self.key
        if self.takes_own and ":" in name:
            return import_own(key, name, folders)
        if name not in self.places:
            near = nearest(name, self)
            hint = f'did you mean "{near}"? It must be' if near else "it must be"
            raise Mistake(f"{hint} {self.offer()}", key=key, value=name)
        return self[name]

    def offer(self) -> str:
        """Return what a user may name, in words."""
        choices = [f"one of {', '.join(self.places)}", *self.more, *([OWN_FUNCTION] if self.takes_own else [])]
        return choices[0] if len(choices) == 1 else f"{', '.join(choices[:-1])}, or {choices[-1]}"


def nearest(name: str, known: Iterable[str]) -> str | None:
    """Return the known name that is most like `name`, in upper or lower case; None if none is like it.

    >>> nearest("mometum", ["momentum", "lr"]), nearest("CNN", ["cnn", "mlp"])
    ('momentum', 'cnn')
    """
    by_lower_case = {each.lower(): each for each in known}
    near = difflib.get_close_matches(name.lower(), by_lower_case, n=1)
    return by_lower_case[near[0]] if near else None


class _Refusal(NamedTuple):
    """Why functions of somebody's own are refused, and those that are not."""

    sentence: str
    known: Collection[str]


_REFUSAL: ContextVar[_Refusal | None] = ContextVar("_REFUSAL", default=None)


@contextmanager
def refuse_own_functions(sentence: str, known: Collection[str] = ()) -> Iterator[None]:
    """Import no function by "package.module:function" within a block, for names that the user did not write.

    Importing a module runs it. So a file of somebody else's that names one would run any code.

    Args:
        sentence: what the message says.
        known: the names that may be imported.

    >>> with refuse_own_functions("the folder names it"):
    ...     import_own("source", "theirs:make")
    Traceback (most recent call last):
    ...
    coterie.core.errors.Mistake: source = "theirs:make": the folder names it
    """
    before = _REFUSAL.set(_Refusal(sentence, known))
    try:
        yield
    finally:
        _REFUSAL.reset(before)


def import_own(key: str, name: str, folders: Sequence[str | Path] = ()) -> Callable[..., Any]:
    """Import and return the user's own function called "package.module:function".

    Args:
        key: the argument that names it, for messages.
        name: what it says.
        folders: where the module is looked for before the usual places, first to last.

    Raises:
        Mistake: it is refused (`refuse_own_functions`), its module cannot be imported or is one of Python's own, or it
            has no such function.
    """
    module_name, _, function_name = name.partition(":")
    places = [Path(folder) for folder in folders]
    refusal = _REFUSAL.get()
    if refusal is not None and name not in refusal.known:
        raise Mistake(refusal.sentence, key=key, value=name)
    top = module_name.partition(".")[0]
    if top in sys.stdlib_module_names and _find_home(top, places) is None:
        raise Mistake(
            f"{top} is a part of Python; name a function of your own, in a module of your own", key=key, value=name
        )
    try:
        module = _import_from(module_name, places)
    except (ImportError, SyntaxError, ValueError) as error:
        looked = f" from {', '.join(map(str, places))}" if places else ""
        raise Mistake(f"{module_name} cannot be imported{looked} ({reason(error)})", key=key, value=name) from error
    except Exception as error:  # anything that a user's module raises
        sentence = f"{module_name} cannot be imported ({type(error).__name__}: {reason(error)})"
        raise Mistake(sentence, key=key, value=name) from error
    function = getattr(module, function_name, None)
    if not callable(function):
        raise Mistake(f"{module.__file__} has no function {toml_text(function_name)}", key=key, value=name)
    found: Callable[..., Any] = function
    return found


def _import_from(name: str, folders: Sequence[Path]) -> ModuleType:
    """Import a module from the first of the folders that has it, or from the usual places."""
    top = name.partition(".")[0]
    home = _find_home(top, folders)
    if home is None:
        return importlib.import_module(name)
    _forget_namesake(top, home)
    with _first_on_path(home):
        return importlib.import_module(name)


def _find_home(top: str, folders: Sequence[Path]) -> Path | None:
    """Return the first of the folders that has a module or package called `top`."""
    return next((f for f in folders if (f / top).is_dir() or (f / f"{top}.py").is_file()), None)


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
    """Let Python look into this folder first for modules, within a block."""
    before = list(sys.path)
    sys.path.insert(0, str(folder))
    importlib.invalidate_caches()
    try:
        yield
    finally:
        sys.path[:] = before
