"""CSV and Parquet files of the user's own."""

from __future__ import annotations

import datetime
import importlib
import math
import os
from decimal import Decimal

import pytest
import torch

from coterie.core.errors import Mistake
from coterie.data import deal, feature_encoding, load, own_test
from coterie.data.sources.parquet import read_parquet

ROWS = [f"{20 + i},{'mf'[i % 2]},{'north' if i < 10 else 'south'},{i % 2}" for i in range(20)]
HEADER = "age,sex,ward,label"


@pytest.fixture
def write(tmp_path):
    def write(*lines: str, encoding: str = "utf-8"):
        path = tmp_path / "mine.csv"
        path.write_text("\n".join(lines) + "\n", encoding=encoding)
        return path

    return write


def test_columns_of_numbers_are_measured_and_of_text_coded(write):
    source = load("csv", path=write(HEADER, *ROWS))
    assert source.feature_names == ["age", "sex=f", "sex=m", "ward=north", "ward=south"]
    assert source.numeric == [0]
    assert (len(source.train), len(source.test), source.num_classes) == (16, 4, 2)
    x, y = source.train.take(torch.tensor([0])).tensors()
    assert x.tolist() == [[20, 0, 1, 1, 0]]
    assert y.tolist() == [0]


def test_a_client_column_makes_natural_clients_and_is_not_a_feature(write):
    source = load("csv", path=write(HEADER, *ROWS), client_column="ward")
    clients = deal(source)
    assert {c: len(e) for c, e in clients.items()} == {"north": 8, "south": 8}
    assert {c: len(e) for c, e in own_test(source, clients).items()} == {"north": 2, "south": 2}
    assert source.feature_names == ["age", "sex=f", "sex=m"]


def test_features_can_be_chosen(write):
    source = load("csv", path=write(HEADER, *ROWS), feature_columns=["age"])
    assert source.feature_names == ["age"]


def test_separators_byte_order_marks_quotes_and_gaps(write):
    """A spreadsheet's export: semicolons, a mark at the start, quoted cells, a blank line."""
    rows = [f'"{i}";"a; b";{i % 2}' for i in range(10)]
    path = write('"dose";"drug";"label"', '?;"a; b";0', "", *rows, encoding="utf-8-sig")
    source = load("csv", path=path)
    assert source.feature_names[0] == "dose"
    assert "drug=a; b" in source.feature_names
    assert len(source.train) + len(source.test) == 11
    assert math.isnan(source.train.x[0, 0])


@pytest.mark.parametrize(("header", "separator"), [('"age, years";label', ";"), ('"a;b;c",label', ",")])
def test_separators_in_quotes_do_not_count(write, header, separator):
    source = load("csv", path=write(header, *(f"{i}{separator}{i % 2}" for i in range(10))))
    assert source.feature_names == [header.split('"')[1]]


@pytest.mark.parametrize(
    ("labels", "names", "first"),
    [
        (["3", "12", "3"], ["3", "12"], 0),
        (["dog", "cat", "dog"], ["cat", "dog"], 1),
        (["1.0", "0", "1"], ["0", "1"], 1),
        (["1_1", "11", "1_1"], ["11", "1_1"], 1),
        (["900000000000207009", "900000000000207008"] * 2, ["900000000000207008", "900000000000207009"], 1),
    ],
)
def test_classes_are_the_distinct_labels_in_order(write, labels, names, first):
    """Numbers in numerical order, 3 before 12; names in alphabetical order, as are codes too long for a number."""
    rows = [f"{i},{label}" for i, label in enumerate(labels * 5)]
    source = load("csv", path=write("x,label", *rows))
    assert source.label_names == names
    assert source.train.y[0].item() == first


def test_the_test_column_decides_and_a_class_seen_only_there_counts(write):
    rows = [f"{i},{i % 2},train" for i in range(6)] + ["6,2,test", "7,0,test"]
    source = load("csv", path=write("x,label,part", *rows), test_column="part")
    assert source.num_classes == 3
    assert source.test.tensors()[0].flatten().tolist() == [6, 7]
    assert source.test.tensors()[1].tolist() == [2, 0]


def test_a_client_with_one_example_keeps_it(write):
    rows = [f"{i},{i % 2},{'big' if i else 'small'}" for i in range(11)]
    clients = deal(load("csv", path=write("x,label,c", *rows), client_column="c"))
    assert clients["small"].tensors()[0].tolist() == [[0]]


