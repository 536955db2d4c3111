"""Load the model that a run trained, ready to be used: it also says how examples become its inputs.

Legend: N examples, C classes.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from coterie.core.errors import Mistake, few, reason
from coterie.data.model_inputs import Inputs, inputs_from_record
from coterie.data.new_examples import NewExamples, read_new_examples
from coterie.data.new_texts import read_new_texts
from coterie.experiment.make_model import make_run_model
from coterie.experiment.settings import Settings, load_settings, model_names
from coterie.experiment.trust import code_of_folder
from coterie.models.outputs import main_output
from coterie.report.run_reader import is_pretraining
from coterie.track.checksums import SUMMARY_FILE, check_files, check_weights, note_unchecked, read_checksums
from coterie.track.file_writing import client_file_name
from coterie.track.run_folder import CLIENTS_FILE, CONFIG_FILE, INPUTS_FILE, TOKENIZER_FILE, weights_file

BATCH_EXAMPLES = 1000


@dataclass(frozen=True)
class TrainedModel:
    """A trained model.

    Attributes:
        model: in evaluation mode, on the CPU.
        inputs: what it takes, and the names of its classes.
        label_column: the column in which tables have the label, where there is one.
    """

    model: nn.Module
    inputs: Inputs
    label_column: str | None = None

    def read(self, path: str | Path) -> NewExamples:
        """Read the examples in a table, an archive, a picture, a folder of pictures or a file of texts.

        They become what the model takes.

        Raises:
            Mistake: they cannot be read, or are of a kind that the model was not trained on.
        """
        if self.inputs.text is not None and Path(path).suffix.lower() != ".npz":
            return read_new_texts(Path(path), self.inputs.text, self.label_column)
        return read_new_examples(Path(path), self.inputs, self.label_column)

    @torch.no_grad()
    def probabilities(self, x: Tensor) -> Tensor:
        """Return the probability of each class [N, C] for x [N, ...] as `read` gives it.

        Raises:
            Mistake: the model does not predict one class for each example, or its outputs are not finite.
        """
        scores = torch.cat([main_output(self.model(part), None) for part in torch.split(x, BATCH_EXAMPLES)])
        if self.inputs.task == "binary" and self.inputs.classes is not None:
            logit = scores.reshape(len(scores), -1)[:, :1]  # of the second class
            scores = torch.cat([torch.zeros_like(logit), logit], 1)  # their softmax is the logit's sigmoid
        elif self.inputs.task in ("regression", "multilabel"):
            sentence = (
                f"the model does a {self.inputs.task} task, and gives no class for each example; in Python call its"
            )
            raise Mistake(f"{sentence} `model` yourself")
        if not self.inputs.predicts or scores.dim() != 2:
            what = "a class for each position" if scores.dim() > 2 else "no classes"
            raise Mistake(f"the model predicts {what}, not one for each example; in Python call its `model` yourself")
        broken = (~scores.isfinite().all(1)).nonzero().flatten().tolist()
        if broken:
            rows = few([str(row + 1) for row in broken])
            raise Mistake(
                f"the model's outputs for {len(broken)} of {len(scores)} examples (number {rows}) are not finite; look "
                "for values in these examples that are far from those of the training data, or for a run that diverged"
            )
        return scores.softmax(1)


def load_trained_model(folder: str | Path, client: str | None = None, *, trust: bool = False) -> TrainedModel:
    """Load the model that a run ended with.

    Args:
        folder: the run's folder.
        client: whose model, where each client has one of its own.
        trust: whether code that the folder names may be run: a model, a source or an algorithm by
            "package.module:function".

    Raises:
        Mistake: it is not a run folder or not finished, a file in it is damaged, there is no such client's model, or it
            names code that is not trusted.
    """
    folder = Path(folder)
    with code_of_folder(folder, trust):
        return _load_model(folder, client)


def _load_model(folder: Path, client: str | None) -> TrainedModel:
    if is_pretraining(folder):
        raise Mistake(f"{folder}: is a pre-training, which predicts nothing; give the folder of a run")
    check_files(folder, [CONFIG_FILE, INPUTS_FILE, TOKENIZER_FILE, CLIENTS_FILE, SUMMARY_FILE])
    settings, inputs = load_settings(folder / CONFIG_FILE), _read_inputs(folder)
    name, weights = _find_weights(folder, settings, client)
    check_weights(weights)
    note_unchecked(folder)
    model = make_run_model(settings, name, inputs.shape, inputs.outputs)
    try:
        model.load_state_dict(safetensors.torch.load_file(weights))
    except (OSError, SafetensorError, RuntimeError) as error:
        raise Mistake(f"{weights}: is not the model that config.toml describes ({reason(error)})") from error
    return TrainedModel(model.eval(), inputs, settings.data.get("label_column"))


def _read_inputs(folder: Path) -> Inputs:
    path = folder / INPUTS_FILE
    try:
        record, tokenizer = json.loads(path.read_bytes()), folder / TOKENIZER_FILE
        return inputs_from_record(record, tokenizer.read_text("utf-8") if tokenizer.is_file() else None)
    except FileNotFoundError as error:
        raise Mistake(f"{folder}: has no {INPUTS_FILE}, which runs of earlier versions lack; run it again") from error
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RuntimeError) as error:
        raise Mistake(
            f"{path}: is damaged ({reason(error)}); continue the run with --resume, or put back a copy"
        ) from error


def _find_weights(folder: Path, settings: Settings, client: str | None) -> tuple[str, Path]:
    """Return the name of the model, and the file of its weights."""
    if not (folder / SUMMARY_FILE).is_file():
        raise Mistake(f"{folder}: is not finished; continue it with --resume")
    names, one = model_names(settings), folder / weights_file()
    if one.is_file() or weights_file() in (read_checksums(folder) or {}):
        if client is not None:
            raise Mistake(f"--client {client}: {folder} ended with one model for all clients; leave it out")
        return names[0], one
    by_client = _models_by_client(folder, names[0])
    if client is None or client not in by_client:
        problem = "each client has a model of its own; say whose" if client is None else "there is no such client"
        raise Mistake(f"--client {client or 'ID'}: {problem}: {few(list(by_client), 10)}")
    return by_client[client], _client_weights(folder, client)


def _client_weights(folder: Path, client: str) -> Path:
    """Return the file of a client's weights: its capital letters are quoted where another id differs only in case."""
    quoted, plain = (folder / weights_file(client_file_name(client, quote_capitals=q)) for q in (True, False))
    return quoted if quoted.is_file() else plain


def _models_by_client(folder: Path, only: str) -> Mapping[str, str]:
    """Return the name of each client's model, which is `only` where there is one architecture."""
    try:
        clients: list[dict[str, Any]] = json.loads((folder / CLIENTS_FILE).read_bytes())
        return {c["id"]: c.get("model", only) for c in clients}
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise Mistake(
            f"{folder / CLIENTS_FILE}: is damaged ({reason(error)}); continue the run with --resume, or put back a copy"
        ) from error
