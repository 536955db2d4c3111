"""A run's folder: which file lies where, and who may write.

config.toml           every setting, resolved
clients.json          how many examples each client holds
inputs.json           what the model takes, and what its outputs mean
tokenizer.json        the tokenizer of texts, where the data have one
data.json             digests of the data that the run began with
roster.toml           without a server: who took part, with which public keys
start/                what the run began with, unless that is initial weights of its own
rounds.jsonl          one line a round
noise.json            under a guarantee: the secret of its noise, for the owner's eyes alone
checkpoint/           what a resume needs
model.safetensors     the model at the end; clients/ID.safetensors where each client has its own
adapter/              the adapters and the head at the end, as peft reads them, where a run trains adapters
huggingface/          the model at the end again, for a model of transformers
epsilons.json         under a guarantee for examples: the privacy loss of each client
predictions.json      what the report draws of the model's predictions on test data, for some kinds of task
privacy.json          what `coterie probe privacy` found, where it was run; it has no digest in checksums.json
stages/               the folders of earlier stages, where the run is the last of a chain
summary.json          the results; where it is there, the run is over
report.html           the page
tensorboard/ mlflow/ wandb/ track.json    what trackers write, and what they have; without digests
checksums.json        a digest of each of these files, except those in checkpoint/, which has its own

A run between silos also has deployment.json and silos.json, and a rehearsal the folders silos/ and coordinator/.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from coterie.core.errors import Mistake
from coterie.core.files import remove_unfinished
from coterie.loop.manifests import list_manifests
from coterie.track.checksums import CHECKSUMS_FILE, REPORT_FILE, SUMMARY_FILE, write_checksums
from coterie.track.clients_json import describe_clients, format_clients
from coterie.track.file_writing import disk_mistakes, to_json, write_file
from coterie.track.folder_lock import LOCK_FILE, hold_lock
from coterie.track.noise_file import NOISE_FILE, NoiseFile
from coterie.track.rounds_file import RoundsFile

if TYPE_CHECKING:
    from coterie.core.examples import Clients

CONFIG_FILE = "config.toml"
CLIENTS_FILE = "clients.json"
DATA_FILE = "data.json"
INPUTS_FILE = "inputs.json"
TOKENIZER_FILE = "tokenizer.json"
SHEET_FILE = "sheet.png"
PREDICTIONS_FILE = "predictions.json"
PRIVACY_FILE = "privacy.json"
EPSILONS_FILE = "epsilons.json"
"""Under a guarantee for single examples: what each client has spent."""
ROSTER_FILE = "roster.toml"
"""Of a run without a server: who took part, with which public keys."""
STAGES_FOLDER = "stages"
START_FILE = "start.json"
"""In start/: where the weights that a run began with came from. It is written last of that folder."""

SILOS_FILE = "silos.json"
"""Of a run between silos: which silos there are."""
BEFORE_A_RUN = (SILOS_FILE, "deployment.json", "silos", "coordinator")
"""What may lie in the folder of a run between silos before it begins; `silos` and `coordinator` are of a rehearsal."""


def weights_file(client_file: str | None = None) -> str:
    """Return the name of the file of the one model, or of a client's, in a run folder."""
    return "model.safetensors" if client_file is None else f"clients/{client_file}.safetensors"


