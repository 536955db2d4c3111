"""report.html: the page of a run."""

from __future__ import annotations

from collections import Counter
from html import escape
from pathlib import Path
from typing import Any

from coterie.core.files import write_atomic
from coterie.report import page_parts
from coterie.report.clients_chart import clients_chart
from coterie.report.clients_page import clients_sentence
from coterie.report.domain_panel import domain_panel
from coterie.report.formats import format_bytes, format_duration, format_number, format_percent, format_spread
from coterie.report.guarantee_panel import guarantee_panel
from coterie.report.layer_charts import layer_charts
from coterie.report.line_chart import Curve, line_chart
from coterie.report.own_tests_table import own_tests_table
from coterie.report.prediction_charts import prediction_charts
from coterie.report.pretraining_page import pretraining_page
from coterie.report.privacy_panel import privacy_panel
from coterie.report.probe_charts import probe_charts, probe_links
from coterie.report.repeat_panel import citation_panel, repeat_panel
from coterie.report.run_reader import Run, is_pretraining, mistakes_about_shapes, read_pretraining, read_run
from coterie.report.settings_tables import settings_tables
from coterie.report.silos_table import silos_table
from coterie.report.stage_links import stage_links
from coterie.report.start_tables import start_tables
from coterie.track.checksums import REPORT_FILE, refresh_report
from coterie.track.file_writing import disk_mistakes
from coterie.track.measures import interval_of, list_metrics, name_metric


def write_report(folder: Path) -> Path:
    """Write report.html into the folder of a run or a pre-training from its other files, and return its path.

    Raises:
        Mistake: it is not a run folder, or the page cannot be written.
    """
    path = folder / REPORT_FILE
    with mistakes_about_shapes(folder):
        page = pretraining_page(read_pretraining(folder)) if is_pretraining(folder) else run_page(read_run(folder))
    with disk_mistakes(path, "solve that, and write the report again"):
        write_atomic(path, page.encode())
        refresh_report(folder)
    return path


def run_page(run: Run) -> str:
    """Return the page of a run as HTML."""
    clients = clients_sentence(run.clients, _number_of_clients(run))
    chart = page_parts.scrollable(clients_chart(run.clients, run.labels), "data of the clients")
    return page_parts.document(
        f"{run.name}: {_headline(run)}",
        [
            f"<h1>{escape(run.name)}</h1>",
            f"<p>{escape(_headline(run))}</p>",
            f"<p class=soft>{escape(_progress_sentence(run))}</p>",
            page_parts.failure(_failure(run)),
            page_parts.tiles(_tiles(run)),
            page_parts.section("Accuracy and loss", _charts(run)),
            page_parts.section("Predictions on test data", prediction_charts(run)),
            page_parts.section("Accuracy on each client's test data", domain_panel(run)),
            page_parts.section("Measures on each client's test data", own_tests_table(run)),
            page_parts.section("BatchNorm layers", layer_charts(run)),
            page_parts.section("Probes", probe_charts(run)),
            page_parts.section("Around the final model", probe_links(run.folder)),
            page_parts.section("Privacy", guarantee_panel(run)),
            page_parts.section("What attacks found", privacy_panel(run)),
            page_parts.section("Data of the clients", clients, chart),
            page_parts.section("Silos", silos_table(run)),
            page_parts.section("Dropped updates", _drop_reasons(run)),
            page_parts.section("Initial weights", start_tables(run)),
            page_parts.section("Earlier stages", stage_links(run.folder)),
            page_parts.section("Repeat this run", repeat_panel(run)),
            page_parts.section("Cite", citation_panel(run)),
            page_parts.section("Settings", settings_tables(run)),
            page_parts.section("Versions", page_parts.table(run.versions.items())),
        ],
    )


def _headline(run: Run) -> str:
    """Return one line that names the algorithm, the data, their partition and the models."""
    get = run.config.get
    names = (get("model.clients") or {}).values() or get("model.names") or [get("model.name")]
    models = ", ".join(dict.fromkeys(names))
    return f"{get('algorithm.name')} on {get('data.source')} ({get('data.partition')}) with {models}"


def _progress_sentence(run: Run) -> str:
    rounds = f"{run.end['rounds']} of {run.config['rounds']} rounds"
    if not run.over:
        return f"Not finished: {rounds} so far."
    reasons = {"patience": "the test results no longer improved", "target": "the target was reached"}
    reasons |= {"target": "the target accuracy was reached"} if run.end["target_accuracy"] is not None else {}
    reason = reasons.get(run.end["stopped"], "all rounds are done")
    return f"Finished after {rounds}: {reason}."


