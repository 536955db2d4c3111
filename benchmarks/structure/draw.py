"""Draw functions of the package at random, for a reader who says from name and first line what each does.

    python benchmarks/structure/draw.py SEED [--bodies]      sixty functions; with their bodies for the judge

The verdicts are in docs/decisions/0011-the-redrawn-house.md.
"""

from __future__ import annotations

import ast
import random
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

PACKAGE = Path(__file__).resolve().parents[2] / "coterie"
DRAWN = 60


class Function(NamedTuple):
    """A function: where it is, its first lines, and its body."""

    place: str
    signature: str
    first_line: str
    body: str


def nested_functions(node: ast.AST, scope: str = "") -> Iterator[tuple[ast.FunctionDef | ast.AsyncFunctionDef, str]]:
    """Yield every function below a node, with the names of the functions and classes around it."""
    for child in ast.iter_child_nodes(node):
        inside = scope
        if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            inside = f"{scope}.{child.name}".lstrip(".")
            if not isinstance(child, ast.ClassDef):
                yield child, scope
        yield from nested_functions(child, inside)


def functions() -> list[Function]:
    """Return every function and method of the package, except special methods, in a fixed order."""
    found = []
    for path in sorted(PACKAGE.rglob("*.py")):
        source = path.read_text()
        for node, scope in nested_functions(ast.parse(source)):
            if node.name.startswith("__"):
                continue
            first = (ast.get_docstring(node) or "").split("\n\n")[0].replace("\n", " ")
            returns = f" -> {ast.unparse(node.returns)}" if node.returns else ""
            signature = f"{node.name}({ast.unparse(node.args)}){returns}"
            place = f"{path.relative_to(PACKAGE.parent)}:{node.lineno}{f', in {scope}' if scope else ''}"
            found.append(Function(place, signature, first, ast.get_source_segment(source, node) or ""))
    return found


def main(seed: int, bodies: bool) -> None:
    """Print the drawn functions."""
    for k, f in enumerate(random.Random(seed).sample(functions(), DRAWN), 1):
        print(f"{k}. {f.place}\n   {f.signature}\n   {f.first_line or '(no docstring)'}")
        if bodies:
            print(f.body + "\n")


if __name__ == "__main__":
    main(int(sys.argv[1]), "--bodies" in sys.argv)
