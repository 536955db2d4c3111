"""New rows are read by the encodings of the training rows."""

import os
from pathlib import Path

import pytest
import torch

from coterie.core.errors import Mistake
from coterie.data.feature_encoding import ColumnEncoding
from coterie.data.model_inputs import Inputs, inputs_from_record
from coterie.data.new_examples import read_new_examples
from coterie.data.standardize import Scale, Scaling


def inputs(*columns: ColumnEncoding, classes: tuple[str, ...] = ("0", "1"), scaling: Scaling | None = None) -> Inputs:
    return Inputs([len(columns)], False, classes, len(classes), True, columns, scaling or Scaling())


def test_a_record_is_read_back_unchanged() -> None:
    """Also a third, which has no finite decimal form."""
    scale = Scale(torch.tensor([1 / 3], dtype=torch.float64), torch.tensor([2.0], dtype=torch.float64))
    known = inputs(
        ColumnEncoding("age", None, True), ColumnEncoding("ward", ("a", "b"), False), scaling=Scaling([0], scale)
    )
    again = inputs_from_record(known.to_record())
    assert again.to_record() == known.to_record()
    assert again.scaling.scale is not None
    assert torch.equal(again.scaling.scale.mean, scale.mean)
    assert list(again.columns) == list(known.columns)
    assert inputs_from_record(inputs(ColumnEncoding("age", None, True)).to_record()).scaling.scale is None


def test_two_rows_of_one_hour_are_read_although_training_rows_must_differ_more(tmp_path: Path) -> None:
    (tmp_path / "now.csv").write_text("time,label\n1700000000,1.0\n1700000600,0\n")
    found = read_new_examples(tmp_path / "now.csv", inputs(ColumnEncoding("time", None, False)), "label")
    assert found.x[:, 0].tolist() == [1_700_000_000, 1_700_000_640]  # as float32 has them
    assert found.labels == ["1", "0"]  # 1.0 is the class 1


def test_a_code_that_looks_like_a_number_is_a_code(tmp_path: Path) -> None:
    (tmp_path / "new.csv").write_text("ward\n2\n2.0\n 1 \n\n3\n?\n")
    found = read_new_examples(tmp_path / "new.csv", inputs(ColumnEncoding("ward", ("1", "2"), True)))
    assert found.x.tolist() == [[0, 1, 0], [0, 1, 0], [1, 0, 0], [0, 0, 0], [0, 0, 1]]
    assert found.notes == ['no training row had ward = "3"; read as none of the known values']


def test_a_gap_where_no_training_row_had_one_is_said(tmp_path: Path) -> None:
    (tmp_path / "new.csv").write_text("age,ward,dose\n,,\n30,a,2\n")
    known = inputs(
        ColumnEncoding("age", None, True),
        ColumnEncoding("ward", ("a", "b"), False),
        ColumnEncoding("dose", None, False),
    )
    assert read_new_examples(tmp_path / "new.csv", known).notes == [
        "no training row lacked ward, but 1 row here; read as none of the known values",
        "no training row lacked dose, but 1 row here; read as any gap",
    ]


def test_a_list_is_no_category(tmp_path: Path) -> None:
    """It was read as a category that no training row had."""
    (tmp_path / "new.csv").write_text('ward\n"[1, 2]"\n')
    with pytest.raises(Mistake, match=r"row 1: ward holds a list, \[1, 2\]; the model learned from one text or number"):
        read_new_examples(tmp_path / "new.csv", inputs(ColumnEncoding("ward", ("1", "2"), False)))


@pytest.mark.parametrize("suffix", [".csv", ".npz", ".parquet", ".png"])
def test_a_pipe_is_refused_whatever_its_name(tmp_path: Path, suffix: str) -> None:
    os.mkfifo(tmp_path / f"new{suffix}")
    with pytest.raises(Mistake, match=f"new{suffix}: is a pipe, a socket or a device and cannot be read"):
        read_new_examples(tmp_path / f"new{suffix}", inputs(ColumnEncoding("ward", None, False)))
