"""report.html: one run, or one pre-training, on one page."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from html import escape
from itertools import accumulate
from pathlib import Path
from typing import Any

from coterie.core.files import write_atomic
from coterie.report import html, pretraining
from coterie.report.beginning import beginning
from coterie.report.charts import Curve, curves
from coterie.report.configuration import configuration
from coterie.report.holdings import holdings
from coterie.report.layers import layers
from coterie.report.probes import probes
from coterie.report.read import Run, is_pretraining, read_pretraining, read_run
from coterie.report.words import duration, number, share, size, spread
from coterie.track.rounds_file import Record


def write_report(folder: Path) -> Path:
    """Write report.html from the other files of a run folder, and return its path.

    Raises:
        Mistake: it is no run folder.
        OSError: the page cannot be written.
    """
    path = folder / "report.html"
    text = pretraining.page(read_pretraining(folder)) if is_pretraining(folder) else page(read_run(folder))
    write_atomic(path, text.encode())
    return path


def page(run: Run) -> str:
    """The page of a run."""
    return html.document(
        f"{run.name}: {_what(run)}",
        [
            f"<h1>{escape(run.name)}</h1>",
            f"<p>{escape(_what(run))}</p>",
            f"<p class=soft>{escape(_state(run))}</p>",
            html.tiles(_numbers(run)),
            html.section("Accuracy and loss", _curves(run)),
            html.section("Accuracy on each client's own kind of data", _matrix(run)),
            html.section("What BatchNorm layers saw", layers(run)),
            html.section("Probes", probes(run.rounds)),
            html.section("Who holds what", population(run.clients, _how_many(run)), holdings(run.clients, run.labels)),
            html.section("Dropped updates", _dropped(run)),
            html.section("Where it began", beginning(run)),
            html.section("Configuration", configuration(run)),
            html.section("Made with", html.table(run.versions.items())),
        ],
    )


def _what(run: Run) -> str:
    get = run.config.get
    several = (get("model.clients") or {}).values() or get("model.names") or [get("model.name")]
    models = ", ".join(dict.fromkeys(several))
    return f"{get('algorithm.name')} on {get('data.source')} ({get('data.partition')}) with {models}"


def _state(run: Run) -> str:
    done = f"{run.end['rounds']} of {run.config['rounds']} rounds"
    if not run.over:
        return f"Not finished: {done} so far."
    reached = "the target accuracy was reached" if run.end["stopped"] == "target" else "all rounds are done"
    return f"Finished after {done}: {reached}."


def _numbers(run: Run) -> list[tuple[str, str]]:
    end = run.end
    found = [
        (share(end["test_accuracy"]), "test accuracy"),
        (share(end["best_test_accuracy"]), "best test accuracy"),
        (number(end["test_loss"]), "test loss"),
    ]
    if "spread" in end:
        found = [(spread(end), "spread of outputs"), (number(run.rounds[-1]["train_loss"]), "training loss")]
    if end.get("own_test_accuracy") is not None:
        found.append((share(end["own_test_accuracy"]), "accuracy on clients' own data"))
        found.append((share(end["own_test_accuracy_worst_tenth"]), "the same, worst tenth of clients"))
    if end["target_accuracy"] is not None:
        reached = end["rounds_to_target"]
        found.append(
            ("not reached" if reached is None else f"{reached:.1f}", f"rounds to {share(end['target_accuracy'])}")
        )
    return [
        *found,
        (str(end["rounds"]), "rounds"),
        (size(end["bytes_up"]), "sent by clients"),
        (size(end["bytes_down"]), "sent to clients"),
        *((size(number), f"sent once: {name.replace('_', ' ')}") for name, number in end.get("bytes_once", {}).items()),
        (duration(end["elapsed"]), "time, evaluation included"),
    ]


def once(run: Run) -> int:
    """Bytes in both directions before the first round; a run says so when it is over."""
    return sum(run.end.get("bytes_once", {}).values())


def sent(run: Run) -> list[float]:
    """Bytes in both directions up to each round, with those before the first."""
    return list(accumulate((float(r["bytes_up"] + r["bytes_down"]) for r in run.rounds), initial=float(once(run))))[1:]


def series(records: Sequence[Record], name: str) -> list[float | None]:
    """One measure, round by round."""
    return [r.get(name) for r in records]


def _curves(run: Run) -> str | None:
    records, target = run.rounds, run.end["target_accuracy"]
    pictures = []
    for x, label, is_bytes in (([r["round"] for r in records], "round", False), (sent(run), "sent so far", True)):
        accuracy = [Curve("on all test data", x, series(records, "test_accuracy"))]
        if any("own_test_accuracy" in r for r in records):
            accuracy.append(Curve("on clients' own", x, series(records, "own_test_accuracy")))
        loss = [Curve("test", x, series(records, "test_loss")), Curve("train", x, series(records, "train_loss"))]
        pictures.append(curves(accuracy, label, "test accuracy", is_bytes, target))
        pictures.append(curves(loss, label, "loss", is_bytes))
        pictures.append(curves([Curve("train", x, series(records, "spread"))], label, "spread of outputs", is_bytes))
    return html.charts(*pictures)


def _matrix(run: Run) -> str | None:
    """The last matrix of accuracies: a row for each model, a column for each client's own test data."""
    matrix = next((r["accuracy_matrix"] for r in reversed(run.rounds) if r.get("accuracy_matrix")), None)
    names = [client["id"] for client in run.clients]
    if matrix is None or len(matrix[0]) != len(names):
        return None
    models = ["the model"] if len(matrix) == 1 else [f"model of {_with_model(client)}" for client in run.clients]
    rows = [[model, *map(share, row)] for model, row in zip(models, matrix, strict=True)]
    return html.table(rows, ["", *(f"data of {name}" for name in names)])


def _with_model(client: dict[str, Any]) -> str:
    """Its id, and the name of its model where it has one of its own."""
    return f"{client['id']} ({client['model']})" if client.get("model") else str(client["id"])


def _how_many(run: Run) -> int:
    """The number of all clients, of whom clients.json may describe a part."""
    return int(run.end.get("clients") or run.config.get("data.num_clients") or len(run.clients))


def population(clients: Sequence[dict[str, Any]], of: int | None = None) -> str | None:
    """How many clients there are and how large they are, in a sentence or two; `of` is how many there are where the
    given ones are but a part.
    """
    sizes = sorted(c["examples"] for c in clients if c["examples"] is not None)
    if not sizes:
        return f"<p>{len(clients)} clients.</p>" if clients else None
    middle = sizes[len(sizes) // 2]
    part = f"{of:,} clients, of whom those asked first are shown. " if of and of > len(sizes) else ""
    return (
        f"<p>{part}{len(sizes):,} clients with {sum(sizes):,} examples together; "
        f"the smallest holds {sizes[0]:,}, the middle one {middle:,}, the largest {sizes[-1]:,}.</p>"
    )


def _dropped(run: Run) -> str:
    asked = sum(r["cohort_size"] for r in run.rounds)
    reasons = Counter(d["why"] for r in run.rounds for d in r["dropped"])
    if not reasons:
        return f"<p>None: all {asked:,} times that a client was asked, its update counted.</p>"
    rows = [(why, f"{count:,}", share(count / asked)) for why, count in reasons.most_common()]
    return html.table(rows, ("why", "how often", f"of {asked:,} asked"))
