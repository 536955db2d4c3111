"""The examples of docs/extending.md run as they stand on the page."""

import re
from pathlib import Path

import pytest

PAGE = (Path(__file__).parent.parent / "docs/extending.md").read_text()
SECTIONS = dict(re.findall(r"^## ([^\n]+)\n(.*?)(?=^## |\Z)", PAGE, flags=re.S | re.M))
EXAMPLES = {
    f"{title}, {k}": code
    for title, text in SECTIONS.items()
    for k, code in enumerate(re.findall(r"```python\n(.*?)```", text, flags=re.S), 1)
}


@pytest.mark.parametrize("example", EXAMPLES.values(), ids=EXAMPLES)
def test_it_runs(example: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    exec(compile(example, "docs/extending.md", "exec"), {"__name__": "example"})


@pytest.mark.parametrize(
    "kind", ["algorithm", "BatchNorm", "local option", "source", "partition", "aggregator", "engine", "tracker"]
)
def test_every_kind_has_an_example(kind: str) -> None:
    assert any(kind in title for title in EXAMPLES)
