"""The earlier stages of a chain, with links to their reports."""

from __future__ import annotations

import json
from html import escape
from pathlib import Path
from urllib.parse import quote

from coterie.report.formats import format_number, format_percent
from coterie.track.checksums import REPORT_FILE, SUMMARY_FILE
from coterie.track.run_folder import STAGES_FOLDER


def stage_links(folder: Path) -> str | None:
    """Return a table of the stages before the run in a folder; None where it is not the last of a chain."""
    stages = [path for path in (folder / STAGES_FOLDER).glob("*") if (path / SUMMARY_FILE).is_file()]
    if not stages:
        return None
    head = "<tr><th>stage</th><th>length</th><th>result</th></tr>"
    rows = [_row(path) for path in sorted(stages, key=_number)]
    return f"<div class=wide><table>{head}{''.join(rows)}</table></div>"


def _number(path: Path) -> int:
    number = path.name.partition("-")[0]
    return int(number) if number.isdecimal() else 0


def _row(path: Path) -> str:
    """Return the row of a stage, without results where its summary cannot be read."""
    try:
        end = json.loads((path / SUMMARY_FILE).read_bytes())
    except (OSError, ValueError):
        end = {}
    length = f"{end['steps']:,} steps" if "steps" in end else f"{end.get('rounds', '–')} rounds"
    accuracy, spread = end.get("test_accuracy"), end.get("spread")
    result = f"accuracy {format_percent(accuracy)}" if accuracy is not None else ""
    result = result or (f"spread of outputs {format_number(spread)}" if spread is not None else "")
    link = quote(f"{STAGES_FOLDER}/{path.name}/{REPORT_FILE}")
    name = f'<a href="{link}">{escape(path.name)}</a>'
    return f"<tr><td>{name}</td><td>{length}</td><td>{escape(result)}</td></tr>"
