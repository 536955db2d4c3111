"""What silos say about their rows: read, agreed, refused."""

import copy
from pathlib import Path
from typing import Any

import hypothesis.strategies as st
import numpy as np
import pytest
import torch
from hypothesis import given

from coterie.core.errors import Mistake
from coterie.data.digest_split import contents_of_columns, split_by_digest
from coterie.experiment.silos.facts import Facts, read_facts
from coterie.experiment.silos.load_own_rows import load_own_rows
from coterie.experiment.silos.merge_facts import Merged, merge_facts
from coterie.experiment.silos.own_rows import OwnRows
from coterie.experiment.silos.plans import scale_of, sum_clients
from coterie.experiment.silos.silo_file import SiloFile, load_silo_file
from tests.experiment.silos.exchange import through_json

HEADER = "age,kind,answer,test"


def silo(folder: Path, name: str, rows: list[str], more: str = "", header: str = HEADER) -> OwnRows:
    """A silo with a csv of its own; more: further lines of [data]."""
    return load_own_rows(silo_file(folder, name, rows, more, header))


def silo_file(folder: Path, name: str, rows: list[str], more: str = "", header: str = HEADER) -> SiloFile:
    (folder / f"{name}.csv").write_text("\n".join([header, *rows]))
    text = f'name = "{name}"\n[data]\nsource = "csv"\npath = "{name}.csv"\nlabel_column = "answer"\n{more}\n'
    if "test_" not in more:
        text += 'test_column = "test"\n'
    (folder / f"{name}.toml").write_text(text)
    return load_silo_file(folder / f"{name}.toml")


NORTH = ["50,x,no,0", "60,y,no,0", ",x,no,0", "55,y,no,1"]
SOUTH = ["40,z,yes,0", "41,z,no,0", "42,x,yes,0", "43,w,maybe,1"]


def merge(*rows: OwnRows) -> Merged:
    return merge_facts({r.file.name: read_facts(through_json(r.facts().to_record()), r.file.name) for r in rows})


def test_classes_and_categories_are_those_of_all_silos(tmp_path: Path) -> None:
    """By hand: w occurs in a test row alone, so it is no category; "maybe" is a class, as test labels are classes."""
    north, south = silo(tmp_path, "north", NORTH), silo(tmp_path, "south", SOUTH)
    agreement = merge(north, south).agreement
    assert agreement.label_names == ("maybe", "no", "yes")
    assert agreement.num_classes == 3
    age, kind = agreement.columns
    assert (age.categories, age.missing) == (None, True)
    assert (kind.categories, kind.missing) == (("x", "y", "z"), False)
    source = north.examples(agreement).source
    assert source.feature_names == ["age", "age missing", "kind=x", "kind=y", "kind=z"]
    assert torch.equal(source.train.tensors()[0][1], torch.tensor([60.0, 0, 0, 1, 0]))
    assert source.train.labels() is not None
    assert source.train.labels().tolist() == [1, 1, 1]  # type: ignore[union-attr]
    south_test = south.examples(agreement).source.test
    assert south_test is not None
    assert torch.equal(south_test.tensors()[0][0], torch.tensor([43.0, 0, 0, 0, 0]))  # w is none of the categories
    assert south_test.labels().tolist() == [0]  # type: ignore[union-attr]


def test_facts_hold_counts_and_names_alone(tmp_path: Path) -> None:
    facts = silo(tmp_path, "south", SOUTH).facts()
    (client,) = facts.clients
    assert (client.client, client.train, client.test, client.labels) == ("south", 3, 1, {"no": 1, "yes": 2})
    assert "41" not in str({key: value for key, value in facts.to_record().items() if key != "digest"})


def test_the_scale_is_that_of_all_silos(tmp_path: Path) -> None:
    """By hand: 50, 60, 40, 41, 42 have the mean 46.6; the gap does not count."""
    north, south = silo(tmp_path, "north", NORTH), silo(tmp_path, "south", SOUTH)
    merged = merge(north, south)
    sums = sum_clients(north, merged.agreement) | sum_clients(south, merged.agreement)
    scale = scale_of(sums, merged)
    values = np.array([50, 60, 40, 41, 42.0])
    assert scale.mean.tolist() == pytest.approx([values.mean()])
    assert scale.deviation.tolist() == pytest.approx([values.std()])


