"""Read the keys that a function takes from its source file, without importing it, and so without importing PyTorch.

Names in annotations and defaults are followed to where they are written: in the same file, or in another file of this
package. Types of other packages, such as tensors, stay opaque.
"""

from __future__ import annotations

import ast
import builtins
import functools
import importlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from coterie.core.options import option_of
from coterie.core.registry import Registry
from coterie.experiment.keys import REQUIRED, Key, Keys, key_of_option, keys_of

_PACKAGE = "coterie"
_FOLDER = Path(__file__).parents[1]
_IMPORTED = ("annotated_types", "collections.abc", "pathlib", "typing", "coterie.core.options")
"""Modules that are imported, since they need no PyTorch."""


class Opaque:
    """The base of types that stand for what is not imported. Their names are those in the source."""


def registry_keys(registry: Registry, name: str, folders: Sequence[Path] = (), key: str | None = None) -> Keys:
    """Return the keys of a registry's function called `name`, or of the user's own, which alone is imported.

    Args:
        registry: where it is looked for.
        name: one of its names, or "package.module:function" where the registry takes such.
        folders: where a module of the user's own is looked for.
        key: the key that names it, for messages.

    Raises:
        Mistake: there is no such function.
    """
    return read_keys(registry.places[name]) if name in registry else keys_of(registry.find(name, folders, key))


@functools.cache
def read_keys(place: str) -> Keys:
    """Return the keys of a function or a dataclass at "package.module:name", as `keys_of` gives them.

    >>> read_keys("coterie.algorithms.fedavg:fedsgd")["lr_decay"].default
    1.0
    """
    source, node = _find_definition(place)
    if isinstance(node, ast.ClassDef):
        return Keys({name: Key(source.evaluate(kind), default) for name, kind, default in _fields(source, node)})
    keys = Keys()
    for argument, default in _arguments(node.args):
        kind = Any if argument.annotation is None else source.evaluate(argument.annotation)
        keys[argument.arg] = Key(kind, REQUIRED if default is None else source.evaluate(default))
    if node.args.kwarg is not None:
        options = _options_name(node.args.kwarg.annotation)
        keys = keys if options is None else keys.join(_read_options(source, options))
        keys.open = options is None
    return keys


def read_description(place: str) -> str:
    """Return the first line of the docstring of the function or class at "package.module:name".

    >>> read_description("coterie.data.sources.digits:digits")[:17]
    'Load scikit-learn'
    """
    return (ast.get_docstring(_find_definition(place).node) or "").partition("\n")[0]


def read_constant(place: str) -> Any:
    """Return the value of the constant at "package.module:NAME" of this package, without importing its module."""
    module, _, name = place.partition(":")
    return _read_source(module).resolve(name)


def _arguments(arguments: ast.arguments) -> Iterator[tuple[ast.arg, ast.expr | None]]:
    """Yield the arguments that can be given by name, each with its default."""
    plain = [*arguments.posonlyargs, *arguments.args]
    without_default = len(plain) - len(arguments.defaults)
    defaults = [*[None] * without_default, *arguments.defaults]
    yield from list(zip(plain, defaults, strict=True))[len(arguments.posonlyargs) :]
    yield from zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True)


def _fields(source: _Source, node: ast.ClassDef) -> Iterator[tuple[str, ast.expr, Any]]:
    """Yield the fields of a class in its order: name, annotation and default. Those of its bases come first."""
    for base in node.bases:
        found = source.find(base.id) if isinstance(base, ast.Name) else None
        if found is not None and isinstance(found.node, ast.ClassDef):
            yield from _fields(found.source, found.node)
    for line in node.body:
        if isinstance(line, ast.AnnAssign) and isinstance(line.target, ast.Name) and not _is_class_variable(line):
            default = REQUIRED if line.value is None else source.evaluate(line.value)
            yield line.target.id, line.annotation, default


def _is_class_variable(line: ast.AnnAssign) -> bool:
    return ast.unparse(line.annotation).startswith("ClassVar")


def _options_name(annotation: ast.expr | None) -> str | None:
    """Return the name of the `TypedDict` in an annotation `Unpack[...]`."""
    inside = annotation.slice if isinstance(annotation, ast.Subscript) else None
    return inside.id if isinstance(inside, ast.Name) else None