def test_rows_without_labels_are_all_for_training(write):
    """A label column is ignored, not a feature."""
    source = load("csv", path=write(HEADER, *ROWS), labels=False, client_column="ward")
    assert source.feature_names == ["age", "sex=f", "sex=m"]
    assert (len(source.train), source.train.y, source.test, source.num_classes) == (20, None, None, None)
    assert len(deal(source)["north"]) == 10
    marked = [f"{row},{'test' if i < 5 else 'train'}" for i, row in enumerate(ROWS)]
    assert len(load("csv", path=write(f"{HEADER},part", *marked), labels=False, test_column="part").train) == 15


MANY = [f"{i},text {i},{i % 2}" for i in range(40)]


@pytest.mark.parametrize(
    ("lines", "arguments", "says"),
    [
        ([HEADER, *ROWS], {"label_column": "target"}, r'^label_column = "target": .* columns are "age", "sex"'),
        ([HEADER, *ROWS], {"client_column": "site"}, r'^client_column = "site"'),
        ([HEADER, *ROWS], {"feature_columns": ["age", "dose"]}, r'^feature_columns = "dose"'),
        ([HEADER, *ROWS], {"feature_columns": "age"}, r'^feature_columns = "age": it must be a list'),
        ([HEADER, *ROWS], {"feature_columns": []}, r"^feature_columns: .* no column left"),
        ([HEADER, *ROWS], {"feature_columns": ["age", "label"]}, r'"label", which is label_column; leave it out'),
        ([HEADER, *ROWS], {"feature_columns": ["age", "sex", "age"]}, r'^feature_columns: it names "age" twice'),
        ([f",{HEADER}", *(f"7,{row}" for row in ROWS)], {}, r"column 1 has no name; give it one, or say in feat"),
        (
            ["Unnamed: 0,x,label", "0,1,0", "1,2,1"],
            {},
            r'column 1 has no name but "Unnamed: 0", which pandas makes up; gi',
        ),
        (["x,__index_level_0__,label", "0,1,0"], {}, r'column 2 has no name but "__index_level_0__", which pandas'),
        (
            ["x;label", *(f"{i},5;{i % 2}" for i in range(9))],
            {},
            r'x holds numbers such as "0,5"; write them with a de',
        ),
        (["x;label", *(f"{i}.000,5;{i % 2}" for i in range(1, 9))], {}, r'x holds numbers such as "1.000,5"; .*thousa'),
        (
            ["x;label", *(f"{i % 2} 000;{i % 2}" for i in range(1, 99))],
            {},
            r'x holds numbers such as "1 000"; write th',
        ),
        (["x,label", "5,[0 1]", "6,[unknown]"], {}, r"row 1: label holds a list, \[0 1\]; a label is one text, whole"),
        (
            ["x,label", *(f'"[0, {i % 2}]",{i % 2}' for i in range(9))],
            {},
            r"row 1: x holds a list, \[0, 0\]; a feature",
        ),
        (
            ["c,x,label", "{'a': 0},1,0"],
            {"client_column": "c"},
            r"row 1: c holds a list, \{'a': 0\}; a client id is one",
        ),
        ([HEADER, *ROWS], {"test_column": "age"}, r'row 1: age = "20"; test_column must hold true or false'),
        (["x,t,label", "1,1,0", "2,1,1"], {"test_column": "t"}, r'^test_column = "t": it marks 2 of 2'),
        ([HEADER, "1,m,north"], {}, r"row 1 has 3 cells, but the first row names 4"),
        (["a,a,label", "1,2,3"], {}, r'names "a" twice'),
        ([HEADER], {}, r"holds no rows"),
        (["x,label", "1,0", "2,"], {}, r"row 2: label is missing, but label_column"),
        (
            ["time,label", *(f"{1_700_000_000 + 60 * i},{i % 2}" for i in range(20))],
            {},
            r"time holds numbers from 1700000000 to 1700001140, which 32 bits hardly keep apart; subtract",
        ),
        (["x,label", "1,none", "2,mild"], {}, r'row 1: label = "none" counts as missing, but label_column'),
        (["x,label", "1,0.5", "2,1"], {}, r"row 1: the label label = 0.5; a class is a whole number"),
        (["x,note,label", *MANY], {}, r'note holds 32 different texts in 32 training rows, such as "text 0", too'),
        (["x,label", "1,0", "2,1", "3x,1", "4,0"], {}, r'row 3: x = "3x", where most rows hold a number'),
        (["x,label", *(f"1,{i}" for i in range(1001))], {}, r'^label_column = "label": it holds 1001 different'),
        (["x,label", "1,0", "2,1"], {"test_fraction": 0.2}, "none would be left to test on"),
    ],
)
def test_data_that_cannot_be_used_give_one_sentence(write, lines, arguments, says):
    with pytest.raises(Mistake, match=says) as raised:
        load("csv", path=write(*lines), **arguments)
    assert "\n" not in str(raised.value)


