"""The pages in docs/algorithms: what they show can be run, and what they link to exists."""

from __future__ import annotations

import ast
import inspect
import re
import tomllib
from pathlib import Path

import pytest

import coterie
from coterie.algorithms import ALGORITHMS
from coterie.experiment.tables import MODEL_CHOICES, TABLES, seed_set_keys

PAGES = sorted((Path(__file__).parents[2] / "docs" / "algorithms").glob("*.md"))
TOML = [block for page in PAGES for block in re.findall(r"```toml\n(.*?)```", page.read_text("utf-8"), re.DOTALL)]


@pytest.mark.parametrize("block", [block for block in TOML if "algorithm" in tomllib.loads(block)])
def test_every_algorithm_shown_makes_a_recipe(block):
    table = tomllib.loads(block)["algorithm"]
    assert callable(getattr(coterie, table.pop("name"))(**table))


@pytest.mark.parametrize("block", TOML)
def test_every_table_and_key_shown_is_there(block):
    """But for functions of the reader's own, and values that need their files."""
    shown = tomllib.loads(block)
    assert shown.keys() <= set(TABLES)
    assert set(shown.get("model", {})) <= set(MODEL_CHOICES)
    assert set(shown.get("seed_set", {})) <= set(seed_set_keys(shown.get("seed_set", {}), []))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_within_the_repository_lead_somewhere(page):
    links = [link for link in re.findall(r"\]\(([^)]+)\)", page.read_text("utf-8")) if "://" not in link]
    for link in links:
        path, _, heading = link.partition("#")
        target = page.parent / path if path else page
        assert target.exists(), link
        titles = re.findall(r"^#+ (.+)$", target.read_text("utf-8"), re.MULTILINE) if heading else []
        assert not heading or heading in [title.lower().replace(" ", "-") for title in titles], link


def test_every_algorithm_is_in_the_table():
    table = (PAGES[0].parent / "README.md").read_text("utf-8")
    assert [name for name in ALGORITHMS if f"`{name}`" not in table] == []


@pytest.mark.parametrize("path", sorted({inspect.getfile(function) for function in ALGORITHMS.values()}))
def test_every_algorithm_is_a_short_file(path):
    """Under 100 lines, empty ones and documentation aside, as the pages say."""
    text = Path(path).read_text("utf-8")
    nodes = [n for n in ast.walk(ast.parse(text)) if isinstance(n, (ast.Module, ast.ClassDef, ast.FunctionDef))]
    first = [node.body[0] for node in nodes if ast.get_docstring(node)]
    documentation = {line for node in first for line in range(node.lineno, node.end_lineno + 1)}
    code = [k for k, line in enumerate(text.splitlines(), 1) if line.strip() and k not in documentation]
    assert 10 < len(code) < 100
