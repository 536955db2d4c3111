"""The language of the code: one word per idea, functions named by what they do, plain sentences.

`docs/glossary.md` says which words are retired, and these tests read that page.
"""

import ast
import re
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "coterie"
MODULES = sorted(PACKAGE.rglob("*.py"))
PAGES = sorted([*(ROOT / "docs").rglob("*.md"), *ROOT.glob("*.md")])

MOST_PARTICIPLES = 10
IRREGULAR = re.compile(
    "told|sent|kept|made|given|seen|said|begun|joined|shown|known|held|left|heard|found|drawn|dealt|lent|brought|built"
    "|bent|taught|cut|put|written|laid|lost|met|paid|spoken|taken|thrown|worn|chosen|frozen|hidden|gone|done"
)
NO_PARTICIPLES = {"seed", "speed", "need", "feed", "embed", "left", "cut", "put", "read", "shared", "unseen"}
"""Words that look like participles and are none, or are nouns and verbs as well."""

TERMS = {
    *("centralized", "centred_clipping", "trimmed_mean", "meamed", "rotated", "rotated_mnist"),
    *("fixed_point", "masked_sums", "squared_distances", "squared_norm", "expected_accuracy"),
}
"""Names of algorithms, rules and data sets, and terms of the field."""

AWKWARD = re.compile(
    r"how manyth|\banew\b|\bbut for\b|(?<!there )(?<!There )\bis no (?!longer)[a-z]|, as it is\b(?! for)|\bof whom\b"
    r"|\bwhatever they\b|\bthat is what\b|\bnothing yet\b",
)


def functions(path: Path) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node


def is_participle(name: str) -> bool:
    """Whether a name begins with a participle, such as "told" or "measured_loss".

    >>> [is_participle(name) for name in ("_told", "measured_loss", "seed_set", "measure", "need")]
    [True, True, False, False, False]
    """
    bare = name.strip("_").lower()
    first = bare.partition("_")[0]
    if first in NO_PARTICIPLES or bare in TERMS:
        return False
    return IRREGULAR.fullmatch(first) is not None or (len(first) > 4 and first.endswith("ed"))


def retired() -> set[str]:
    """The retired names: what stands in backticks in the first column of the glossary's last table."""
    section = (ROOT / "docs/glossary.md").read_text().partition("## Retired")[2]
    return {
        name for cell in re.findall(r"^\| ([^|]*) \|", section, flags=re.M) for name in re.findall(r"`(\w+)`", cell)
    }


def names(tree: ast.Module) -> Iterator[str]:
    """Every name that a module defines: functions, classes, arguments, variables and fields."""
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield node.name
        elif isinstance(node, ast.arg):
            yield node.arg
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.id
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            yield node.attr


def test_at_most_ten_functions_are_named_by_a_participle() -> None:
    found = [
        f"{path.relative_to(ROOT)}: {f.name}" for path in MODULES for f in functions(path) if is_participle(f.name)
    ]
    assert len(found) <= MOST_PARTICIPLES, "\n".join(found)


def test_no_retired_word_is_a_name() -> None:
    words = retired()
    assert len(words) > 20
    found = [
        f"{path.relative_to(ROOT)}: {name}"
        for path in MODULES
        for name in names(ast.parse(path.read_text()))
        if name.strip("_") in words and (path.name, name) != ("api.py", "public")  # the earlier name, for one version
    ]
    assert not found, "\n".join(found)


def test_no_two_modules_of_a_room_export_the_same_name() -> None:
    exporters: dict[tuple[str, str], list[str]] = defaultdict(list)
    for path in MODULES:
        room = path.relative_to(PACKAGE).parts[0]
        for node in ast.parse(path.read_text()).body:
            targets = (
                [node.name]
                if isinstance(node, ast.FunctionDef | ast.ClassDef)
                else [t.id for t in node.targets if isinstance(t, ast.Name)]
                if isinstance(node, ast.Assign)
                else [node.target.id]
                if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name)
                else []
            )
            for name in targets:
                if not name.startswith("_"):
                    exporters[room, name].append(path.stem)
    # type variables, a module's logger, and what typer calls a group of commands
    twice = {
        key: files
        for key, files in exporters.items()
        if len(files) > 1 and key[1] not in ("T", "P", "R", "K", "app", "log")
    }
    assert not twice, "\n".join(f"{room}: {name} in {', '.join(files)}" for (room, name), files in twice.items())


@pytest.mark.parametrize("path", [*MODULES, *PAGES], ids=lambda path: str(path.relative_to(ROOT)))
def test_sentences_are_plain(path: Path) -> None:
    text = path.read_text()
    if path.suffix == ".md":
        text = re.sub(r"```.*?```|`[^`]*`", "", text, flags=re.S)
        if path.name == "glossary.md":
            text = text.partition("## Retired")[0]
    found = [f"line {text[: m.start()].count(chr(10)) + 1}: {m[0]}" for m in AWKWARD.finditer(text)]
    assert not found, f"{path.relative_to(ROOT)}\n" + "\n".join(found)
