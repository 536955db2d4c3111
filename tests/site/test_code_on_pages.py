"""The code on all pages is whole: what it imports from coterie exists, and every table is TOML.

Pages whose code runs without files of the reader's have tests of their own that run it; this one reads the others too.
"""

from __future__ import annotations

import ast
import re
import tomllib
from importlib import import_module
from importlib.util import find_spec

import pytest

import coterie
from tests.site.hook import DOCS

BLOCKS = [
    (path.relative_to(DOCS).as_posix(), language, text)
    for path in sorted(DOCS.rglob("*.md"))
    for language, text in re.findall(r"^```(python|toml)\b[^\n]*\n(.*?)^```", path.read_text("utf-8"), re.S | re.M)
]


def named(kind: str) -> list[object]:
    return [
        pytest.param(text, id=f"{page}, {k}") for k, (page, language, text) in enumerate(BLOCKS) if language == kind
    ]


@pytest.mark.parametrize("code", named("python"))
def test_what_it_takes_from_coterie_is_there(code: str) -> None:
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.ImportFrom) and str(node.module).partition(".")[0] == "coterie":
            module = import_module(str(node.module))
            for alias in node.names:
                assert hasattr(module, alias.name) or find_spec(f"{node.module}.{alias.name}"), alias.name
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "coterie":
            assert hasattr(coterie, node.attr)


@pytest.mark.parametrize("text", named("toml"))
def test_a_table_is_toml(text: str) -> None:
    assert tomllib.loads(text)
