"""Send a run to TensorBoard: event files in the run folder's tensorboard/, beside those of other runs if you like."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from coterie.core.packages import import_package
from coterie.track.rounds_file import Record
from coterie.track.trackers import numbers_of

TENSORBOARD_FOLDER = "tensorboard"


class TensorBoardTracker:
    """Writes scalars by round, the settings as hyper-parameters, and the summary as text. It keeps no models.

    `tensorboard --logdir runs` shows all runs below a folder.
    """

    def __init__(self, folder: Path, name: str, config: dict[str, Any]) -> None:
        import_package("tensorboard", 'track.to = "tensorboard"', "track")
        self._library = import_package("torch.utils.tensorboard", 'track.to = "tensorboard"', "track")
        self._path, self._config = folder / TENSORBOARD_FOLDER, config
        self._writer: Any = None

    def open(self, id: str | None, round: int) -> str:
        """Open a further event file. Readers of it forget what a process that was killed wrote after `round`."""
        self._writer = self._library.SummaryWriter(str(self._path), purge_step=round + 1)
        plain = {
            key: value if isinstance(value, bool | int | float) else str(value) for key, value in self._config.items()
        }
        make = import_package("torch.utils.tensorboard.summary", 'track.to = "tensorboard"', "track").hparams
        for part in make(plain, {"test_accuracy": 0.0, "test_loss": 0.0}):
            self._writer.file_writer.add_summary(part)
        self._writer.flush()
        return TENSORBOARD_FOLDER

    def log(self, records: Sequence[Record]) -> None:
        """Write each number of each round as a scalar."""
        for record in records:
            for name, number in numbers_of(record).items():
                self._writer.add_scalar(name, number, record["round"])
        self._writer.flush()

    def end(self, summary: Mapping[str, Any], files: Sequence[Path]) -> None:
        """Write the summary as a table."""
        rows = "\n".join(f"| {name} | {value} |" for name, value in summary.items())
        self._writer.add_text("summary", f"| | |\n|---|---|\n{rows}", summary["rounds"])
        self._writer.flush()

    def close(self) -> None:
        """Close the event file."""
        self._writer.close()
