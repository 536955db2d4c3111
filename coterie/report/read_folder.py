"""`coterie.read`: a run folder as Python sees it, finished or not."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

from coterie.core.errors import Mistake
from coterie.core.html_card import html_card
from coterie.core.packages import import_package
from coterie.report.line_chart import Curve, line_chart
from coterie.report.run_reader import Run, is_pretraining, mistakes_about_shapes, read_pretraining, read_run
from coterie.report.sweep_folder import RUNS, TABLE_FILE, is_sweep
from coterie.track.rounds_file import Record

if TYPE_CHECKING:
    import pandas

_COLOURS = "--series-1: #4a7df0; --series-2: #d9730d; --line: #80808060;"
"""Of charts in a notebook, for light and dark pages."""


@dataclass(frozen=True)
class RunRecords:
    """What a run folder says. In a notebook it shows itself as a table and charts.

    Attributes:
        folder: where it was read from.
        config: every setting, with the table's name before the key ("algorithm.lr").
        rounds: the record of each round, as in rounds.jsonl; of a pre-training, of each interval.
        summary: summary.json; where the run is not over, the same numbers up to now.
        clients: clients.json: "id", "examples" and "label_counts" of each client.
        over: whether the run is over.
    """

    folder: Path
    config: Mapping[str, Any]
    rounds: Sequence[Record]
    summary: Mapping[str, Any]
    clients: Sequence[Mapping[str, Any]]
    over: bool

    def frame(self) -> pandas.DataFrame:
        """Return the records as a pandas frame: a row for each round, a column for each measure; NaN for null.

        Raises:
            Mistake: pandas is not installed.
        """
        frame = import_package("pandas", "frame()", "frames").DataFrame(list(self.rounds))
        unit = "interval" if "interval" in frame else "round"
        return frame.set_index(unit) if unit in frame else frame

    def _repr_html_(self) -> str:
        last = {"loss": self.rounds[-1].get("train_loss", self.rounds[-1].get("loss"))} if self.rounds else {}
        rows = {
            "algorithm": self.config.get("algorithm.name"),
            "data": self.config.get("data.source"),
            "model": self.config.get("model.name"),
            "rounds": f"{len(self.rounds):,}{'' if self.over else ' so far'}",
            "test accuracy": self.summary.get("test_accuracy"),
            "best test accuracy": self.summary.get("best_test_accuracy"),
            "test loss": self.summary.get("test_loss"),
            "training loss": last.get("loss"),
            "seconds": self.summary.get("elapsed"),
            "failure": self.summary.get("failure"),
        }
        charts = [self._chart("test_accuracy"), self._chart("test_loss"), self._chart("loss")]
        drawn = "".join(f'<div style="width: 26em;">{chart}</div>' for chart in charts if chart)
        return (
            f"<div>{html_card(str(self.folder), rows)}"
            f'<div style="{escape(_COLOURS)} display: flex; flex-wrap: wrap; gap: 1em;">{drawn}</div></div>'
        )

    def _chart(self, name: str) -> str | None:
        """Return a chart of a measure over the rounds; None where it was not measured."""
        numbers = [float(number) for number in range(1, len(self.rounds) + 1)]
        curve = Curve("", numbers, [record.get(name) for record in self.rounds])
        return line_chart([curve], "round", name.replace("_", " "), zoom=False)


def read(folder: str | Path) -> RunRecords:
    """Read the folder of a run or a pre-training, finished or not; it may go on meanwhile.

    Args:
        folder: of the run.

    Raises:
        Mistake: it is not a run folder, or a file in it is damaged.

    >>> read("runs/absent")
    Traceback (most recent call last):
    ...
    coterie.core.errors.Mistake: runs/absent: is not a run folder, since it has no config.toml
    """
    path = Path(folder)
    if is_sweep(path):
        raise Mistake(f"{path}: is a sweep; read one of its runs, {path / RUNS / 'NAME'}, or its table {TABLE_FILE}")
    with mistakes_about_shapes(path):
        run: Run = read_pretraining(path) if is_pretraining(path) else read_run(path)
    return RunRecords(path, run.config, run.rounds, run.end, run.clients, run.over)
