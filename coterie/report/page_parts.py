"""Build an HTML page from parts: one file with its style inside, for light and dark screens and for paper."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape
from pathlib import Path
from typing import Any

from coterie.core.errors import Mistake
from coterie.core.files import write_atomic

STYLE = """
:root { color-scheme: light dark; --ground: #ffffff; --card: #f6f7f9; --ink: #1c2330; --soft: #5d6675; --line: #d4d9e1;
  --series-1: #2f62d9; --series-2: #d9730d; --series-3: #1a8754; --series-4: #b0338f; --series-5: #7a55c7;
  --series-6: #a67c00; --series-7: #0e8a9c; --series-8: #c43c3c; }
@media (prefers-color-scheme: dark) { :root { --ground: #14171c; --card: #1d2128; --ink: #e4e8ee; --soft: #9aa4b2;
  --line: #39414d; --series-1: #7ea6ff; --series-2: #f5a352; --series-3: #5fcf97; --series-4: #ec85cf;
  --series-5: #b79bf5; --series-6: #e0bd4f; --series-7: #58c9da; --series-8: #f58080; } }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 1080px; padding: 2rem 1.5rem 4rem; background: var(--ground); color: var(--ink);
  font: 15px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif; }
h1 { margin: 0; font-size: 1.7rem; line-height: 1.25; overflow-wrap: anywhere; }
h2 { margin: 2.4rem 0 .8rem; font-size: 1.15rem; }
p { margin: .3rem 0; } .soft { color: var(--soft); }
.failed { border-left: 4px solid var(--series-8); padding: .3rem .8rem; background: var(--card); }
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(150px, 1fr)); gap: .7rem; margin-top: 1.4rem; }
.tile { background: var(--card); border-radius: 8px; padding: .7rem .9rem; }
.tile b { display: block; font-size: 1.35rem; font-weight: 600; font-variant-numeric: tabular-nums; }
.tile span { color: var(--soft); font-size: .85rem; }
.charts { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(420px, 100%), 1fr)); gap: 1rem; }
svg { width: 100%; height: auto; display: block; } svg text { font-family: inherit; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { padding: .25rem .9rem .25rem 0; text-align: left; vertical-align: top; border-bottom: 1px solid var(--line); }
th { font-weight: 600; color: var(--soft); font-size: .85rem; } td { overflow-wrap: anywhere; }
.sortable th, .sortable td { white-space: nowrap; }
th button { all: unset; cursor: pointer; } th button:focus-visible { outline: 2px solid var(--series-1); }
th[aria-sort=ascending] button::after { content: " \\2191"; }
th[aria-sort=descending] button::after { content: " \\2193"; }
td a { color: var(--series-1); }
.columns { columns: 300px; column-gap: 2rem; } .columns section { break-inside: avoid; margin-bottom: 1.2rem; }
.columns table { width: 100%; } .columns td:first-child { color: var(--soft); width: 60%; }
h3 { margin: 0 0 .2rem; font-size: .95rem; } code { font-size: .92em; }
.keys { display: flex; flex-wrap: wrap; gap: .2rem 1.4rem; margin-bottom: .8rem; }
.keys i { display: inline-block; width: 1.6em; margin-right: .5em; vertical-align: middle; border-top: 3px solid; }
@media print { body { max-width: none; padding: 0; } }
"""


def document(title: str, parts: Iterable[str]) -> str:
    """Return a whole page with a title, as text, and its parts, as HTML."""
    body = "\n".join(parts)
    return (
        f'<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n{body}\n</body>\n</html>\n"
    )


def failure(sentence: str | None) -> str:
    """Return why a run failed, as a paragraph; empty where it did not."""
    return f"<p class=failed><b>This run trained nothing of use: {escape(sentence)}.</b></p>" if sentence else ""


def write_chosen(path: Path, text: str, option: str = "out") -> Path:
    """Write a page, or other text, to the path that the user chose with an option, and return the path.

    Raises:
        Mistake: it cannot be written there.
    """
    try:
        write_atomic(path, text.encode())
    except OSError as error:
        raise Mistake(f"{path}: cannot be written ({error.strerror}); choose another with --{option}") from error
    return path


def section(title: str, *parts: str | None) -> str:
    """Return a heading with its parts below it; an empty string where all parts are empty."""
    present = [part for part in parts if part]
    return f"<h2>{escape(title)}</h2>\n" + "\n".join(present) if present else ""


def tiles(numbers: Iterable[tuple[str, str]]) -> str:
    """Return the most important numbers as tiles; each is (value, name)."""
    each = (f"<div class=tile><b>{escape(value)}</b><span>{escape(name)}</span></div>" for value, name in numbers)
    return f"<div class=tiles>{''.join(each)}</div>"


def side_by_side(*pictures: str | None) -> str | None:
    """Return charts next to one another where there is room; None where there are none."""
    present = [f"<div>{picture}</div>" for picture in pictures if picture]
    return f"<div class=charts>{''.join(present)}</div>" if present else None


def legend(names: Sequence[str]) -> str:
    """Return a legend of names and their colours, for several charts that share them."""
    each = (
        f'<span><i style="border-color: var(--series-{k % 8 + 1}); border-top-style: {"solid" if k < 8 else "dashed"}">'
        f"</i>{escape(name)}</span>"
        for k, name in enumerate(names)
    )
    return f"<div class=keys>{''.join(each)}</div>"


def table(rows: Iterable[Sequence[Any]], head: Sequence[str] = ()) -> str:
    """Return rows of values as a table; everything is escaped."""
    top = f"<tr>{''.join(f'<th>{escape(str(h))}</th>' for h in head)}</tr>" if head else ""
    body = "".join(f"<tr>{''.join(f'<td>{escape(str(v))}</td>' for v in row)}</tr>" for row in rows)
    return f"<div class=wide><table>{top}{body}</table></div>"
