"""Charts of what a run measured at each BatchNorm layer."""

from __future__ import annotations

from coterie.report import page_parts
from coterie.report.charts import SERIES_COLOURS
from coterie.report.line_chart import Curve, line_chart
from coterie.report.run_reader import Run

AXES = {"shift": "shift, in standard deviations", "drift": "drift of (M, V)"}
"""The prefix of a measure's name, as in "shift.<layer>" -> the label of its y axis."""


def layer_charts(run: Run) -> str | None:
    """Return a chart for each kind of measure as HTML, with a line per layer; None where the run has none."""
    rounds = [record["round"] for record in run.rounds]
    names = {
        prefix: [name for name in dict.fromkeys(k for r in run.rounds for k in r) if name.startswith(f"{prefix}.")]
        for prefix in AXES
    }
    charts = [
        line_chart(
            [Curve(_layer_name(name), rounds, run.measure(name)) for name in _select_evenly(names[prefix])],
            "round",
            label,
            legend_title="layer",
        )
        for prefix, label in AXES.items()
    ]
    number = max(map(len, names.values()))
    if not number:
        return None
    part = (
        f" {len(SERIES_COLOURS)} of {number} layers are shown, evenly spaced." if number > len(SERIES_COLOURS) else ""
    )
    text = (
        "Shift is the distance between a client's batch statistics and the shared statistics, averaged over the "
        "round's examples. It is large where clients hold unlike data. Drift is how far the shared statistics moved in "
        f"the round.{part}"
    )
    return f"<p class=soft>{text}</p>{page_parts.side_by_side(*charts) or ''}"


def _select_evenly(names: list[str]) -> list[str]:
    """Return at most as many names as there are colours, evenly spaced, with the first and the last."""
    if len(names) <= len(SERIES_COLOURS):
        return names
    return [names[round(k * (len(names) - 1) / (len(SERIES_COLOURS) - 1))] for k in range(len(SERIES_COLOURS))]


def _layer_name(name: str) -> str:
    """Return the layer in a measure's name, such as "conv1" of "shift.conv1"; "the model" if it names none."""
    return name.partition(".")[2] or "the model"
