"""Show a run on the terminal: its first lines, its progress, and its results."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.table import Table

from coterie.cli.output_forms import JsonLines
from coterie.cli.progress_line import ProgressLine
from coterie.core.errors import few
from coterie.experiment.build_experiment import Experiment
from coterie.experiment.pace import Pace
from coterie.experiment.settings import model_names
from coterie.experiment.starting_weights import Start
from coterie.privacy.table import Privacy
from coterie.report.formats import (
    format_bytes,
    format_duration,
    format_epsilon,
    format_interval,
    format_number,
    format_percent,
    format_spread,
)
from coterie.track.measures import interval_of, list_metrics, name_metric
from coterie.track.rounds_file import Record

ROUND_PAUSE_SECONDS = 1.0


class RunDisplay(logging.Handler):
    """Shows a run, and the messages that the library logs.

    It is a `coterie.experiment.run_recorder.RunWatch` and a `coterie.experiment.pace.PaceWatch`.

    Args:
        lines: also prints each round's record, and the summary; None: nothing does.
    """

    def __init__(self, lines: JsonLines | None = None) -> None:
        super().__init__(logging.INFO)
        self.lines, self.pace = lines, Pace()
        self.progress = ProgressLine("round", ROUND_PAUSE_SECONDS)
        self.last: Record | None = None
        self.bytes, self.predicts = 0, True

    def begin(self, experiment: Experiment, folder: Path, records: list[Record]) -> None:
        """Print what is run, on which engine, and from which weights; then start the progress."""
        self.predicts = experiment.plan.algorithm.traits.predicts
        self.bytes = sum(r["bytes_up"] + r["bytes_down"] for r in records)
        print(_headline(experiment))
        if experiment.why:
            print(f"engine: {experiment.why}")
        if experiment.plan.privacy is not None and (promise := _promise(experiment.plan.privacy)):
            print(f"privacy: {promise}")
        for start in experiment.starts:
            print(*_start_lines(start), sep="\n")
        print(f"continuing after round {len(records)} in {folder}" if records else f"writing to {folder}")
        self.progress.begin(experiment.settings.rounds, len(records))

    def round(self, record: Record) -> None:
        """Show a round. Outside a terminal, only evaluated rounds and the last are shown, at most one a second."""
        if self.lines is not None:
            self.lines.print(record)
        self.bytes += record["bytes_up"] + record["bytes_down"]
        evaluated = record["test_accuracy"] is not None or record["test_loss"] is not None or not self.predicts
        self.last = record if evaluated or self.last is None else {**record, **_test_measures(self.last)}
        text, speed = self._progress_text(self.last), _speed(self.pace)
        self.progress.show(record["round"], text, speed, _shares(self.pace), print_line=evaluated)

    def show_pace(self, pace: Pace) -> None:
        """Take up the pace, which the next round is shown with."""
        self.pace = pace

    def _progress_text(self, record: Record) -> str:
        loss = record["test_loss"] if record["test_loss"] is not None else record["train_loss"]
        spread = f"spread {format_number(record['spread'])}" if "spread" in record else ""
        accuracy = spread or _quality(record)
        return f"{accuracy}  loss {format_number(loss)}  {format_bytes(self.bytes)} sent"

    def say(self, sentence: str) -> None:
        """Print a note to standard error."""
        self.progress.note(sentence)

    def emit(self, record: logging.LogRecord) -> None:
        """Print a message of the library: a warning, or what the user waits for."""
        self.say(record.getMessage())

    def close(self) -> None:
        """End the progress, flush standard output, and close this log handler."""
        self.progress.close()
        sys.stdout.flush()
        super().close()

    def show_summary(self, end: dict[str, Any]) -> None:
        """Print the results as a table, and how fast the run was."""
        if self.lines is not None:
            self.lines.print(end)
        table = Table(show_header=False, box=None, pad_edge=False)
        for name, value in [*_summary_rows(end), *_pace_rows(self.pace)]:
            table.add_row(name, value)
        self.progress.out.print(table)


@contextmanager
def show_logs(display: RunDisplay) -> Iterator[None]:
    """Let a display show what the library logs in a block; at its end, close the display."""
    library = logging.getLogger("coterie")
    before = library.level
    library.setLevel(display.level)
    library.addHandler(display)
    try:
        yield
    finally:
        library.removeHandler(display)
        library.setLevel(before)
        display.close()


def _test_measures(record: Record) -> Record:
    return {name: record[name] for name in ("test_accuracy", "test_loss", *list_metrics([record])) if name in record}


def _quality(record: Record) -> str:
    """Return the accuracy, or where there is none the other metrics; the first of these beside the accuracy too."""
    metrics = [f"{name.removeprefix('test_')} {format_number(record[name])}" for name in list_metrics([record])]
    accuracy = record["test_accuracy"]
    if accuracy is None and metrics:
        return "  ".join(metrics)
    return "  ".join([f"accuracy {format_percent(accuracy)}", *metrics[:1]])


def _speed(pace: Pace) -> str:
    """Return how many examples a second are processed; empty where that is not known."""
    speed = pace.examples_per_second()
    return "" if speed is None else f"{speed:,.0f} examples/s"


def _shares(pace: Pace) -> str:
    """Return what takes the time."""
    return ", ".join(f"{name} {100 * share:.0f} %" for name, share in pace.shares().items())


def _pace_rows(pace: Pace) -> list[tuple[str, str]]:
    """Return rows on the speed and on what took the time, of the rounds that were run now."""
    rows = [("speed", _speed(pace)), ("time went to", _shares(pace))]
    return [row for row in rows if row[1]]


def _headline(experiment: Experiment) -> str:
    """Return one line on the algorithm, the data, the models, the clients of a round, and the engine."""
    settings, plan = experiment.settings, experiment.plan
    counts = [sum(p.numel() for p in model.parameters()) for model in experiment.models.values()]
    models = (f"{m} with {c:,} parameters" for m, c in zip(model_names(settings), counts, strict=True))
    population = len(plan.ids)
    cohort = plan.cohort.count(population)
    each = "all clients" if cohort == population else f"{cohort} of {population} clients"
    return (
        f"{settings.algorithm['name']} on {settings.data['source']} ({settings.data['partition'] or 'at silos'}), "
        f"{', '.join(models)}, {each} in a round, "
        f"{settings.engine.name} on {settings.engine.device}"
    )


def _promise(privacy: Privacy) -> str:
    """Return whom a guarantee hides and by how much noise; what a secure sum hides; empty for neither."""
    sums = ["the server sees sums of updates alone"] if privacy.secure_sum else []
    if privacy.unit == "none":
        return "; ".join([*sums, "sums without noise are no guarantee"] if sums else [])
    numbers = [f"epsilon {privacy.epsilon:g} at most"] if privacy.epsilon is not None else []
    numbers += [f"delta {privacy.delta:.3g}"] if privacy.delta is not None else []
    numbers += [f"noise multiplier {privacy.noise_multiplier:.4g}"] if privacy.noise_multiplier is not None else []
    knows = ["whoever knows the rng seed can take the noise away"] if privacy.noise == "rng_seed" else []
    return "; ".join([f"hides any one {privacy.unit}: {', '.join(numbers)}", *knows, *sums])


def _start_lines(start: Start) -> list[str]:
    """Return lines on the weights that a model starts from, its frozen part, and its accuracy."""
    lines = [f"start: {start.loaded}"] if start.loaded else []
    if start.frozen:
        lines.append(f"frozen: {few(start.frozen)} ({start.size:,} of {start.total:,} numbers)")
    if start.test_accuracy is not None:
        accuracy, loss = format_percent(start.test_accuracy), format_number(start.test_loss)
        lines.append(f"before the first round: accuracy {accuracy}  loss {loss}")
    return lines


_ENDS = {"target": " (target reached)", "patience": " (no longer improving)"}


def _summary_rows(end: dict[str, Any]) -> list[tuple[str, str]]:
    rows = [
        ("rounds", str(end["rounds"]) + _ENDS.get(end["stopped"], "")),
        ("test accuracy", format_percent(end["test_accuracy"])),
        ("best test accuracy", format_percent(end["best_test_accuracy"])),
    ]
    metrics = [(name_metric(name), format_interval(end[name], interval_of(end, name))) for name in list_metrics([end])]
    rows[1 if end["test_accuracy"] is None and metrics else 3 :] = metrics
    if "spread" in end:
        rows[1:] = [("spread of outputs", format_spread(end))]
    if "own_test_accuracy" in end:
        rows.append(("on clients' own data", format_percent(end["own_test_accuracy"])))
    if end["target_accuracy"] is not None:
        rounds = end["rounds_to_target"]
        reached = "not reached" if rounds is None else f"{rounds:.1f}"
        rows.append((f"rounds to {format_percent(end['target_accuracy'])}", reached))
    rows.append(("sent by clients", format_bytes(end["bytes_up"])))
    rows.append(("sent to clients", format_bytes(end["bytes_down"])))
    rows += [(f"sent once: {name.replace('_', ' ')}", format_bytes(n)) for name, n in end.get("bytes_once", {}).items()]
    if end.get("epsilon") is not None:
        unit = end["privacy"]["unit"]
        rows.append(("epsilon", f"{format_epsilon(end['epsilon'])} for any one {unit}, at delta {end['delta']:.3g}"))
    if end["dropped"]:
        rows.append(("dropped updates", str(end["dropped"])))
    rows.append(("time", format_duration(end["elapsed"])))
    return rows
