"""`coterie predict`: what a finished run's model says of examples of the user's."""

from __future__ import annotations

import csv
import io
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from torch import Tensor

from coterie.cli import table
from coterie.core.errors import Mistake
from coterie.core.files import write_atomic
from coterie.data.unseen import Unseen
from coterie.experiment.trained import trained


def predict(folder: Path, file: Path, client: str | None, out: Path) -> None:
    """Write a table of predictions, and print how many examples are of each class."""
    model = trained(folder, client)
    examples = model.read(file)
    likely = model.probabilities(examples.x)
    classes = model.inputs.classes or ()
    found = [classes[k] for k in likely.argmax(1).tolist()]
    try:
        write_atomic(out, _table(examples, found, likely, classes).encode())
    except OSError as error:
        raise Mistake(f"--out {out}: cannot be written ({error.strerror or error}); choose another file") from error
    for sentence in examples.notes:
        print(f"note: {sentence}", file=sys.stderr)
    rows = [(name, f"{number:>8,}") for name, number in Counter(found).most_common()]
    table.show(("prediction", "examples"), rows)
    of = set(classes)
    right = [is_a == was for is_a, was in zip(found, examples.labels, strict=True) if was in of]
    if right:
        print(f"accuracy {sum(right) / len(right):.2%} on the {len(right):,} whose class the file has")
    print(out)


def _table(examples: Unseen, found: Sequence[str], likely: Tensor, classes: Sequence[str]) -> str:
    """A row for each example: its name, the likeliest class, and the probability of each class."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["example", "prediction", *(f"p({name})" for name in classes)])
    for name, prediction, row in zip(examples.names, found, likely.tolist(), strict=True):
        writer.writerow([name, prediction, *(f"{p:.6g}" for p in row)])
    return text.getvalue()
