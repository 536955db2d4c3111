"""What a run measured layer by layer, as charts: how far clients' batches lie from what all of them normalise by."""

from __future__ import annotations

from coterie.report import html
from coterie.report.charts import SERIES, Curve, curves
from coterie.report.read import Run

MEASURES = {"shift": "shift, in standard deviations", "drift": "drift of (M, V)"}
"""The beginnings of such measures' names, `shift.<layer>`, and what their axes are called."""


def layers(run: Run) -> str | None:
    """A chart for each such measure, a line per layer; None where the run has none."""
    rounds = [record["round"] for record in run.rounds]
    named = {
        measure: [name for name in dict.fromkeys(k for r in run.rounds for k in r) if name.startswith(f"{measure}.")]
        for measure in MEASURES
    }
    charts = [
        curves(
            [Curve(_layer(name), rounds, [r.get(name) for r in run.rounds]) for name in _few(names)],
            "round",
            label,
            legend_title="layer",
        )
        for names, label in zip(named.values(), MEASURES.values(), strict=True)
    ]
    most = max(map(len, named.values()))
    if not most:
        return None
    few = f" Of {most} layers, {len(SERIES)} are drawn, from the first to the last." if most > len(SERIES) else ""
    text = (
        "Shift is the distance of a client's batch statistics from the shared ones, averaged over the round's "
        f"examples: large where clients hold unlike data. Drift is how far the shared ones moved in the round.{few}"
    )
    return f"<p class=soft>{text}</p>{html.charts(*charts) or ''}"


def _few(names: list[str]) -> list[str]:
    """As many as there are colours, evenly spread, both ends among them."""
    if len(names) <= len(SERIES):
        return names
    return [names[round(k * (len(names) - 1) / (len(SERIES) - 1))] for k in range(len(SERIES))]


def _layer(name: str) -> str:
    return name.partition(".")[2] or "the model"
