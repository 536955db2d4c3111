"""Charts of what the probes of a run measured in each round."""

from __future__ import annotations

from html import escape
from pathlib import Path
from typing import NamedTuple

from coterie.report import page_parts
from coterie.report.line_chart import Curve, line_chart
from coterie.report.run_reader import Run


class Chart(NamedTuple):
    """One chart.

    Attributes:
        label: of the y axis; where only one line is drawn, its name follows.
        lines: measure -> its name.
        caption: a sentence on how to read the chart.
    """

    label: str
    lines: dict[str, str]
    caption: str


PROBE_CHARTS = (
    Chart(
        "accuracy",
        {"gain": "gain of averaging", "local_change": "change by local training"},
        "The gain is what averaging adds to the clients' mean accuracy. The two lines add up to the change of the "
        "global accuracy.",
    ),
    Chart(
        "squared distance",
        {"dispersion": "from the mean"},
        "How far the clients' models lie from their mean: the drift of local training.",
    ),
    Chart(
        "distance",
        {"distance": "of a client from the round's start", "travelled": "of the server from the run's start"},
        "How far a client's parameters move in a round, and the server's in all rounds together.",
    ),
    Chart(
        "cosine",
        {"cosine": "of clients with their mean", "direction": "of a round with the one before"},
        "1: all go in one direction. 0: the directions have nothing in common. Below 0: they oppose each other.",
    ),
    Chart(
        "gradient diversity",
        {"diversity": ""},
        "One over the number of clients: all send the same. 1: the updates are orthogonal. Above 1: they cancel.",
    ),
    Chart(
        "loss",
        {"mean_loss": "of the mean", "best_loss": "with the best weighting"},
        "The loss of the clients' models averaged as the mean does, and with the weighting that suits the test data "
        "best.",
    ),
    Chart(
        "share of the weighting",
        {"weight_shift": "that moves"},
        "How much of the weighting has to move from some clients to others for the best average.",
    ),
    Chart(
        "largest eigenvalue",
        {"curvature": "of the Hessian"},
        "How sharply the loss bends at the server's model.",
    ),
)


PROBE_PAGES = {"line.html": "The loss on the line to another run", "plane.html": "The loss on a plane through runs"}
"""What `coterie probe line` and `plane` write, where `--out` puts it into the run's folder."""


def probe_links(folder: Path) -> str | None:
    """Return links to the pages of `coterie probe` that lie in a run's folder as HTML; None where none does."""
    found = [f'<li><a href="{name}">{text}</a></li>' for name, text in PROBE_PAGES.items() if (folder / name).is_file()]
    return f"<ul>{''.join(found)}</ul>" if found else None


def probe_charts(run: Run) -> str | None:
    """Return the charts of the measures that a run's probes took as HTML; None where it has no probes."""
    return page_parts.side_by_side(*(_draw_chart(chart, run) for chart in PROBE_CHARTS))


def _draw_chart(chart: Chart, run: Run) -> str | None:
    """Return a chart with its caption as HTML; None if the run has none of its measures."""
    rounds = [record["round"] for record in run.rounds]
    measures = {name: run.measure(f"probe.{measure}") for measure, name in chart.lines.items()}
    lines = [Curve(name, rounds, y) for name, y in measures.items() if any(value is not None for value in y)]
    label = f"{chart.label} {lines[0].label}".rstrip() if len(lines) == 1 else chart.label
    picture = line_chart(lines, "round", label)
    return None if picture is None else f"<p class=soft>{escape(chart.caption)}</p>{picture}"
