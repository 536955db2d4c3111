"""What the probes of a run found, round by round, each chart with what it shows."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import NamedTuple

from coterie.report import html
from coterie.report.charts import Curve, curves
from coterie.track.rounds_file import Record


class Chart(NamedTuple):
    """One chart.

    Attributes:
        label: of the y axis; where one line alone is drawn, its name follows.
        lines: measure -> its name.
        says: one sentence on how to read it.
    """

    label: str
    lines: dict[str, str]
    says: str


CHARTS = (
    Chart(
        "accuracy",
        {"gain": "gain of averaging", "local_change": "change by local training"},
        "Averaging adds the gain to the clients' mean accuracy; the two lines add up to how the global accuracy moved.",
    ),
    Chart(
        "squared distance",
        {"dispersion": "from the mean"},
        "How far the clients' models lie from their mean: the drift of local training.",
    ),
    Chart(
        "distance",
        {"distance": "of a client from the round's start", "travelled": "of the server from the run's start"},
        "How far a client's parameters go in a round, and the server's in all rounds together.",
    ),
    Chart(
        "cosine",
        {"cosine": "of clients with their mean", "direction": "of a round with the one before"},
        "1 where all go in one direction, 0 where they have nothing in common, negative where they go against another.",
    ),
    Chart(
        "gradient diversity",
        {"diversity": ""},
        "One over the number of clients where all send the same, 1 where they are orthogonal, more where they cancel.",
    ),
    Chart(
        "loss",
        {"mean_loss": "of the mean", "best_loss": "with the best weights"},
        "The loss of the clients' models averaged as the mean does, and by the weights that suit the test data best.",
    ),
    Chart(
        "share of the weight",
        {"weight_shift": "that moves"},
        "How much of the weight has to move from some clients to others for the best average.",
    ),
    Chart(
        "largest eigenvalue",
        {"curvature": "of the Hessian"},
        "How sharply the loss bends at the server's model.",
    ),
)


def probes(records: Sequence[Record]) -> str | None:
    """The charts of what was measured, or None where no probe looked."""
    return html.charts(*(_drawn(chart, records) for chart in CHARTS))


def _drawn(chart: Chart, records: Sequence[Record]) -> str | None:
    rounds = [record["round"] for record in records]
    lines = [
        Curve(name, rounds, [record.get(f"probe.{measure}") for record in records])
        for measure, name in chart.lines.items()
        if any(record.get(f"probe.{measure}") is not None for record in records)
    ]
    label = f"{chart.label} {lines[0].label}".rstrip() if len(lines) == 1 else chart.label
    picture = curves(lines, "round", label)
    return None if picture is None else f"<p class=soft>{escape(chart.says)}</p>{picture}"
