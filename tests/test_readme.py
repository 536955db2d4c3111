"""What the README says is true: its loop runs, its TOML is valid, and its links lead somewhere."""

import importlib.util
import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")


def block(language: str) -> str:
    found = re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)
    assert len(found) == 1
    return str(found[0])


def test_the_loop_runs_and_learns() -> None:
    names: dict[str, object] = {}
    exec(block("python"), names)
    last = names["round"]
    assert last.round == 20  # type: ignore[attr-defined]
    assert last.test_accuracy > 0.6  # type: ignore[attr-defined]


def test_the_file_is_a_valid_experiment() -> None:
    from coterie.experiment.settings import parse_settings

    assert parse_settings(tomllib.loads(block("toml")), [ROOT]).rounds == 200


def test_links_lead_somewhere() -> None:
    spec = importlib.util.spec_from_file_location("check_links", ROOT / "docs" / "check_links.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    pages = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").rglob("*.md")]
    assert [link for page in pages for link in module.broken_links(page)] == []


@pytest.mark.parametrize("target", ["run", "test", "check", "bench", "docs"])
def test_make_has_the_target(target: str) -> None:
    assert re.search(rf"^{target}:.*##", (ROOT / "Makefile").read_text(), re.MULTILINE)
