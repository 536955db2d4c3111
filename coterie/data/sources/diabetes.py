"""The source diabetes: how far the illness of 442 patients has gone after a year, which comes with scikit-learn."""

from __future__ import annotations

import numpy as np
import torch

from coterie.core.examples import Examples
from coterie.data.feature_encoding import MeasuredColumn, encode_columns
from coterie.data.source import Source
from coterie.data.train_test_split import split_rows


def diabetes(test_fraction: float = 0.2) -> Source:
    """Load scikit-learn's 442 patients with diabetes: ten measured columns, and a number to predict, 25 to 346.

    Columns are in their own units, and are standardised by the federation. The label is not scaled. There is no
    official test split, so a fixed one is taken first.

    Args:
        test_fraction: what part of the patients becomes the test set.

    Raises:
        Mistake: `test_fraction` is not between 0 and 1.

    Reference: Efron, Hastie, Johnstone, Tibshirani: Least angle regression, Annals of Statistics 2004.
    """
    from sklearn.datasets import load_diabetes

    bunch = load_diabetes(scaled=False)
    rows = bunch.data.astype(np.float64)
    train, test = split_rows(np.zeros(len(rows), dtype=np.int64), test_fraction)
    columns = [MeasuredColumn(name, rows[:, k]) for k, name in enumerate(bunch.feature_names)]
    table = encode_columns(columns, train)
    everything = Examples(table.x, torch.from_numpy(bunch.target.astype(np.float32)))
    return Source(
        "diabetes",
        everything.take(torch.from_numpy(train)),
        everything.take(torch.from_numpy(test)),
        None,
        columns=table.columns,
    )
