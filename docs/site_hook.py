"""What the site has beside the pages of docs/: the reference, the messages, and the files that pages link to.

mkdocs calls the functions `on_...`. What they make is read from the code each time, so none of it can be out of date.
"""

from __future__ import annotations

import ast
import hashlib
import html
import json
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

from messages import Message, read_messages

ROOT = Path(__file__).resolve().parent.parent
DOCS = ROOT / "docs"
CHANGES = ROOT / "CHANGELOG.md"
LINK = re.compile(r"(?<=\]\()(?!https?:|#)([^)#\s]+)(#[^)]*)?(?=\))")
MARKER = re.compile(r"^<!-- messages: ([\w/. ]+) -->$", re.MULTILINE)
REFERENCE = re.compile(r"^<!-- reference: ([\w/. ]+) -->$", re.MULTILINE)
LANGUAGES = {".py": "python", ".toml": "toml", ".md": "markdown", ".txt": "text"}


@cache
def exported(module: str) -> dict[str, str]:
    """Return the names in a package's `__all__`, and the module that each is imported from; in its order."""
    package = ROOT / module.replace(".", "/")
    path = package / "__init__.py" if package.is_dir() else package.with_suffix(".py")
    tree = ast.parse(path.read_text("utf-8"))
    listed = [n.value for n in tree.body if isinstance(n, ast.Assign) and ast.unparse(n.targets[0]) == "__all__"]
    imports = [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
    homes = {alias.asname or alias.name: str(node.module) for node in imports for alias in node.names}
    return {name: homes.get(name, module) for value in listed for name in ast.literal_eval(value)}


def parts() -> dict[str, list[str]]:
    """Return the names that `coterie` offers, by the page of the reference that each belongs to."""
    found: dict[str, list[str]] = {"coterie/run": [], "coterie/algorithms": [], "coterie/contract": []}
    for name, module in exported("coterie").items():
        contract = module in ("coterie.core.algorithm", "coterie.core.task")
        place = "algorithms" if module == "coterie.algorithms" else "contract" if contract else "run"
        found[f"coterie/{place}"].append(name)
    return found


def with_reference(markdown: str) -> str:
    """Return a page with what mkdocstrings replaces in the place of its markers, which name packages and modules."""
    return REFERENCE.sub(lambda match: "".join(map(_directives, match[1].split())), markdown)


def _directives(module: str) -> str:
    """Return the directives for a package with `__all__`, for a module, or for a part of `coterie`."""
    if module in parts():
        return "".join(_directive(_definition("coterie", name), 2) for name in parts()[module])
    names = exported(module)
    shown = "false" if names else "null"  # of a package, each name has a directive of its own
    hidden = f"      show_root_toc_entry: false\n      show_root_heading: false\n      members: {shown}\n"
    text = f"## {module}\n\n{_directive(module, 3).rstrip()}\n{hidden}\n"
    return text + "".join(_directive(_definition(module, name), 3) for name in names)


def _directive(name: str, level: int) -> str:
    return f"::: {name}\n    options:\n      heading_level: {level}\n\n"


def _definition(module: str, name: str) -> str:
    """Return where a name is defined, by following imports from one package to the next."""
    while (found := exported(module).get(name, _imported(module, name))) != module:
        module = found
    return f"{module}.{name}"


@cache
def _imported(module: str, name: str) -> str:
    """Return the module from which a module imports a name; the module itself, if it defines the name."""
    package = ROOT / module.replace(".", "/")
    path = package / "__init__.py" if package.is_dir() else package.with_suffix(".py")
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.ImportFrom) and any((a.asname or a.name) == name for a in node.names):
            return str(node.module)
    return module


def groups(markdown: str) -> dict[str, str]:
    """Return the files and folders that a page's markers name, and the marker that each is in."""
    return {place: marker for marker in MARKER.findall(markdown) for place in marker.split()}


def group_messages(markdown: str, messages: Iterable[Message]) -> dict[str, list[Message]]:
    """Return the messages below each marker of a page; below "" those that no marker covers.

    A marker names files of the package and folders; the most exact name counts.
    """
    places = groups(markdown)
    found: dict[str, list[Message]] = {marker: [] for marker in ["", *places.values()]}
    for message in messages:
        parts = message.place.split("/")
        names = ["/".join(parts[:depth]) for depth in range(len(parts), 0, -1)]
        found[next((places[name] for name in names if name in places), "")].append(message)
    return found


