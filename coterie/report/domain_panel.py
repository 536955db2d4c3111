"""Each model on each client's own test data: the last matrix of accuracies, and its course over the rounds."""

from __future__ import annotations

from html import escape
from typing import Any

from coterie.report import page_parts
from coterie.report.formats import format_percent
from coterie.report.line_chart import Curve, line_chart
from coterie.report.run_reader import Run

_HOW_TO_READ = (
    "The stronger the colour of a cell, the higher the accuracy. A frame marks a model on the data of its own client."
)


def domain_panel(run: Run) -> str | None:
    """Return the matrix and its course as HTML; None where there is no matrix."""
    matrix = next((r["accuracy_matrix"] for r in reversed(run.rounds) if r.get("accuracy_matrix")), None)
    names = [str(client["id"]) for client in run.clients]
    if matrix is None or len(matrix[0]) != len(names):
        return None
    return f"<p class=soft>{_HOW_TO_READ}</p>{_matrix_table(run, matrix, names)}{_charts(run) or ''}"


def _matrix_table(run: Run, matrix: list[list[float | None]], names: list[str]) -> str:
    """Return a row for each model, and a column for each client's test data."""
    own = len(matrix) > 1
    models = [f"model of {_name_with_model(client)}" for client in run.clients] if own else ["the model"]
    known = [accuracy for row in matrix for accuracy in row if accuracy is not None]
    low, high = min(known, default=0.0), max(known, default=1.0)
    head = "".join(f'<th scope="col">data of {escape(name)}</th>' for name in names)
    rows = "".join(
        f'<tr><th scope="row">{escape(model)}</th>'
        f"{''.join(_cell(accuracy, low, high, own and k == j) for j, accuracy in enumerate(row))}</tr>"
        for k, (model, row) in enumerate(zip(models, matrix, strict=True))
    )
    region = 'tabindex=0 role=region aria-label="accuracy of each model on each client\'s test data"'
    return f'<div class=wide {region}><table class="shaded"><tr><td></td>{head}</tr>{rows}</table></div>'


def _cell(accuracy: float | None, low: float, high: float, own: bool) -> str:
    if accuracy is None:
        return "<td>-</td>"
    share = 0.5 if high == low else (accuracy - low) / (high - low)
    frame = " class=own" if own else ""
    return f'<td{frame} style="--share: {share:.2f}">{format_percent(accuracy)}</td>'


def _charts(run: Run) -> str | None:
    """Return charts of what the matrix holds over the rounds, and how often gradients were in conflict."""
    rounds = [record["round"] for record in run.rounds]
    names = {
        "own_test_accuracy": "on its own domain",
        "domain_test_accuracy": "over all domains",
        "domain_test_accuracy_worst": "on its worst domain",
    }
    lines = [Curve(label, rounds, run.measure(name)) for name, label in names.items()]
    lines = [line for line in lines if any(value is not None for value in line.y)]
    conflict = [Curve("conflict", rounds, run.measure("conflict"))]
    return page_parts.side_by_side(
        line_chart(lines, "round", "mean accuracy of the models"),
        line_chart(conflict, "round", "share of examples in conflict"),
    )


def _name_with_model(client: dict[str, Any]) -> str:
    """Return a client's id, and in brackets the name of its model where it has one."""
    return f"{client['id']} ({client['model']})" if client.get("model") else str(client["id"])
