"""What attacks on a run found, from privacy.json: reconstructed examples beside the true ones, and ROC curves."""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

import numpy as np

from coterie.core.digests import file_digest
from coterie.report import page_parts
from coterie.report.formats import format_interval, format_percent
from coterie.report.line_chart import Curve, line_chart
from coterie.report.privacy_sentences import PROVES_NOTHING, attack_name, measure_of, privacy_sentences
from coterie.report.run_reader import Run, read_json
from coterie.track.run_folder import PRIVACY_FILE, weights_file

MAX_NUMBERS = 6
MAX_ROWS = 20
_ONE_LINE = ' style="white-space: nowrap"'
_SHOWS_EXAMPLES = "This page shows training examples. Keep it where they may lie, or measure again with --no-pictures."
_OLD = "Not shown: the model has changed since. Run coterie probe privacy again."


def privacy_panel(run: Run) -> str | None:
    """Return what attacks found as HTML; a sentence where the model has changed since; None where none were made."""
    path = run.folder / PRIVACY_FILE
    if not path.is_file():
        return None
    found = read_json(path)
    weights = run.folder / weights_file()
    if not weights.is_file() or file_digest(weights) != found["model"]:
        return f"<p>{escape(_OLD)}</p>"
    inversion, membership = found.get("inversion"), found.get("membership", [])
    shown = inversion is not None and any(batch.get("shown") for batch in inversion["batches"])
    return "\n".join(
        [
            *(f"<p>{escape(sentence)}</p>" for sentence in privacy_sentences(found) if sentence != PROVES_NOTHING),
            f"<p><b>{escape(PROVES_NOTHING)}</b></p>",
            f"<p class=soft>{escape(_SHOWS_EXAMPLES)}</p>" if shown else "",
            *(_batch_table(batch) for batch in (inversion or {}).get("batches", [])),
            _membership_charts(membership) if membership else "",
        ]
    )


def _name_protection(row: Mapping[str, Any]) -> str:
    """Return a protection's name, with the epsilon of one release where noise gives one, rounded up."""
    epsilon = row.get("epsilon")
    return row["protection"] if epsilon is None else f"{row['protection']} (epsilon {math.ceil(10 * epsilon) / 10:g})"


def _batch_table(batch: Mapping[str, Any]) -> str:
    """Return a table with a row for each protection, the true examples first."""
    guess = "most frequent tokens" if batch["kind"] == "tokens" else "mean training example"
    head = ["protection", "examples", "", "nearness", "labels", "attack"]
    rows = [["(true)", _show(batch.get("shown", [])), "", "", "", ""]] if batch.get("shown") else []
    rows += [[f"({guess})", "", "", escape(measure_of(batch["baseline"])), "", ""]]
    for row in batch["rows"]:
        labels = row.get("labels")
        right = "" if labels is None else format_percent(labels)
        name, near, share, attack = map(escape, [_name_protection(row), measure_of(row), right, row["attack"]])
        rows.append([name, _show(row.get("shown", [])), _verdict(row), near, share, attack])
    number = batch["examples"]
    title = f"An update from {number} example{'' if number == 1 else 's'}"
    cells_of = (f"<td>{name}</td>{''.join(f'<td{_ONE_LINE}>{cell}</td>' for cell in rest)}" for name, *rest in rows)
    body = "".join(f"<tr>{row}</tr>" for row in cells_of)
    top = "".join(f"<th>{escape(name)}</th>" for name in head)
    return f"<h3>{escape(title)}</h3><div class=wide><table><tr>{top}</tr>{body}</table></div>"


def _verdict(row: Mapping[str, Any]) -> str:
    return "<b>reconstructed</b>" if row["succeeded"] else "failed"


def _show(examples: Sequence[Any]) -> str:
    """Return examples as pictures, or as lines of their first numbers."""
    if examples and isinstance(examples[0], dict):
        return " ".join(map(_picture, examples))
    lines = (", ".join(f"{number:.2f}" for number in example[:MAX_NUMBERS]) for example in examples)
    return "<br>".join(map(escape, lines))


def _picture(example: Mapping[str, Any]) -> str:
    """Return a picture as an element whose pixels stay square."""
    from matplotlib.image import imsave

    height, width = example["size"]
    pixels = np.frombuffer(base64.b64decode(example["picture"]), np.uint8).reshape(height, width, 3)
    file = io.BytesIO()
    imsave(file, pixels, format="png")
    data = base64.b64encode(file.getvalue()).decode()
    return f'<img alt="" width=44 height=44 style="image-rendering: pixelated" src="data:image/png;base64,{data}">'


def _membership_charts(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return the ROC curves, a table of all attacks, and one of the first attack by client."""
    diagonal = [0.0, 0.5, 1.0]
    names = [f"{row['run']}, {attack_name(row).lower()}" for row in rows]
    curves = [Curve(n, row["false_positive"], row["true_positive"]) for n, row in zip(names, rows, strict=True)]
    chart = line_chart([*curves, Curve("guess", diagonal, diagonal)], "false positive rate", "true positive rate")
    rates = list(rows[0]["at_low_rates"])
    head = ["run", "attack", "area", *(f"found at {format_percent(float(rate))}" for rate in rates), "advantage"]
    body = [
        [
            row["run"],
            attack_name(row),
            format_interval(row["auc"], _ends(row)),
            *(format_percent(row["at_low_rates"][rate]) for rate in rates),
            format_percent(row["advantage"]),
        ]
        for row in rows
    ]
    clients = [[each["id"], each["members"], format_interval(each["auc"], _ends(each))] for each in rows[0]["clients"]]
    by_client = page_parts.table(clients[:MAX_ROWS], ("client", "training examples", "area"))
    more = len(clients) - MAX_ROWS
    note = f"<p class=soft>and {more} more, in {PRIVACY_FILE}</p>" if more > 0 else ""
    title = "<h3>Training examples told from others by the model</h3>"
    return f"{title}{page_parts.table(body, head)}{page_parts.side_by_side(chart, by_client + note)}"


def _ends(row: Mapping[str, Any]) -> tuple[float, float] | None:
    return None if row["interval"] is None else (row["interval"][0], row["interval"][1])
