"""`coterie predict`: apply a finished run's model to new examples."""

from __future__ import annotations

import csv
import io
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from torch import Tensor

from coterie.cli.csv_cells import guard_cell, write_table
from coterie.cli.predict_next_tokens import write_next_tokens
from coterie.cli.text_table import print_table
from coterie.core.printable import printable
from coterie.data.new_examples import NewExamples
from coterie.experiment.trained_model import load_trained_model
from coterie.track import RunFolder


def write_predictions(folder: Path, file: Path, client: str | None, out: Path, trust: bool) -> None:
    """Apply a run's model to new examples, write a table of predictions, and print how many fall into each class.

    Args:
        folder: of the run.
        file: the new examples.
        client: whose model is used, where each client has its own.
        out: the table to write.
        trust: whether code that the folder names may be run.

    Raises:
        Mistake: the run, the examples or the table cannot be used.
    """
    model = load_trained_model(folder, client, trust=trust)
    if model.inputs.text is not None and model.inputs.text.next_token:
        _note_failure(folder)
        write_next_tokens(model, model.inputs.text, file, out)
        return
    examples = model.read(file)
    probabilities = model.probabilities(examples.x)
    classes = model.inputs.classes or ()
    predictions = [classes[k] for k in probabilities.argmax(1).tolist()]
    write_table(out, _csv_table(examples, predictions, probabilities, classes))
    _note_failure(folder)
    for sentence in examples.notes:
        print(f"note: {printable(sentence)}", file=sys.stderr)
    rows = [(name, f"{number:>8,}") for name, number in Counter(predictions).most_common()]
    print_table(("prediction", "examples"), rows)
    labelled = [pair for pair in zip(predictions, examples.labels, strict=True) if pair[1] in set(classes)]
    if labelled:
        accuracy = sum(prediction == label for prediction, label in labelled) / len(labelled)
        print(f"accuracy {100 * accuracy:.2f} % on the {len(labelled):,} examples whose class the file gives")
    print(out)


def _note_failure(folder: Path) -> None:
    """Say so where the run failed."""
    failure = (RunFolder(folder).read_summary() or {}).get("failure")
    if failure:
        print(f"note: {folder} failed, so its predictions are of no use: {failure}", file=sys.stderr)


def _csv_table(examples: NewExamples, predictions: Sequence[str], probabilities: Tensor, classes: Sequence[str]) -> str:
    """Return CSV text, a row for each example: its name, the most probable class, and the probability of each class.

    Names of files and classes come from others, so those that a spreadsheet would run as a formula are guarded.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["example", "prediction", *(f"p({name})" for name in classes)])
    for name, prediction, row in zip(examples.names, predictions, probabilities.tolist(), strict=True):
        writer.writerow([guard_cell(name), guard_cell(prediction), *(f"{p:.6g}" for p in row)])
    return text.getvalue()