def test_each_code_is_read_once_however_many_rows_have_it(monkeypatch):
    """A table of 20,000 coded columns once took minutes."""
    calls = []
    parse = feature_encoding.parse_number
    monkeypatch.setattr(feature_encoding, "parse_number", lambda cell: calls.append(cell) or parse(cell))
    assert feature_encoding.parse_measured_column("a.csv", "drug", ["b", "a"] * 500) is None
    assert sorted(calls) == ["a", "b"]


def test_a_wide_table_is_read_whole_and_a_wider_one_refused(write):
    names = [f"g{k}" for k in range(3000)]
    path = write(",".join([*names, "label"]), *(",".join(["1.5"] * 3000 + [str(k % 2)]) for k in range(10)))
    assert load("csv", path=path).feature_names == names
    path = write(",".join(f"g{k}" for k in range(100_001)))
    with pytest.raises(
        Mistake, match=r"names 100,001 columns; at most 100,000 are read, so store so many features as x"
    ):
        load("csv", path=path)


def test_files_without_text_are_refused(tmp_path):
    (tmp_path / "binary.csv").write_bytes(b"a,label\n\xff\xfe,1\n")
    (tmp_path / "western.csv").write_bytes("a,label\n1,großmächtig\n".encode("cp1252"))
    (tmp_path / "wide.csv").write_bytes("a,label\n1,0\n".encode("utf-16-le"))
    (tmp_path / "empty.csv").write_bytes(b"")
    (tmp_path / "endless.csv").symlink_to("/dev/zero")
    os.mkfifo(tmp_path / "pipe.csv")
    for name, says in (
        ("binary.csv", r"line 2 is not text in UTF-8 \(byte 0xff\); save it as CSV in UTF-8"),
        ("western.csv", r"line 2 is not text in UTF-8 \(byte 0xdf\); save it as CSV in UTF-8"),
        ("wide.csv", "holds the character NUL, so it is not text in UTF-8; save it as CSV in UTF-8"),
        ("empty.csv", "is empty"),
        ("none.csv", "no such file"),
        ("a\0b.csv", "no such file"),
        ("endless.csv", "it is a pipe, a socket or a device"),
        ("pipe.csv", "it is a pipe, a socket or a device"),
        ("", "it is a folder"),
    ):
        with pytest.raises(Mistake, match=says):
            load("csv", path=tmp_path / name)


def test_a_table_in_utf_16_is_read_as_in_utf_8(write):
    """A spreadsheet's "Unicode text": tabs, and a mark at the start."""
    source = load("csv", path=write("größe\tlabel", *(f"{i}\t{i % 2}" for i in range(9)), encoding="utf-16"))
    assert source.feature_names == ["größe"]


def test_parquet_without_pyarrow_says_how_to_install_it(tmp_path, monkeypatch):
    def absent(name):
        raise ImportError(name)

    monkeypatch.setattr(importlib, "import_module", absent)
    with pytest.raises(Mistake, match=r"pip install 'coterie\[parquet\]'"):
        read_parquet(tmp_path / "mine.parquet")


@pytest.fixture
def write_parquet(tmp_path):
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")

    def write(**columns):
        arrays = {}
        for name, values in columns.items():
            array = values if isinstance(values, pyarrow.Array) else pyarrow.array(values)
            arrays[name] = array.dictionary_encode() if name.startswith("coded") else array
        parquet.write_table(pyarrow.table(arrays), tmp_path / "mine.parquet")
        return tmp_path / "mine.parquet"

    return write


def test_parquet_columns_keep_their_types(write_parquet):
    path = write_parquet(
        dose=[1.5, None] * 10,
        coded=["x", "y"] * 10,
        flag=[True, False] * 10,
        ward=[3] * 10 + [12] * 10,
        label=["a", "b"] * 10,
    )
    source = load("parquet", path=path, client_column="ward")
    assert source.feature_names == ["dose", "dose missing", "coded=x", "coded=y", "flag"]
    assert list(deal(source)) == ["12", "3"]
    assert source.label_names == ["a", "b"]
    x = source.train.tensors()[0]
    assert x[0].tolist() == [1.5, 0, 1, 0, 1]


