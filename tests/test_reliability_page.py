"""docs/reliability.md names tests that exist."""

import re
from pathlib import Path

import pytest

TESTS = Path(__file__).parent
PAGE = TESTS.parent / "docs" / "reliability.md"
NAMED = re.findall(r"`([\w/]+\.py)(?:::(\w+))?`", PAGE.read_text(encoding="utf-8"))


@pytest.mark.parametrize(("file", "name"), sorted(set(NAMED)))
def test_each_promise_has_its_test(file: str, name: str) -> None:
    root = TESTS.parent if file.startswith("benchmarks/") else TESTS
    text = (root / file).read_text(encoding="utf-8")
    assert f"def {name}(" in text if name else "def " in text
