"""The pages in docs/algorithms: what they show can be run, and what they link to exists."""

from __future__ import annotations

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