def test_an_ordered_column_as_the_label_keeps_its_order_and_unused_classes(write_parquet):
    """If it is unordered, its order is that of the file's writer, so the classes are sorted by name."""
    pyarrow = pytest.importorskip("pyarrow")
    codes, names = pyarrow.array([2, 0] * 10), pyarrow.array(["mild", "grave", "fatal"])
    found = {}
    for ordered in (True, False):
        label = pyarrow.DictionaryArray.from_arrays(codes, names, ordered=ordered)
        found[ordered] = load("parquet", path=write_parquet(dose=[1.5, 2.5] * 10, label=label))
    assert found[True].label_names == ["mild", "grave", "fatal"]
    assert found[True].num_classes == 3
    assert set(found[True].train.labels().tolist()) == {0, 2}
    assert found[False].label_names == ["fatal", "mild"]


VALUES = {
    "a list": [[0, 0], [0, 1]],
    "a group of fields": [{"a": 0}, {"a": 1}],
    "bytes": [b"no", b"yes"],
    "a date": [datetime.date(2020, 1, 1), datetime.date(2020, 1, 2)],
    "a time": [datetime.datetime(2020, 1, 1), datetime.datetime(2020, 1, 2)],
    "a time of day": [datetime.time(1), datetime.time(2)],
    "a duration": [datetime.timedelta(1), datetime.timedelta(2)],
}


@pytest.mark.parametrize("kind", VALUES)
def test_lists_dates_and_bytes_do_not_become_classes_by_their_text(write_parquet, kind):
    """A list once became the class "[0, 1]", and dates and bytes likewise."""
    values = VALUES[kind] * 5
    with pytest.raises(Mistake, match=f"row 1: label holds {kind}, .*; a label is one text, whole number or truth"):
        load("parquet", path=write_parquet(x=[1.0] * 10, label=values))
    with pytest.raises(Mistake, match=r"b holds values of the kind \w+; store numbers or a dictionary"):
        load("parquet", path=write_parquet(x=[1.0] * 10, b=values, label=[0, 1] * 5))
    with pytest.raises(Mistake, match=r"row 1: t = .*; test_column must hold true or false"):
        load("parquet", path=write_parquet(x=[1.0] * 10, t=values, label=[0, 1] * 5), test_column="t")
    path = write_parquet(x=[1.0] * 10, c=values, label=[0, 1] * 5)
    if kind in ("a date", "a time"):  # a day may be a client, and has one usual text
        assert "2020-01-02" in load("parquet", path=path, client_column="c").groups[1]
    else:
        with pytest.raises(Mistake, match=f"row 1: c holds {kind}, .*; a client id is one text, number or date"):
            load("parquet", path=path, client_column="c")


def test_decimals_are_numbers_as_labels(write_parquet):
    ones = [Decimal("0.00"), Decimal("1.00")] * 5
    assert load("parquet", path=write_parquet(x=[1.0] * 10, label=ones)).label_names == ["0", "1"]
    with pytest.raises(Mistake, match=r"the label label = 0\.5; a class is a whole number"):
        load("parquet", path=write_parquet(x=[1.0] * 10, label=[Decimal("0.5"), Decimal("1.5")] * 5))


def test_parquet_columns_of_one_name_and_dictionaries_of_bytes_are_refused(tmp_path):
    arrow, writer = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    path, numbers = tmp_path / "mine.parquet", arrow.array([0, 1] * 5)
    writer.write_table(arrow.table([numbers] * 3, names=["a", "a", "label"]), path)
    with pytest.raises(Mistake, match='names "a" twice; it must name each column once'):
        load("parquet", path=path)
    writer.write_table(arrow.table({"a": arrow.array([b"n", b"y"] * 5).dictionary_encode(), "label": numbers}), path)
    with pytest.raises(Mistake, match="a holds values of the kind bytes"):
        load("parquet", path=path)


def test_parquet_strings_are_refused_as_features(write_parquet):
    path = write_parquet(name=["a", "b"] * 10, label=[0, 1] * 10)
    with pytest.raises(Mistake, match=r"mine.parquet: name holds strings"):
        load("parquet", path=path)


def test_other_files_than_parquet_are_refused(tmp_path):
    pytest.importorskip("pyarrow")
    (tmp_path / "text.parquet").write_text("a,b\n")
    with pytest.raises(Mistake, match=r"text.parquet: cannot be read as a Parquet file"):
        load("parquet", path=tmp_path / "text.parquet")
    with pytest.raises(Mistake, match=r"no such file"):
        load("parquet", path=tmp_path / "none.parquet")
