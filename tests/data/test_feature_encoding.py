"""Features from columns."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from coterie.core.errors import Mistake
from coterie.data.feature_encoding import (
    CodedColumn,
    MeasuredColumn,
    apply_encodings,
    encode_columns,
    is_missing,
    list_feature_names,
    list_measured_features,
    parse_measured_column,
    parse_number,
)

NAN = float("nan")


def test_columns_become_features_by_hand():
    """Row 1 lacks its age, row 2 its ward; "z" occurs in no training row, so its features are zeros."""
    age = MeasuredColumn("age", np.array([50.0, NAN, 70.0, 80.0]))
    ward = CodedColumn("ward", ["a", "b", None, "z"], ["a", "b"])
    table = encode_columns([age, ward], np.array([0, 1, 2]))
    assert list_feature_names(table.columns) == ["age", "age missing", "ward=a", "ward=b", "ward missing"]
    assert list_measured_features(table.columns) == [0]
    expected = [[50, 0, 1, 0, 0], [NAN, 1, 0, 1, 0], [70, 0, 0, 0, 1], [80, 0, 0, 0, 0]]
    assert torch.equal(table.x.nan_to_num(-1), torch.tensor(expected).nan_to_num(-1))
    assert table.x.dtype == torch.float32


def test_later_rows_have_the_same_features():
    """A new gap gives no feature, and the features of a new category are zeros."""
    _, columns = encode_columns(
        [MeasuredColumn("age", np.array([50.0])), CodedColumn("ward", [None], ["a", "b"])], np.array([0])
    )
    later = apply_encodings(
        [MeasuredColumn("age", np.array([NAN, 60.0])), CodedColumn("ward", ["b", "z"], [])], columns
    )
    assert torch.equal(later.nan_to_num(-1), torch.tensor([[-1.0, 0, 1, 0], [60, 0, 0, 0]]))


def test_a_gap_in_a_test_row_alone_makes_no_feature():
    table = encode_columns([MeasuredColumn("age", np.array([50.0, 60.0, NAN]))], np.array([0, 1]))
    assert list_feature_names(table.columns) == ["age"]
    assert table.x[2].isnan().all()


@pytest.mark.parametrize("cell", ["", " ", "?", "NA", "NaN", "null", None, NAN])
def test_cells_that_count_as_missing(cell):
    assert is_missing(cell)


@pytest.mark.parametrize(("cell", "number"), [("3", 3), ("-1e3", -1000), (2, 2), (True, 1), ("3 mg", None), ("0", 0)])
def test_cells_that_count_as_numbers(cell, number):
    assert parse_number(cell) == number
    assert not is_missing(cell)


def test_a_measured_column_has_gaps_but_no_stray_text():
    column = parse_measured_column("f.csv", "age", ["3", "?", "4.5"])
    assert column is not None
    assert np.array_equal(column.values, [3, NAN, 4.5], equal_nan=True)
    assert parse_measured_column("f.csv", "ward", ["a", "b", "3"]) is None
    with pytest.raises(Mistake, match=r'f.csv: row 3: age = "4,5", where most rows hold a number'):
        parse_measured_column("f.csv", "age", ["3", "4", "4,5"])
    with pytest.raises(Mistake, match=r"f.csv: row 2: age = inf"):
        parse_measured_column("f.csv", "age", ["3", "inf", "4"])


def test_an_empty_column_is_measured():
    column = parse_measured_column("f.csv", "age", ["", "?"])
    assert column is not None
    assert np.isnan(column.values).all()