@pytest.mark.parametrize(
    ("broken", "sentence"),
    [
        ({"count": [9.0]}, "count other than 0 to 3"),
        ({"count": [1.5]}, "count other than 0 to 3"),
        ({"total": [float("nan")]}, "not finite"),
        ({"squares": [1.0]}, "squares are too small"),
        ({"total": [1.0, 2.0]}, "must be 1 numbers of 64 bits"),
    ],
)
def test_sums_of_no_honest_silo_are_refused(tmp_path: Path, broken: dict[str, Any], sentence: str) -> None:
    north, south = silo(tmp_path, "north", NORTH), silo(tmp_path, "south", SOUTH)
    merged = merge(north, south)
    sums = sum_clients(north, merged.agreement) | sum_clients(south, merged.agreement)
    sums["south"] |= {name: torch.tensor(value, dtype=torch.float64) for name, value in broken.items()}
    with pytest.raises(Mistake, match=f"south: the sums of client south cannot be used: .*{sentence}"):
        scale_of(sums, merged)


@pytest.mark.parametrize(
    ("rows", "more", "header", "sentence"),
    [
        (["1,2,no,0", "2,3,yes,1"], "", HEADER, "^odd: its column kind holds numbers, that of north texts"),
        (["1,2,no,0", "2,3,yes,1"], "", "age,sort,answer,test", '^odd: its list of columns is \\["age", "sort"\\]'),
        (
            ["1,x,0,0", "2,x,1,1"],
            "",
            HEADER,
            '^odd: its kind of labels is "whole numbers", .* north "texts"',
        ),
    ],
)
def test_a_silo_that_does_not_fit_is_named(
    tmp_path: Path, rows: list[str], more: str, header: str, sentence: str
) -> None:
    north, south = silo(tmp_path, "north", NORTH), silo(tmp_path, "south", SOUTH)
    with pytest.raises(Mistake, match=sentence):
        merge(north, south, silo(tmp_path, "odd", rows, more, header))


def test_a_column_of_numbers_can_be_coded(tmp_path: Path) -> None:
    """What the refusal says to do works: the silo with numbers codes them, as a file of all rows would."""
    odd = silo(tmp_path, "odd", ["1,2,no,0", "2,3,yes,1"], 'coded_columns = ["kind"]')
    agreement = merge(silo(tmp_path, "north", NORTH), odd).agreement
    assert agreement.columns[1].categories == ("2", "x", "y")


def test_an_empty_column_is_of_either_kind(tmp_path: Path) -> None:
    empty = silo(tmp_path, "empty", [",,no,0", ",,no,1"])
    agreement = merge(silo(tmp_path, "north", NORTH), empty).agreement
    assert [column.missing for column in agreement.columns] == [True, True]
    x, _ = empty.examples(agreement).source.train.tensors()
    assert x[0].isnan().tolist() == [True, False, False, False, False]
    assert x[0, 1:].tolist() == [1, 0, 0, 1]


def test_two_silos_cannot_host_one_client(tmp_path: Path) -> None:
    north, south = silo(tmp_path, "north", NORTH), silo(tmp_path, "south", SOUTH)
    twice = {"north": north.facts(), "south": copy.deepcopy(south.facts())}
    twice["south"] = Facts(**(vars(twice["south"]) | {"clients": north.facts().clients}))
    with pytest.raises(Mistake, match="silos north and south both host a client called north"):
        merge_facts(twice)


JSON = st.recursive(st.none() | st.booleans() | st.integers() | st.text(max_size=3), lambda s: st.lists(s, max_size=2))


