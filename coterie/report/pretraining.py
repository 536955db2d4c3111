"""A pre-training on one page: how its loss fell, whether its outputs collapsed, and what it was shown."""

from __future__ import annotations

import base64
from html import escape

from coterie.report import html
from coterie.report.charts import Curve, curves
from coterie.report.configuration import configuration
from coterie.report.read import Run
from coterie.report.words import duration, number, spread


def page(run: Run) -> str:
    """The page of a pre-training."""
    what = f"{run.config['pretrain.loss']} on pairs of fractals with {run.config['model.name']}"
    return html.document(
        f"{run.name}: {what}",
        [
            f"<h1>{escape(run.name)}</h1>",
            f"<p>{escape(what)}</p>",
            f"<p class=soft>{_state(run)}</p>",
            html.tiles(_numbers(run)),
            html.section("Loss, and spread of the outputs", _collapse(run), _curves(run)),
            html.section("What it is shown", _sheet(run)),
            html.section("Configuration", configuration(run)),
            html.section("Made with", html.table(run.versions.items())),
        ],
    )


def _state(run: Run) -> str:
    done = f"{run.rounds[-1]['step'] if run.rounds else 0:,} of {run.config['pretrain.steps']:,} steps"
    return f"Finished after {done}." if run.over else f"Not finished: {done} so far."


def _numbers(run: Run) -> list[tuple[str, str]]:
    if not run.rounds:
        return []
    last, seconds = run.rounds[-1], sum(record["seconds"] for record in run.rounds)
    images = 2 * run.config["pretrain.batch_size"] * last["step"]
    return [
        (number(last["loss"]), "loss"),
        (spread(run.end), "spread of outputs"),
        (f"{last['step']:,}", "steps"),
        (f"{images:,}", "images"),
        (f"{images / seconds:,.0f}", "images a second"),
        (duration(last["elapsed"]), "time"),
    ]


def _collapse(run: Run) -> str | None:
    if not run.end.get("collapsed"):
        return None
    return (
        "<p>The outputs have collapsed: whatever the image, they point nearly the same way, and the encoder has learnt "
        "nothing. A smaller learning rate or a larger batch may help.</p>"
    )


def _curves(run: Run) -> str | None:
    steps = [record["step"] for record in run.rounds]
    names = {"loss": "loss", "spread": "spread of the outputs", "lr": "learning rate"}
    drawn = (Curve(label, steps, [record[name] for record in run.rounds]) for name, label in names.items())
    return html.charts(*(curves([curve], "step", curve.label) for curve in drawn))


def _sheet(run: Run) -> str | None:
    path = run.folder / "sheet.png"
    if not path.is_file():
        return None
    data = base64.b64encode(path.read_bytes()).decode()
    about = "fractals, pairs of images made of them, and what these become"
    return f'<img style="max-width: 100%" alt="{about}" src="data:image/png;base64,{data}">'