class RunFolder:
    """The folder of one run. Making this object reads and writes nothing.

    Args:
        path: the folder.
        unit: of its records: "round", in rounds.jsonl, or for a pre-training "interval", in intervals.jsonl.
    """

    def __init__(self, path: Path, unit: str = "round") -> None:
        self.path, self.unit = path, unit
        self.config = path / CONFIG_FILE
        self.checkpoint = path / "checkpoint"
        self.start = path / "start"
        self.adapter = path / "adapter"
        self.huggingface = path / "huggingface"
        self.rounds = RoundsFile(path / f"{unit}s.jsonl", unit)
        self.noise = NoiseFile(path / NOISE_FILE)
        self._new_folders: list[Path] = []  # folders that `hold` made, innermost first

    @property
    def has_run(self) -> bool:
        """Whether the folder holds a run that has begun; refuse a folder that holds something else.

        Raises:
            Mistake: it holds something else.
        """
        if self.config.is_file() or list_manifests(self.checkpoint):
            return True
        try:
            names = [entry.name for entry in self.path.iterdir() if not entry.name.startswith(".")]
            names = [name for name in names if name not in (STAGES_FOLDER, *BEFORE_A_RUN)]
        except FileNotFoundError:
            return False
        except OSError as error:
            raise Mistake(
                f"{self.path}: cannot be used as a run folder ({error.strerror}); choose another with --out"
            ) from error
        if names:
            raise Mistake(
                f"{self.path}: is neither empty nor a run folder (it holds {names[0]}); choose another with --out"
            )
        return False

    @contextmanager
    def hold(self) -> Iterator[None]:
        """Make the folder where it is absent, and lock it for the length of a block.

        Files that a killed process has left half written are removed.

        Raises:
            Mistake: the folder cannot be made, or another run holds it.
        """
        with ExitStack() as stack:
            self._new_folders = [folder for folder in (self.path, *self.path.parents) if not folder.exists()]
            with disk_mistakes(self.path, "choose another folder with --out"):
                self.path.mkdir(parents=True, exist_ok=True)
                stack.enter_context(hold_lock(self.path))
                remove_unfinished(self.path)
            stack.callback(self.rounds.close)
            yield

    def withdraw(self) -> None:
        """Remove everything that a run wrote which ended before its first round. Call it within `hold`."""
        self.rounds.close()
        for folder in (self.checkpoint, self.start):
            shutil.rmtree(folder, ignore_errors=True)
        descriptions = (
            self.path / name
            for name in (CHECKSUMS_FILE, CLIENTS_FILE, INPUTS_FILE, TOKENIZER_FILE, DATA_FILE, ROSTER_FILE)
        )
        for file in (*descriptions, self.config, self.noise.path, self.rounds.path, self.path / LOCK_FILE):
            file.unlink(missing_ok=True)
        for folder in self._new_folders:
            with suppress(OSError):  # someone else has put something there
                folder.rmdir()

    def read_summary(self) -> dict[str, Any] | None:
        """Read summary.json; None where the run is not over.

        None also where the file is damaged: the run then writes it again.
        """
        path, needed = self.path / SUMMARY_FILE, {"round": {"rounds", "stopped"}, "interval": {"steps"}}
        try:
            summary = json.loads(path.read_bytes()) if path.is_file() else None
        except (ValueError, RecursionError):
            return None
        return summary if isinstance(summary, dict) and needed[self.unit] <= summary.keys() else None

    def description_files(self) -> list[str]:
        """Return the names of the files that say what the run is. They are there from its first round on."""
        start = [path.relative_to(self.path).as_posix() for path in sorted(self.start.glob("*"))]
        return [CONFIG_FILE, CLIENTS_FILE, INPUTS_FILE, TOKENIZER_FILE, DATA_FILE, SHEET_FILE, ROSTER_FILE, *start]

    def result_files(self) -> list[str]:
        """Return the names of the files that are complete when the run is over."""
        weights = [*self.path.glob("clients/*.safetensors"), *self.adapter.glob("*"), *self.huggingface.rglob("*")]
        found = [path.relative_to(self.path).as_posix() for path in sorted(weights)]
        return [
            self.rounds.path.name,
            weights_file(),
            *found,
            PREDICTIONS_FILE,
            EPSILONS_FILE,
            SUMMARY_FILE,
            REPORT_FILE,
        ]

    def seal(self, over: bool) -> None:
        """Write checksums.json: of the files that say what the run is, and of its results if it is over."""
        write_checksums(self.path, [*self.description_files(), *(self.result_files() if over else [])])

    def copies(self) -> dict[str, bytes]:
        """Return the content of the small files that cannot be made again, of which a checkpoint keeps copies."""
        names = [
            CONFIG_FILE,
            INPUTS_FILE,
            TOKENIZER_FILE,
            DATA_FILE,
            f"{self.start.name}/{START_FILE}",
            self.rounds.path.name,
        ]
        return {name: (self.path / name).read_bytes() for name in names if (self.path / name).is_file()}

    def write_config(self, text: str) -> None:
        """Write config.toml; from then on a run has begun."""
        write_file(self.config, text.encode())

    def write_clients(self, clients: Clients, model_of: Callable[[str], str] | None = None) -> None:
        """Write clients.json, with the name of each client's model where `model_of` is given."""
        write_file(self.path / CLIENTS_FILE, format_clients(describe_clients(clients, model_of)).encode())

    def write_inputs(self, record: Mapping[str, Any]) -> None:
        """Write inputs.json, a line for each entry."""
        lines = ",\n".join(f" {to_json(name)}: {to_json(value)}" for name, value in record.items())
        write_file(self.path / INPUTS_FILE, f"{{\n{lines}\n}}\n".encode())

    def write_tokenizer(self, content: str) -> None:
        """Write tokenizer.json."""
        write_file(self.path / TOKENIZER_FILE, content.encode())

    def write_data(self, record: Mapping[str, Any]) -> None:
        """Write data.json."""
        write_file(self.path / DATA_FILE, to_json(record, indent=1).encode() + b"\n")

    def write_roster(self, text: str) -> None:
        """Write roster.toml."""
        write_file(self.path / ROSTER_FILE, text.encode())

    def write_start(self, weights: Mapping[Path, bytes], about: Sequence[Mapping[str, Any]]) -> None:
        """Write the weights that the run began with, then start.json with where they came from."""
        for path, data in weights.items():
            write_file(path, data)
        write_file(self.start / START_FILE, to_json(about, indent=1).encode() + b"\n")

    def write_weights(self, data: bytes, client_file: str | None = None) -> None:
        """Write a weights file's bytes to model.safetensors, or to clients/ for one client's model.

        Args:
            data: the bytes.
            client_file: the client's file name, as `client_file_names` gives it.
        """
        write_file(self.path / weights_file(client_file), data)

    def write_predictions(self, panel: Mapping[str, Any] | None) -> None:
        """Write predictions.json; remove it where there is nothing to show."""
        path = self.path / PREDICTIONS_FILE
        if panel is None:
            with disk_mistakes(path):
                path.unlink(missing_ok=True)
        else:
            write_file(path, to_json(panel).encode() + b"\n")

    def write_privacy(self, found: Mapping[str, Any]) -> None:
        """Write privacy.json."""
        write_file(self.path / PRIVACY_FILE, to_json(found).encode() + b"\n")

    def write_epsilons(self, clients: list[dict[str, Any]]) -> None:
        """Write epsilons.json, a line for each client."""
        write_file(self.path / EPSILONS_FILE, format_clients(clients).encode())

    def write_summary(self, summary: Mapping[str, Any]) -> None:
        """Write summary.json; from then on the run is over."""
        write_file(self.path / SUMMARY_FILE, to_json(summary, indent=1).encode() + b"\n")

    def reopen(self) -> None:
        """Remove checksums.json, report.html and summary.json, so that the run is no longer over."""
        for name in (CHECKSUMS_FILE, REPORT_FILE, SUMMARY_FILE):
            with disk_mistakes(self.path / name):
                (self.path / name).unlink(missing_ok=True)
