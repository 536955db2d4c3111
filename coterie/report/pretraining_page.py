"""report.html of a pre-training: its loss, whether its outputs collapsed, and the images that it used."""

from __future__ import annotations

import base64
from html import escape

from coterie.report import page_parts
from coterie.report.formats import format_duration, format_number, format_spread
from coterie.report.line_chart import Curve, line_chart
from coterie.report.repeat_panel import citation_panel, repeat_panel
from coterie.report.run_reader import Run
from coterie.report.settings_tables import settings_tables


def pretraining_page(run: Run) -> str:
    """Return the page of a pre-training as HTML."""
    headline = f"{run.config['pretrain.loss']} on pairs of fractals with {run.config['model.name']}"
    return page_parts.document(
        f"{run.name}: {headline}",
        [
            f"<h1>{escape(run.name)}</h1>",
            f"<p>{escape(headline)}</p>",
            f"<p class=soft>{_progress_sentence(run)}</p>",
            page_parts.failure(run.end.get("failure")),
            page_parts.tiles(_tiles(run)),
            page_parts.section("Loss and spread of the outputs", _collapse_warning(run), _charts(run)),
            page_parts.section("Training images", _image_sheet(run)),
            page_parts.section("Repeat this run", repeat_panel(run, pretraining=True)),
            page_parts.section("Cite", citation_panel(run)),
            page_parts.section("Settings", settings_tables(run)),
            page_parts.section("Versions", page_parts.table(run.versions.items())),
        ],
    )


def _progress_sentence(run: Run) -> str:
    steps = f"{run.rounds[-1]['step'] if run.rounds else 0:,} of {run.config['pretrain.steps']:,} steps"
    return f"Finished after {steps}." if run.over else f"Not finished: {steps} so far."


def _tiles(run: Run) -> list[tuple[str, str]]:
    """Return the most important results, each (value, name); none before the first record."""
    if not run.rounds:
        return []
    last, seconds = run.rounds[-1], sum(record["seconds"] for record in run.rounds)
    images = 2 * run.config["pretrain.batch_size"] * last["step"]
    return [
        (format_number(last["loss"]), "loss"),
        (format_spread(run.end), "spread of outputs"),
        (f"{last['step']:,}", "steps"),
        (f"{images:,}", "images"),
        (f"{images / seconds:,.0f}", "images a second"),
        (format_duration(last["elapsed"]), "time"),
    ]


def _collapse_warning(run: Run) -> str | None:
    if not run.end.get("collapsed"):
        return None
    return (
        "<p>The outputs have collapsed: they point in nearly the same direction for every image, so the encoder has "
        "learnt nothing. A smaller learning rate or a larger batch may help.</p>"
    )


def _charts(run: Run) -> str | None:
    """Return charts of the loss, the spread of the outputs and the learning rate over the steps."""
    steps = [record["step"] for record in run.rounds]
    names = {"loss": "loss", "spread": "spread of the outputs", "lr": "learning rate"}
    return page_parts.side_by_side(
        *(line_chart([Curve(label, steps, run.measure(name))], "step", label) for name, label in names.items())
    )


def _image_sheet(run: Run) -> str | None:
    """Return the folder's sheet.png as an HTML image with the data inside; None if it is absent."""
    path = run.folder / "sheet.png"
    if not path.is_file():
        return None
    data = base64.b64encode(path.read_bytes()).decode()
    description = "fractals, pairs of images made from them, and the same images after augmentation"
    return f'<img style="max-width: 100%" alt="{description}" src="data:image/png;base64,{data}">'
