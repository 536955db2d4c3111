"""The site: every public name is in its reference, every page in its menu, and nothing is loaded from elsewhere."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import yaml

import coterie
from coterie.algorithms import ALGORITHMS
from tests.site.hook import DOCS, site_hook

ROOT = DOCS.parent
CONFIG = yaml.safe_load((ROOT / "mkdocs.yml").read_text("utf-8"))
PAGES = {path.name: path.read_text("utf-8") for path in sorted((DOCS / "api").glob("*.md"))}
MODULES = [m for page in PAGES.values() for marker in site_hook.REFERENCE.findall(page) for m in marker.split()]
SHOWN = re.findall(r"^::: ([\w.]+)$", "".join(map(site_hook.with_reference, PAGES.values())), flags=re.MULTILINE)


def menu(entry: Any) -> list[str]:
    """The pages of a part of the menu."""
    if isinstance(entry, str):
        return [entry]
    return [page for each in (entry.values() if isinstance(entry, dict) else entry) for page in menu(each)]


def test_every_page_is_in_the_menu_once() -> None:
    decisions = DOCS / "decisions"  # the hook adds them
    pages = [path.relative_to(DOCS).as_posix() for path in DOCS.rglob("*.md") if path.parent != decisions]
    assert sorted(menu(CONFIG["nav"])) == sorted([*pages, "changelog.md"])


@pytest.mark.parametrize("name", coterie.__all__)
def test_every_public_name_is_in_the_reference(name: str) -> None:
    assert SHOWN.count(site_hook._definition("coterie", name)) == 1


@pytest.mark.parametrize("module", [module for module in MODULES if "/" not in module])
def test_every_name_of_a_public_room_is_in_the_reference(module: str) -> None:
    assert module in SHOWN
    for name in site_hook.exported(module):
        assert site_hook._definition(module, name) in SHOWN


def test_every_part_of_the_package_is_on_a_page() -> None:
    assert set(site_hook.parts()) == {module for module in MODULES if "/" in module}


@pytest.mark.parametrize("shown", [each for each in SHOWN if each not in MODULES])
def test_a_name_of_the_reference_is_defined_where_it_says(shown: str) -> None:
    module, _, name = shown.rpartition(".")
    assert hasattr(import_module(module), name)


@pytest.mark.parametrize("name", ALGORITHMS)
def test_every_algorithm_has_a_page_or_a_section(name: str) -> None:
    table = (DOCS / "algorithms" / "README.md").read_text("utf-8")
    row = next(line for line in table.splitlines() if line.startswith("| ") and f"`{name}`" in line.split("|")[1])
    page = re.search(r"\]\(([\w-]+\.md)\)", row)
    text = (DOCS / "algorithms" / page[1]).read_text("utf-8") if page else table
    assert re.search(rf"`{name}`|name = \"{name}\"|coterie\.{name}\(", text)


def test_the_version_cited_is_that_of_the_package() -> None:
    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text("utf-8"))
    assert {"cff-version", "message", "title", "authors"} <= cited.keys()
    assert all(author.keys() & {"name", "family-names"} for author in cited["authors"])
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    assert (cited["version"], " AND ".join(cited["license"])) == (project["version"], project["license"])
    assert f"version = {{{cited['version']}}}" in (DOCS / "citation.md").read_text("utf-8")


@pytest.mark.long
def test_the_site_builds_strictly_and_loads_nothing_from_elsewhere(tmp_path: Path) -> None:
    pytest.importorskip("material")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    pages = {path.relative_to(tmp_path).as_posix(): path.read_text("utf-8") for path in tmp_path.rglob("*.html")}
    loads = r"<(?:script|img|iframe|source)[^>]*\bsrc=\"https?:|<link[^>]*\bhref=\"https?:|@import|url\([\"']?https?:"
    assert [page for page, text in pages.items() if re.search(loads, text)] == []
    for each in SHOWN:
        if each.rpartition(".")[2] in coterie.__all__:
            assert any(f'id="{each}"' in text for text in pages.values()), each
    assert "it must be 1 or more" in pages["troubleshooting.html"]