@given(st.data())
def test_facts_of_a_stranger_are_read_or_refused(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    """One value of honest facts is replaced by another: they are read as facts, or refused in a sentence."""
    record = through_json(RECORD)
    place: Any = record
    while True:
        keys = list(place) if isinstance(place, dict) else list(range(len(place)))
        key = data.draw(st.sampled_from(keys))
        inside = place[key]
        if not isinstance(inside, dict | list) or not inside or data.draw(st.booleans()):
            place[key] = data.draw(JSON)
            break
        place = inside
    sentence = ""
    try:
        facts = read_facts(record, "south")
    except Mistake as mistake:
        sentence = str(mistake)
    else:
        assert facts.silo == "south"
        assert all(client.train > 0 for client in facts.clients)
    assert not sentence or sentence.startswith("south: its facts cannot be used")


RECORD = {
    "silo": "south",
    "digest": "0",
    "clients": [{"client": "south", "train": 3, "test": 1, "labels": {"no": 1, "yes": 2}, "place": None}],
    "shape": None,
    "dtype": "float32",
    "labels": {"kind": "texts", "names": ["no", "yes"], "classes": 2, "shape": [], "dtype": "int64"},
    "columns": [{"name": "kind", "kind": "coded", "categories": ["x"], "declared": False, "missing": False}],
    "encoded": False,
    "common_test": 0,
    "model": None,
}


def test_the_record_above_is_honest() -> None:
    assert read_facts(RECORD, "south").to_record()["silo"] == "south"
    with pytest.raises(Mistake, match="they are those of south"):
        read_facts(RECORD, "north")


def test_the_split_by_digest_is_of_the_row_alone(tmp_path: Path) -> None:
    """Other rows, and the order of rows and columns, change no row's side; about a fifth are for testing."""
    rng = np.random.default_rng(0)
    columns = {"a": rng.normal(size=2000).round(6).tolist(), "b": rng.integers(0, 9, 2000).tolist()}
    contents = contents_of_columns(columns)
    _, test = split_by_digest(contents, 0.2)
    assert 320 < len(test) < 480
    order = rng.permutation(2000)[:500]
    fewer = {name: [columns[name][k] for k in order] for name in ("b", "a")}
    _, again = split_by_digest(contents_of_columns(fewer), 0.2)
    assert {int(order[k]) for k in again} == set(test.tolist()) & set(order.tolist())
    with pytest.raises(Mistake, match="lower it, mark test rows"):
        split_by_digest([b"a"] * 3, 0.999999)


def test_rows_of_an_archive_are_split_by_digest(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(50, 3)).astype(np.float32), rng.integers(0, 2, 50)
    np.savez(tmp_path / "rows.npz", x=x, y=y)
    (tmp_path / "silo.toml").write_text('name = "s"\n[data]\nsource = "npz"\npath = "rows.npz"\ntest_fraction = 0.3\n')
    source = load_own_rows(load_silo_file(tmp_path / "silo.toml")).source
    np.savez(tmp_path / "rows.npz", x=x[::-1], y=y[::-1])
    again = load_own_rows(load_silo_file(tmp_path / "silo.toml")).source
    assert source.test is not None
    assert again.test is not None
    assert sorted(source.test.tensors()[0].tolist()) == sorted(again.test.tensors()[0].tolist())


def test_a_silo_may_host_some_of_the_clients_of_a_typed_table(tmp_path: Path) -> None:
    """Categories that a file declares keep their order, and no row of another ward is an example."""
    pyarrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    kinds = pyarrow.array(["v", "u"] * 4).dictionary_encode()
    columns = {"a": [float(k) for k in range(8)], "kind": kinds, "label": [0, 1] * 4}
    columns |= {"ward": ["p", "p", "q", "q"] * 2, "test": [0, 0, 0, 0, 0, 0, 0, 1]}
    parquet.write_table(pyarrow.table(columns), tmp_path / "rows.parquet")
    (tmp_path / "silo.toml").write_text(
        'name = "s"\n[data]\nsource = "parquet"\npath = "rows.parquet"\nclient_column = "ward"\nclients = ["q"]\n'
        'test_column = "test"\n'
    )
    rows = load_own_rows(load_silo_file(tmp_path / "silo.toml"))
    agreement = merge(rows).agreement
    own = rows.examples(agreement)
    assert agreement.columns[1].categories == ("v", "u")
    assert own.clients.keys() == {"q"}
    assert own.clients["q"].tensors()[0].tolist() == [[2, 1, 0], [3, 0, 1], [6, 1, 0]]
    assert own.source.test_groups == ["q"]


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "^name is missing"),
        ('name = "a"\n', "^data.source is missing"),
        ('name = "a"\nnmae = 1\n', "did you mean name"),
        ('name = "a"\n[data]\nsource = "csv"\n', "^data.path is missing"),
        (
            'name = "a"\n[data]\nsource = "csv"\npath = "no.csv"\nlabel = "x"\n',
            "data.label .*did you mean data.labels",
        ),
        ('name = "a"\n[data]\nsource = "digits"\n[dat]\n', "there is no such table; did you mean"),
        ('name = "a"\n[data]\nsource = "digits"\n[model]\nweights = "w"\n', "give model.name too"),
        ('name = "a"\n[data]\nsource = "digits"\n[model]\nname = "mpl"\n', 'did you mean "mlp"'),
        ('name = "a"\n[data]\nsource = "digits"\n[engine]\nthreads = 0\n', "engine.threads = 0"),
        ('name = "a"\n[data]\nsource = "digits"\npartition = "iid"\n', "data.partition"),
    ],
)
def test_mistakes_in_a_silo_file_are_said(tmp_path: Path, text: str, sentence: str) -> None:
    (tmp_path / "silo.toml").write_text(text)
    with pytest.raises(Mistake, match=sentence):
        load_silo_file(tmp_path / "silo.toml")