def _failure(run: Run) -> str | None:
    """Return why the run failed, or fails so far; None where it does not."""
    if "failure" in run.end or not run.rounds or any(record["reached"] for record in run.rounds):
        return run.end.get("failure")
    return "no client's update was accepted so far, so the weights are those that the run began with"


def _tiles(run: Run) -> list[tuple[str, str]]:
    """Return the most important results, each (value, name)."""
    end = run.end
    results = [
        (format_percent(end["test_accuracy"]), "test accuracy"),
        (format_percent(end["best_test_accuracy"]), "best test accuracy"),
        (format_number(end["test_loss"]), "test loss"),
    ]
    metrics = [_tile_of_metric(end, name) for name in list_metrics([end])]
    results = [*metrics, results[2]] if end["test_accuracy"] is None and metrics else [*results, *metrics]
    if "spread" in end:
        results = [
            (format_spread(end), "spread of outputs"),
            (format_number(run.rounds[-1]["train_loss"]), "training loss"),
        ]
    if end.get("own_test_accuracy") is not None:
        results.append((format_percent(end["own_test_accuracy"]), "accuracy on clients' own data"))
        results.append((format_percent(end["own_test_accuracy_worst_tenth"]), "own data, worst tenth of clients"))
    if end["target_accuracy"] is not None:
        rounds = end["rounds_to_target"]
        reached = "not reached" if rounds is None else f"{rounds:.1f}"
        results.append((reached, f"rounds to {format_percent(end['target_accuracy'])}"))
    once = end.get("bytes_once", {})
    return [
        *results,
        (str(end["rounds"]), "rounds"),
        (format_bytes(end["bytes_up"]), "sent by clients"),
        (format_bytes(end["bytes_down"]), "sent to clients"),
        *((format_bytes(number), f"sent once: {name.replace('_', ' ')}") for name, number in once.items()),
        (format_duration(end["elapsed"]), "time, with evaluation"),
    ]


def _tile_of_metric(end: dict[str, Any], name: str) -> tuple[str, str]:
    """Return a metric's value, and its name with its interval where it has one."""
    ends = interval_of(end, name)
    interval = f"; 95 %: {ends[0]:.3g} to {ends[1]:.3g}" if ends else ""
    return format_number(end.get(name)), f"{name_metric(name)}{interval}"


def _charts(run: Run) -> str | None:
    """Return charts of accuracy, loss and spread of outputs, over the rounds and over the bytes sent."""
    rounds = [float(record["round"]) for record in run.rounds]
    pictures = []
    for x, label, is_bytes in ((rounds, "round", False), (run.bytes_so_far(), "sent so far", True)):
        accuracy = [Curve("on all test data", x, run.measure("test_accuracy"))]
        if any("own_test_accuracy" in record for record in run.rounds):
            accuracy.append(Curve("on clients' own", x, run.measure("own_test_accuracy")))
        loss = [Curve("test", x, run.measure("test_loss")), Curve("train", x, run.measure("train_loss"))]
        spread = [Curve("train", x, run.measure("spread"))]
        pictures.append(line_chart(accuracy, label, "test accuracy", is_bytes, run.end["target_accuracy"]))
        pictures.append(line_chart(loss, label, "loss", is_bytes))
        pictures += [
            line_chart([Curve("on all test data", x, run.measure(name))], label, name_metric(name), is_bytes)
            for name in list_metrics(run.rounds)
        ]
        pictures.append(line_chart(spread, label, "spread of outputs", is_bytes))
    return page_parts.side_by_side(*pictures)


def _number_of_clients(run: Run) -> int:
    """Return the number of all clients; clients.json may describe only some of them."""
    return int(run.end.get("clients") or run.config.get("data.num_clients") or len(run.clients))


def _drop_reasons(run: Run) -> str:
    """Return a table of why updates were dropped, and how many for each reason; a sentence if all counted."""
    requested = sum(record["cohort_size"] for record in run.rounds)
    reasons = Counter(dropped["why"] for record in run.rounds for dropped in record["dropped"])
    if not reasons:
        return f"<p>None: all {requested:,} updates that clients were asked for have counted.</p>"
    rows = [(why, f"{count:,}", format_percent(count / requested)) for why, count in reasons.most_common()]
    return page_parts.table(rows, ("reason", "updates", f"share of {requested:,} asked for"))
