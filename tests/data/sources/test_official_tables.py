"""Heart disease and Adult, from small files in the official forms."""

from __future__ import annotations

import gzip
import os
from pathlib import Path

import pytest
import torch

from coterie.core.errors import Mistake
from coterie.data import deal, load, own_test
from coterie.data.standardize import standardize

HOSPITALS = ["cleveland", "hungarian", "switzerland", "va"]
HEADER = "age,sex,cp,trestbps,chol,fbs,restecg,thalach,exang,oldpeak,slope,ca,thal,target\n"


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("COTERIE_DATA", str(tmp_path))
    return tmp_path


def write_hearts(home: Path, spoilt: str | None = None) -> None:
    """Ten patients in each hospital, eight of them ill; each hospital marks its gaps in its own way."""
    (home / "heart_disease").mkdir()
    for k, hospital in enumerate(HOSPITALS):
        gap = ["-9", "?", "", "-9.0"][k]
        chol = 0 if hospital == "switzerland" else 200
        lines = [f"{50 + i}.0,{i % 2},4,120,{chol},0,0,150,1,1.5,2,{gap},{gap},{i % 5}" for i in range(10)]
        if spoilt is not None and hospital == "va":
            lines[3] = spoilt
        text = (HEADER if k % 2 else "") + "\n".join(lines)
        (home / "heart_disease" / f"processed.{hospital}.data").write_text(text)


def test_heart_disease_has_a_client_for_each_hospital(home):
    """Of ten patients eight are ill (i % 5 > 0); of ten, two are for testing."""
    write_hearts(home)
    source = load("heart_disease")
    clients = deal(source)
    assert list(clients) == HOSPITALS
    assert len(source.train) == 32
    assert len(source.test) == 8
    assert sorted(own_test(source, clients)) == HOSPITALS
    assert source.train.y.sum() == 32  # all 40 share one pool of labels
    assert source.num_classes == 2


def test_heart_disease_features_by_hand(home):
    """The first patient of Cleveland: 50 years, female, pain 4, pressure 120, cholesterol 200, rate 150, angina."""
    write_hearts(home)
    source = load("heart_disease")
    named = dict(zip(source.feature_names, source.train.x[0].tolist(), strict=True))
    present = {"age": 50, "trestbps": 120, "chol": 200, "thalach": 150, "oldpeak": 1.5}
    codes = {"cp=4": 1, "restecg=0": 1, "exang=1": 1, "slope=2": 1, "ca missing": 1, "thal missing": 1}
    assert {k: v for k, v in named.items() if v and k != "ca"} == present | codes
    assert torch.isnan(source.train.x[:, source.feature_names.index("ca")]).all()
    assert [source.feature_names[k] for k in source.numeric] == ["age", "trestbps", "chol", "thalach", "oldpeak", "ca"]


def test_a_cholesterol_of_zero_is_missing(home):
    write_hearts(home)
    source = load("heart_disease")
    x = deal(source)["switzerland"].tensors()[0]
    assert x[:, source.feature_names.index("chol")].isnan().all()
    assert (x[:, source.feature_names.index("chol missing")] == 1).all()
    done = standardize(source, deal(source))
    assert done.source.test.x.isfinite().all()
    assert (done.clients["switzerland"].tensors()[0][:, source.feature_names.index("chol")] == 0).all()


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("1,2,3", "line 5: holds 3 values; a patient has 14"),
        ("1,1,1,1,1,1,1,1,1,1,1,1,1,", "line 5: num, the diagnosis, is missing"),
        ("old,1,1,1,1,1,1,1,1,1,1,1,1,1", 'line 5: age = "old" is not a number'),
        ("inf,1,1,1,1,1,1,1,1,1,1,1,1,1", 'line 5: age = "inf" is not a number'),
    ],
)
def test_a_damaged_record_is_a_mistake(home, line, says):
    write_hearts(home, spoilt=line)
    with pytest.raises(Mistake, match=f"processed.va.data: {says}"):
        load("heart_disease")


def write_adult(home: Path, spoilt: str = "") -> None:
    (home / "adult").mkdir()
    row = "{}, {}, 77516, Bachelors, 13, Never-married, {}, Not-in-family, White, Male, 2174, 0, 40, United-States, {}"
    train = [row.format(20, "?", "Sales", "<=50K"), row.format(21, "Private", "?", ">50K")] * 3
    test = [
        "|1x3 Cross validator",
        row.format(40, "Private", "Sales", ">50K."),
        row.format(41, "New", "Craft", "<=50K."),
    ]
    (home / "adult" / "adult.data.gz").write_bytes(gzip.compress("\n".join([*train, spoilt, ""]).encode()))
    (home / "adult" / "adult.test").write_text("\n".join(test) + "\n\n")


def test_adult_reads_both_forms_and_keeps_the_official_split(home):
    write_adult(home)
    source = load("adult")
    assert (len(source.train), len(source.test)) == (6, 2)
    assert source.train.tensors()[1].tolist() == [0, 1] * 3
    assert source.test.tensors()[1].tolist() == [1, 0]
    assert not source.natural
    first = dict(zip(source.feature_names, source.train.x[0].tolist(), strict=True))
    assert (first["age"], first["workclass missing"], first["occupation=Sales"]) == (20, 1, 1)
    assert "workclass=New" not in source.feature_names
    assert len(source.numeric) == 6


def test_adult_by_occupation(home):
    """Craft occurs only in a test row, so it is no client."""
    write_adult(home)
    source = load("adult", client_column="occupation")
    assert {c: len(e) for c, e in deal(source).items()} == {"?": 3, "Sales": 3}
    assert not any("occupation" in name for name in source.feature_names)
    with pytest.raises(Mistake, match=r'^client_column = "age": it must be one of workclass, education'):
        load("adult", client_column="age")


def test_a_damaged_census_is_a_mistake(home):
    write_adult(home, spoilt="1, 2, 3")
    with pytest.raises(Mistake, match=r"adult.data.gz: line 7 is not a record"):
        load("adult")


REAL = Path(os.environ.get("COTERIE_DATA", "/nowhere"))


@pytest.mark.skipif(not (REAL / "heart_disease" / "processed.va.data").exists(), reason="the files are not there")
def test_real_hospitals_have_their_published_sizes():
    """UCI: 303, 294, 123 and 200 patients, of whom 139, 106, 115 and 149 are ill."""
    source = load("heart_disease")
    sizes = {h: len(e) + len(own_test(source, HOSPITALS)[h]) for h, e in deal(source).items()}
    assert sizes == {"cleveland": 303, "hungarian": 294, "switzerland": 123, "va": 200}
    assert source.train.y.sum() == 139 + 106 + 115 + 149
