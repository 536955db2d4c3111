"""Packages whose names are imported when they are asked for, so that importing the package costs nothing."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Mapping
from types import ModuleType
from typing import Any


class _LazyPackage(ModuleType):
    """A package that imports its names when they are asked for.

    A name may be that of the submodule that defines it, such as `fedavg` of `coterie.algorithms.fedavg`. The package's
    attribute is then always what the submodule defines, never the submodule. Other submodules are attributes too, as
    they are of a package that imports them.
    """

    __places__: Mapping[str, str]

    def __getattr__(self, name: str) -> Any:
        """Import and return a name that the package offers, or a submodule."""
        if name in self.__places__:
            module, _, attribute = self.__places__[name].partition(":")
            self.__dict__[name] = getattr(importlib.import_module(module), attribute)
            return self.__dict__[name]
        if name.startswith("_") or importlib.util.find_spec(f"{self.__name__}.{name}") is None:
            raise AttributeError(f"module {self.__name__!r} has no attribute {name!r}")
        return importlib.import_module(f"{self.__name__}.{name}")

    def __setattr__(self, name: str, value: Any) -> None:
        # Python binds a submodule to its package when it has imported it; a name of ours stays ours
        """Set an attribute, except a submodule under a name that the package offers."""
        if not (isinstance(value, ModuleType) and name in self.__places__):
            super().__setattr__(name, value)

    def __dir__(self) -> list[str]:
        """Return all names, with those that are not imported yet."""
        return sorted({*super().__dir__(), *self.__places__})


def export_lazily(package: str, places: Mapping[str, str]) -> None:
    """Let a package offer names whose modules are imported when a name is first asked for.

    For type checkers, import the same names under `if TYPE_CHECKING:`.

    Args:
        package: its `__name__`.
        places: name -> "package.module:name".
    """
    module = sys.modules[package]
    module.__dict__["__places__"] = dict(places)
    module.__class__ = _LazyPackage