def _read_options(source: _Source, name: str) -> Keys:
    """Return the keys of an options class; see `coterie.core.options`."""
    found = source.find(name)
    assert found is not None, f"{name} is defined in this package"
    assert isinstance(found.node, ast.ClassDef), f"{name} is a class"
    annotations = {field: found.source.evaluate(kind) for field, kind, _ in _fields(found.source, found.node)}
    return Keys({field: key_of_option(option_of(kind)) for field, kind in annotations.items()})


class _Definition(NamedTuple):
    """A statement that defines a name, and the file in which it stands."""

    source: _Source
    node: ast.stmt


class _Defined(NamedTuple):
    """A function or a class, and the file in which it stands."""

    source: _Source
    node: ast.FunctionDef | ast.ClassDef


def _find_definition(place: str) -> _Defined:
    module, _, name = place.partition(":")
    found = _read_source(module).find(name)
    assert found is not None, f"{place} is defined in this package"
    assert isinstance(found.node, ast.FunctionDef | ast.ClassDef), f"{place} is a function or a class"
    return _Defined(found.source, found.node)


@functools.cache
def _read_source(module: str) -> _Source:
    path = _FOLDER.joinpath(*module.split(".")[1:])
    file = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    return _Source(module, ast.parse(file.read_text(encoding="utf-8")))


class _Source(Mapping[str, Any]):
    """A source file, as a mapping from the names that it defines to their values."""

    def __init__(self, module: str, tree: ast.Module) -> None:
        self.module = module
        self._nodes = {name: node for node in _statements(tree.body) for name in _names_defined(node)}

    def find(self, name: str) -> _Definition | None:
        """Return the definition of a name, in this file or in another one that it is imported from."""
        node = self._nodes.get(name)
        if not isinstance(node, ast.ImportFrom):
            return None if node is None else _Definition(self, node)
        module = node.module or ""
        if module in _IMPORTED or module.partition(".")[0] != _PACKAGE:
            return _Definition(self, node)
        original = _original_name(node, name)
        return _read_source(module).find(original)

    def resolve(self, name: str) -> Any:
        """Return the value of a name; an opaque type for what is not evaluated."""
        if name not in self._nodes and hasattr(builtins, name):
            return getattr(builtins, name)
        found = self.find(name)
        if found is None:
            return self._resolve_module(name)
        node = found.node
        if isinstance(node, ast.Assign | ast.AnnAssign) and node.value is not None:
            return found.source.evaluate(node.value)
        if isinstance(node, ast.ImportFrom) and node.module in _IMPORTED:
            original = _original_name(node, name)
            return getattr(importlib.import_module(node.module), original)
        return _opaque(name)

    def _resolve_module(self, name: str) -> Any:
        """Return a module that this file imports, read but not imported: its names as attributes."""
        node = self._nodes.get(name)
        if not isinstance(node, ast.ImportFrom):
            return _opaque(name)
        original = _original_name(node, name)
        return _Attributes(_read_source(f"{node.module}.{original}"))

    def evaluate(self, expression: ast.expr) -> Any:
        """Return the value of an expression; an opaque type where it cannot be evaluated."""
        try:
            return eval(compile(ast.Expression(expression), self.module, "eval"), {"__builtins__": {}}, self)
        except (NameError, TypeError, AttributeError):
            return _opaque(ast.unparse(expression))

    def __getitem__(self, name: str) -> Any:
        return self.resolve(name)

    def __iter__(self) -> Iterator[str]:
        return iter(self._nodes)

    def __len__(self) -> int:
        return len(self._nodes)


class _Attributes:
    """The names of a source file as attributes."""

    def __init__(self, source: _Source) -> None:
        self._source = source

    def __getattr__(self, name: str) -> Any:
        return self._source.resolve(name)


def _statements(body: list[ast.stmt]) -> Iterator[ast.stmt]:
    """Yield a file's statements, those below `if TYPE_CHECKING:` included."""
    for node in body:
        yield from _statements(node.body) if isinstance(node, ast.If) else [node]


def _names_defined(node: ast.stmt) -> list[str]:
    if isinstance(node, ast.FunctionDef | ast.ClassDef):
        return [node.name]
    if isinstance(node, ast.ImportFrom):
        return [alias.asname or alias.name for alias in node.names]
    targets = node.targets if isinstance(node, ast.Assign) else [node.target] if isinstance(node, ast.AnnAssign) else []
    return [target.id for target in targets if isinstance(target, ast.Name)]


def _original_name(node: ast.ImportFrom, name: str) -> str:
    return next(alias.name for alias in node.names if (alias.asname or alias.name) == name)


@functools.cache
def _opaque(name: str) -> type[Opaque]:
    return type(name, (Opaque,), {})
