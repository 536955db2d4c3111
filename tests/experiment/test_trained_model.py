"""A finished run's model on a user's own files says what the run itself measured, and refuses what it did not learn."""

import csv
from pathlib import Path

import numpy as np
import pytest
import torch

from coterie import Mistake
from coterie.cli.main import main
from coterie.cli.predict_command import _csv_table
from coterie.data import load
from coterie.data.new_examples import NewExamples
from coterie.experiment import folder_jobs
from coterie.experiment.run import run
from coterie.experiment.settings import load_settings
from coterie.experiment.trained_model import load_trained_model
from coterie.report.run_page import run_page
from coterie.report.run_reader import read_run
from tests.experiment.files import written

TABLE = """
rounds = 3
[data]
source = "csv"
path = "wards.csv"
label_column = "well"
client_column = "ward"
test_column = "later"
[model]
name = "mlp"
[algorithm]
name = "fedavg"
lr = 0.3
"""
ARCHIVE = """
rounds = 2
[data]
source = "npz"
path = "pixels.npz"
num_clients = 2
standardize = "federated"
[model]
name = "cnn"
normalisation = "batch"
[algorithm]
name = "fedavg"
lr = 0.1
"""


@pytest.fixture(autouse=True)
def no_report(monkeypatch: pytest.MonkeyPatch) -> None:
    """It takes longer than the runs."""
    monkeypatch.setattr(folder_jobs, "write_report", lambda folder: (folder / "report.html").write_text("page"))


def table(rows: range) -> str:
    """Ages of whom every seventh is unknown, a dose, one of three drugs; who is old and takes little is ill."""
    lines = ["age,dose,drug,ward,later,well"]
    for i in rows:
        age, dose = 20 + 13 * i % 60, (7 * i) % 9 / 2
        told = "" if i % 7 == 3 else age
        lines.append(f"{told},{dose},{'xyz'[i % 3]},{'ab'[i % 2]},{i % 4 == 0},{'yes' if age < 50 + dose else 'no'}")
    return "\n".join(lines) + "\n"


@pytest.fixture
def wards(tmp_path: Path) -> Path:
    (tmp_path / "wards.csv").write_text(table(range(120)))
    return written(tmp_path, TABLE, "wards.toml")


