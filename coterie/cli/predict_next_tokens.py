"""`coterie predict` with a causal language model: how well it predicts texts, and how it goes on."""

from __future__ import annotations

import csv
import io
import math
import sys
from pathlib import Path

from coterie.cli.csv_cells import guard_cell, write_table
from coterie.data.new_texts import note_cut, read_texts
from coterie.data.text_columns import TextColumn
from coterie.experiment.predict_next import perplexity, predict_next
from coterie.experiment.trained_model import TrainedModel


def write_next_tokens(model: TrainedModel, text: TextColumn, file: Path, out: Path) -> None:
    """Write a table with the perplexity of each text and its likeliest continuation; print the perplexity of all.

    Args:
        model: predicts tokens.
        text: how it reads texts.
        file: the texts.
        out: the table to write.

    Raises:
        Mistake: the texts or the table cannot be used.
    """
    texts, _ = read_texts(file, text.column)
    found, cut = predict_next(model, texts)
    table = io.StringIO()
    writer = csv.writer(table, lineterminator="\n")
    writer.writerow(["example", "tokens", "perplexity", "continuation"])
    for row, each in enumerate(found, 1):
        writer.writerow([row, each.tokens, f"{math.exp(each.loss):.6g}", guard_cell(each.continuation)])
    write_table(out, table.getvalue())
    for sentence in note_cut(cut, len(texts), text):
        print(f"note: {sentence}", file=sys.stderr)
    print(f"perplexity {perplexity(found):.4g} of {sum(each.tokens for each in found):,} tokens")
    print(out)
