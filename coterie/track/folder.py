"""A run's folder: what lies where in it, and who may write.

config.toml           every setting, resolved        rounds.jsonl       one line a round
clients.json          who holds what                 checkpoint/        what a resume needs
inputs.json           what the model takes, and what its outputs mean
start/                what it began with, where that is not its own initial weights
model.safetensors     the end: the model, or         clients/ID.safetensors where each client has its own
huggingface/          the end once more, for a model of transformers
summary.json          the end in numbers; its presence says that the run is over
report.html           for the reader
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

from coterie.core.errors import Mistake
from coterie.core.examples import Clients
from coterie.core.files import sweep
from coterie.track import clients as who
from coterie.track.lock import NAME, locked
from coterie.track.rounds import RoundsFile
from coterie.track.writing import as_json, file_name, put, writing

INPUTS = "inputs.json"
BEGAN = "start.json"
"""In start/: where what a run began with came from. It is there once all else is."""


class RunFolder:
    """The folder of one run. Making this object touches nothing.

    `counted` is what its record counts: rounds, in rounds.jsonl, or intervals of a pre-training, in intervals.jsonl.
    """

    def __init__(self, path: Path, counted: str = "round") -> None:
        self.path, self.counted = path, counted
        self.config = path / "config.toml"
        self.checkpoint = path / "checkpoint"
        self.start = path / "start"
        self.huggingface = path / "huggingface"
        self.rounds = RoundsFile(path / f"{counted}s.jsonl", counted)
        self._made: list[Path] = []  # folders that were absent, innermost first

    @property
    def begun(self) -> bool:
        """Whether a run has begun here.

        Raises:
            Mistake: there is something, but no run.
        """
        if self.config.is_file():
            return True
        try:
            found = [entry.name for entry in self.path.iterdir() if not entry.name.startswith(".")]
        except FileNotFoundError:
            return False
        except OSError as error:
            raise Mistake(
                f"{self.path}: cannot be used as a run folder ({error.strerror}); choose another with --out"
            ) from error
        if found:
            raise Mistake(
                f"{self.path}: is neither empty nor a run folder (it holds {found[0]}); choose another with --out"
            )
        return False

    @contextmanager
    def held(self) -> Iterator[None]:
        """Make the folder where it is absent, and keep everyone else out of it. What a killed process has left half
        written is removed.

        Raises:
            Mistake: it cannot be made, or another run holds it.
        """
        with ExitStack() as stack:
            self._made = [folder for folder in (self.path, *self.path.parents) if not folder.exists()]
            with writing(self.path, "choose another folder with --out"):
                self.path.mkdir(parents=True, exist_ok=True)
                stack.enter_context(locked(self.path))
                sweep(self.path)
            stack.callback(self.rounds.close)
            yield

    def withdraw(self) -> None:
        """Remove what a run has written that ended before its first round; for whoever holds the folder."""
        self.rounds.close()
        for made in (self.checkpoint, self.start):
            shutil.rmtree(made, ignore_errors=True)
        described = (self.path / name for name in ("clients.json", INPUTS))
        for file in (self.config, *described, self.rounds.path, self.path / NAME):
            file.unlink(missing_ok=True)
        for folder in self._made:
            with suppress(OSError):  # someone else has put something there
                folder.rmdir()

    def summary(self) -> dict[str, Any] | None:
        """How the run ended, or None while it has not, or where the file is damaged: it is then written again."""
        path = self.path / "summary.json"
        try:
            found: dict[str, Any] | None = json.loads(path.read_bytes()) if path.is_file() else None
        except ValueError:
            return None
        return found

    def write_config(self, text: str) -> None:
        """Write config.toml; from then on a run has begun."""
        put(self.config, text.encode())

    def write_clients(self, clients: Clients, model_of: Callable[[str], str] | None = None) -> None:
        """Write clients.json, with the name of each client's model where it has one of its own."""
        put(self.path / "clients.json", who.text(who.described(clients, model_of)).encode())

    def write_inputs(self, record: Mapping[str, Any]) -> None:
        """Write inputs.json, a line for each entry."""
        lines = ",\n".join(f" {as_json(name)}: {as_json(value)}" for name, value in record.items())
        put(self.path / INPUTS, f"{{\n{lines}\n}}\n".encode())

    def write_start(self, weights: Mapping[Path, bytes], about: Sequence[Mapping[str, Any]]) -> None:
        """Write what the run began with, and last where that came from."""
        for path, data in weights.items():
            put(path, data)
        put(self.start / BEGAN, as_json(about, indent=1).encode() + b"\n")

    def write_weights(self, data: bytes, client: str | None = None) -> None:
        """Write the model, or one client's."""
        name = "model.safetensors" if client is None else f"clients/{file_name(client)}.safetensors"
        put(self.path / name, data)

    def write_summary(self, summary: Mapping[str, Any]) -> None:
        """Write summary.json; from then on the run is over."""
        put(self.path / "summary.json", as_json(summary, indent=1).encode() + b"\n")

    def reopen(self) -> None:
        """Take the statement back that the run is over, and the page that says so."""
        for name in ("report.html", "summary.json"):
            with writing(self.path / name):
                (self.path / name).unlink(missing_ok=True)