def with_messages(markdown: str) -> str:
    """Return a page with lists of messages in the place of its markers."""
    if not MARKER.search(markdown):
        return markdown
    found = group_messages(markdown, read_messages(ROOT / "coterie"))
    return MARKER.sub(lambda match: _listed(found[match[1]]), markdown)


def _listed(messages: Iterable[Message]) -> str:
    """Return messages as a list that opens. Each is a heading, so that the search finds it by itself."""
    texts = sorted({m.text for m in messages if m.text}, key=lambda text: text.lstrip("…: ").lower())
    items = "".join(f'<h6 id="{_anchor(text)}">{html.escape(text)}</h6>\n' for text in texts)
    return f'<details class="messages"><summary>All {len(texts)} messages</summary>\n{items}</details>'


def _anchor(text: str) -> str:
    """Return the address of a message within the page; it stays while the message does."""
    return f"m-{hashlib.blake2b(text.encode(), digest_size=5).hexdigest()}"


def outside(page: Path) -> Iterator[Path]:
    """Return what a page of docs/ links to outside of docs/."""
    for target, _ in LINK.findall(page.read_text("utf-8")):
        path = Path(os.path.normpath(page.parent / target))
        if DOCS not in path.parents and path not in (DOCS, CHANGES):
            yield path


def source_pages(pages: Iterable[Path]) -> dict[str, str]:
    """Return the pages of the files and folders that pages link to: address -> Markdown."""
    found: dict[str, str] = {}
    for path in sorted({path for page in pages for path in outside(page)}):
        name = path.relative_to(ROOT).as_posix()
        files = sorted(each for each in path.iterdir() if each.suffix in LANGUAGES) if path.is_dir() else [path]
        shown = "\n\n".join(_code(each, path.is_dir()) for each in files)
        head = "" if path.suffix == ".ipynb" else f"---\nsearch:\n  exclude: true\n---\n\n# {name}\n\n"
        found[f"source/{name}.md"] = f"{head}{shown}\n"
    return found


def _code(path: Path, titled: bool) -> str:
    """Return a file as a block of code, or a notebook as its text and cells."""
    if path.suffix == ".ipynb":
        cells = json.loads(path.read_text("utf-8"))["cells"]
        texts = [(cell["cell_type"], "".join(cell["source"])) for cell in cells]
        return "\n\n".join(text if kind == "markdown" else f"```python\n{text}\n```" for kind, text in texts)
    fence = f"``````{LANGUAGES[path.suffix]}\n{path.read_text('utf-8')}\n``````"
    return f"## {path.name}\n\n{fence}" if titled else fence


def inside(markdown: str, page: Path) -> str:
    """Return a page whose links out of docs/ lead to pages of the site, and links to folders to their first page."""

    def mend(match: re.Match[str]) -> str:
        path = Path(os.path.normpath(page.parent / match[1]))
        if DOCS in path.parents or path == DOCS:
            return match[0]
        shown = f"source/{path.relative_to(ROOT).as_posix()}.md" if path != CHANGES else "changelog.md"
        target = DOCS / shown
        return os.path.relpath(target, page.parent)

    return LINK.sub(mend, markdown)


def on_config(config: Any) -> Any:
    """Put every decision into the menu."""
    decisions = sorted(path.relative_to(DOCS).as_posix() for path in (DOCS / "decisions").glob("*.md"))
    next(entry for entry in config.nav if "Decisions" in entry)["Decisions"] = decisions
    return config


def on_files(files: Any, config: Mapping[str, Any]) -> Any:
    """Add the pages that are made from the code."""
    from mkdocs.structure.files import File

    made = source_pages(sorted(DOCS.rglob("*.md")))
    made["changelog.md"] = CHANGES.read_text("utf-8").replace("](docs/", "](")
    for address, text in made.items():
        files.append(File.generated(config, address, content=text))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Mend a page's links, and put the reference and the messages where it asks for them."""
    return with_reference(with_messages(inside(markdown, DOCS / page.file.src_uri)))