def held_out(path: Path) -> Path:
    """The test rows of wards.csv alone, their columns in another order."""
    with path.open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["later"] == "True"]
    with path.with_name("tested.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, ["well", "drug", "dose", "age", "ward"], extrasaction="ignore")
        writer.writeheader()
        writer.writerows(rows)
    return path.with_name("tested.csv")


@pytest.mark.parametrize("how", ["federated", "none", "{mean = [50.0, 2.0], deviation = [10.0, 1.0]}"])
def test_predictions_of_the_test_rows_are_those_that_the_run_measured(wards: Path, tmp_path: Path, how: str) -> None:
    """Loss and accuracy of summary.json, from the probabilities: -log p of the label, and the likeliest class."""
    outcome = run(load_settings(wards, [f"data.standardize={how}"]), tmp_path / "run")
    model = load_trained_model(outcome.folder)
    rows = model.read(held_out(tmp_path / "wards.csv"))
    likely = model.probabilities(rows.x)
    y = torch.tensor([["no", "yes"].index(label or "") for label in rows.labels])
    assert model.inputs.classes == ["no", "yes"]
    assert rows.x.shape == (30, 6)  # age, whether it is missing, dose, three drugs
    assert rows.names[:2] == ["1", "2"]
    assert -likely[range(30), y].log().mean().item() == pytest.approx(outcome.summary["test_loss"], rel=1e-5)
    assert (likely.argmax(1) == y).float().mean().item() == pytest.approx(outcome.summary["test_accuracy"])


def test_the_command_writes_a_row_for_each_example(
    wards: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    accuracy = run(load_settings(wards), tmp_path / "run").summary["test_accuracy"]
    with pytest.raises(SystemExit) as status:
        main(["predict", "run", str(held_out(tmp_path / "wards.csv"))])
    assert status.value.code == 0
    said = capsys.readouterr().out
    assert f"accuracy {100 * accuracy:.2f} % on the 30 examples whose class the file gives" in said
    assert said.splitlines()[-1] == "predictions.csv"
    with (tmp_path / "predictions.csv").open(newline="") as file:
        head, *rows = csv.reader(file)
    assert head == ["example", "prediction", "p(no)", "p(yes)"]
    assert len(rows) == 30
    for _, prediction, no, yes in rows:
        assert float(no) + float(yes) == pytest.approx(1, abs=1e-5)
        assert prediction == ("yes" if float(yes) > float(no) else "no")


def test_a_row_without_a_label_and_a_drug_that_nobody_knew(wards: Path, tmp_path: Path) -> None:
    model = load_trained_model(run(load_settings(wards), tmp_path / "run").folder)
    (tmp_path / "new.csv").write_text("age,dose,drug\n40,1,w\n,2,x\n")
    rows = model.read(tmp_path / "new.csv")
    assert rows.labels == [None, None]
    assert rows.notes == ['no training row had drug = "w"; read as none of the known values']
    assert rows.x[0, 3:].tolist() == [0, 0, 0]
    assert rows.x[1].tolist()[:2] == [0, 1]  # the mean, and that it is missing


def test_each_client_by_its_own_scale_means_new_rows_by_theirs(wards: Path, tmp_path: Path) -> None:
    """Doses 1 and 3 have mean 2 and deviation 1."""
    model = load_trained_model(run(load_settings(wards, ["data.standardize=local"]), tmp_path / "run").folder)
    (tmp_path / "new.csv").write_text("age,dose,drug\n40,1,x\n40,3,x\n")
    rows = model.read(tmp_path / "new.csv")
    assert rows.x[:, 2].tolist() == [-1, 1]
    assert "standardised by its own mean and deviation" in rows.notes[0]


def test_pixels_of_an_archive(tmp_path: Path) -> None:
    """A model of pictures with BatchNorm, standardised by channel; the test examples are the archive's own."""
    draw = np.random.default_rng(0)
    y, test = np.arange(60) % 3, np.arange(60) >= 40
    x = (draw.integers(0, 120, (60, 12, 12)) + 60 * y[:, None, None]).astype(np.uint8)
    np.savez(tmp_path / "pixels.npz", x=x, y=y, test=test)
    np.savez(tmp_path / "new.npz", x=x[40:], y=y[40:])
    options = ["model.name=resnet20", "algorithm.batch_size=10"]
    outcome = run(load_settings(written(tmp_path, ARCHIVE), options), tmp_path / "run")
    model = load_trained_model(outcome.folder)
    found = model.read(tmp_path / "new.npz")
    likely, labels = model.probabilities(found.x), [int(label or -1) for label in found.labels]
    assert labels == y[40:].tolist()
    assert -likely[range(20), labels].log().mean().item() == pytest.approx(outcome.summary["test_loss"], rel=1e-4)
    np.savez(tmp_path / "small.npz", x=x[:, :6])
    with pytest.raises(Mistake, match=r"each example is numbers of shape \[1, 6, 12\]; give grey pictures of 12 x 12"):
        model.read(tmp_path / "small.npz")


def test_pictures_in_folders_named_like_classes(tmp_path: Path) -> None:
    image = pytest.importorskip("PIL.Image")
    for k in range(40):
        folder = tmp_path / "scans" / ("dark", "light")[k % 2]
        folder.mkdir(parents=True, exist_ok=True)
        image.new("RGB", (8, 6), (100 * (k % 2) + k, k, 0)).save(folder / f"{k}.png")
    text = ARCHIVE.replace('"npz"', '"images"').replace("pixels.npz", "scans").replace('normalisation = "batch"', "")
    model = load_trained_model(run(load_settings(written(tmp_path, text), ["model.name=mlp"]), tmp_path / "run").folder)
    found = model.read(tmp_path / "scans")
    assert found.names[0] == "dark/0.png"
    assert found.labels == ["dark"] * 20 + ["light"] * 20
    assert model.probabilities(found.x).shape == (40, 2)
    image.new("L", (8, 6), 200).save(tmp_path / "grey.png")  # one picture; grey is a colour too
    assert model.read(tmp_path / "grey.png").x.shape == (1, 3, 6, 8)
    assert model.read(tmp_path / "grey.png").names == ["grey.png"]
    (tmp_path / "empty").mkdir()
    with pytest.raises(Mistake, match=r"empty: holds no pictures; give pictures of 8 x 6 pixels, or an npz"):
        model.read(tmp_path / "empty")


def test_new_pictures_become_squares_as_those_of_training_did(tmp_path: Path) -> None:
    """They are the same inputs, bit for bit, as the source makes of them; of whatever size a new picture is."""
    image = pytest.importorskip("PIL.Image")
    for k in range(12):
        folder = tmp_path / "scans" / ("dark", "light")[k % 2]
        folder.mkdir(parents=True, exist_ok=True)
        image.linear_gradient("L").resize((8 + k, 20 - k)).point(lambda v, k=k: v // (k + 1)).save(folder / f"{k}.png")
    text = ARCHIVE.replace('"npz"', '"images"\nside = 5').replace("pixels.npz", "scans")
    text = text.replace('normalisation = "batch"', "").replace('standardize = "federated"', "")
    model = load_trained_model(run(load_settings(written(tmp_path, text), ["model.name=mlp"]), tmp_path / "run").folder)
    source = load("images", path=tmp_path / "scans", labels=True, side=5, test_fraction=0.1)
    known = {tuple(each.flatten().tolist()) for each in source.train.x}
    found = model.read(tmp_path / "scans").x
    assert found.shape == (12, 1, 5, 5)
    assert {tuple(each.flatten().tolist()) for each in found} == known
    image.new("L", (300, 40), 9).save(tmp_path / "wide.png")
    assert model.read(tmp_path / "wide.png").x.shape == (1, 1, 5, 5)


def test_outputs_that_are_not_finite_are_refused_with_the_example_that_gave_them(wards: Path, tmp_path: Path) -> None:
    model = load_trained_model(run(load_settings(wards), tmp_path / "run").folder)
    with torch.no_grad():
        next(model.model.parameters()).mul_(1e30)
    with pytest.raises(Mistake, match=r"outputs for 1 of 2 examples \(number 2\) are not finite"):
        model.probabilities(torch.tensor([[0.0] * 6, [1e30] * 6]))


def test_a_prediction_that_a_spreadsheet_would_run_is_guarded() -> None:
    examples = NewExamples(torch.zeros(3, 1), ["=cmd|'/C calc'!A0", "-1", "1"], [None] * 3)
    text = _csv_table(examples, ["@well", "+ill", "-0.5"], torch.ones(3, 2) / 2, ("ill", "well"))
    rows = list(csv.reader(text.splitlines()))
    assert [row[:2] for row in rows[1:]] == [["'=cmd|'/C calc'!A0", "'@well"], ["-1", "'+ill"], ["1", "-0.5"]]


def test_a_client_with_a_model_of_its_own_is_named(wards: Path, tmp_path: Path) -> None:
    options = ["algorithm.name=independent", 'model.names=["mlp", "logistic"]']
    folder = run(load_settings(wards, options), tmp_path / "run").folder
    assert len(list(load_trained_model(folder, "a").model.parameters())) > len(
        list(load_trained_model(folder, "b").model.parameters())
    )
    for client, says in (
        (None, r"--client ID: each client has a model of its own; say whose: a, b"),
        ("c", r"--client c: there is no such client: a, b"),
    ):
        with pytest.raises(Mistake, match=says):
            load_trained_model(folder, client)


def test_what_cannot_be_used_is_said_in_a_sentence(wards: Path, tmp_path: Path) -> None:
    folder = run(load_settings(wards), tmp_path / "run").folder
    model = load_trained_model(folder)
    files = {
        "absent.csv": (None, r"there is no such file or folder"),
        "model.pt": ("", r"must be a .csv, .parquet or .npz file, a picture, or a folder of pictures"),
        "few.csv": ("age,drug\n1,x\n", r'few.csv: lacks "dose", which the model learned from; it has "age", "drug"'),
        "none.csv": ("age,dose,drug\n", r"none.csv: holds no rows"),
        "text.csv": ("age,dose,drug\nold,1,x\n", r'age = "old", but the model learned from numbers there'),
        "mixed.csv": ("age,dose,drug\n1,1,x\n2,1,x\nold,1,x\n", r'row 3: age = "old", where most rows hold a number'),
    }
    for name, (text, says) in files.items():
        if text is not None:
            (tmp_path / name).write_text(text)
        with pytest.raises(Mistake, match=says):
            model.read(tmp_path / name)
    with pytest.raises(Mistake, match=r"--client a: .* ended with one model for all clients; leave it out"):
        load_trained_model(folder, "a")
    with pytest.raises(SystemExit) as status:
        main(["predict", str(folder), str(tmp_path / "few.csv"), "--out", str(tmp_path / "out.csv")])
    assert status.value.code == 2
    assert not (tmp_path / "out.csv").exists()


def test_a_folder_that_cannot_be_used(wards: Path, tmp_path: Path) -> None:
    folder = run(load_settings(wards), tmp_path / "run").folder
    (folder / "model.safetensors").write_bytes(b"no weights")
    with pytest.raises(Mistake, match=r"model.safetensors: is damaged"):
        load_trained_model(folder)
    (folder / "checksums.json").unlink()  # as in a folder of an earlier version
    with pytest.raises(Mistake, match=r"model.safetensors: is not the model that config.toml describes"):
        load_trained_model(folder)
    for damaged in ("{}", "[]", "{"):
        (folder / "inputs.json").write_text(damaged)
        for use in (load_trained_model, read_run):
            with pytest.raises(Mistake, match=r"inputs.json: is damaged"):
                use(folder)
    (folder / "inputs.json").unlink()
    with pytest.raises(Mistake, match=r"has no inputs.json"):
        load_trained_model(folder)
    with pytest.raises(Mistake, match=r"is not a run folder"):
        load_trained_model(tmp_path)


def test_a_model_of_text_predicts_no_class_of_a_whole_example(tmp_path: Path) -> None:
    text = ARCHIVE.replace("pixels", "text").replace('standardize = "federated"', "").replace('"cnn"', '"char_lstm"')
    text = text.replace('normalisation = "batch"', "vocabulary = 5\nhidden = 4")
    x = np.arange(40 * 6).reshape(40, 6) % 5
    np.savez(tmp_path / "text.npz", x=x, y=np.roll(x, -1, axis=1))
    model = load_trained_model(run(load_settings(written(tmp_path, text)), tmp_path / "run").folder)
    found = model.read(tmp_path / "text.npz")
    assert model.model(found.x).shape == (40, 6, 5)
    with pytest.raises(Mistake, match=r"the model predicts a class for each position, not one for each example"):
        model.probabilities(found.x)


@pytest.mark.pictures
def test_the_report_calls_labels_by_their_names(wards: Path, tmp_path: Path) -> None:
    """In the order of their classes; clients.json keeps numbers."""
    found = read_run(run(load_settings(wards), tmp_path / "run").folder)
    assert found.labels == ["no", "yes"]
    assert found.clients[0]["label_counts"].keys() == {"0", "1"}
    text = run_page(found)
    assert 0 < text.index(">no</text>") < text.index(">yes</text>")
