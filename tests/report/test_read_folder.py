"""`coterie.read`, and how notebooks show runs, rounds and federations."""

import json
from html.parser import HTMLParser
from pathlib import Path

import pytest
import torch

import coterie
from tests.experiment.conftest import Start, start  # noqa: F401 - a fixture
from tests.federations import dense, ragged


class Cells(HTMLParser):
    """Collects the text of an HTML table, row by row, and the tags that were not closed."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.rows: list[list[str]] = []
        self.open: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: object) -> None:
        self.open.append(tag)
        if tag == "tr":
            self.rows.append([])

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open[-1] == "td":
            self.rows[-1].append(data)


def test_a_folder_is_read_as_its_files_say(start: Start, tmp_path: Path) -> None:  # noqa: F811
    pandas = pytest.importorskip("pandas")
    folder = start("rounds=2", "evaluate.every=2").folder
    run = coterie.read(str(folder))
    assert run.config["algorithm.lr"] == 0.1
    assert run.rounds == [json.loads(line) for line in (folder / "rounds.jsonl").read_text().splitlines()]
    assert run.summary == json.loads((folder / "summary.json").read_text())
    assert run.clients == json.loads((folder / "clients.json").read_text())
    frame = run.frame()
    assert isinstance(frame, pandas.DataFrame)
    assert list(frame.index) == [1, 2]
    assert frame["test_accuracy"].isna().tolist() == [True, False]
    assert frame["test_accuracy"][2] == run.summary["test_accuracy"]
    html = run._repr_html_()
    assert "<svg" in html
    assert "http" not in html.replace("http://www.w3.org/", "")
    for name in ("summary.json", "checksums.json"):
        (folder / name).unlink()
    assert not coterie.read(folder).over
    assert ["rounds", "2 so far"] in Cells(coterie.read(folder)._repr_html_().partition("<svg")[0]).rows
    (tmp_path / "sweep.toml").touch()
    with pytest.raises(coterie.Mistake, match="is a sweep; read one of its runs"):
        coterie.read(tmp_path)


def test_a_federation_and_a_round_are_tables() -> None:
    torch.manual_seed(0)
    clients = ragged()
    options = {"rounds": 3, "cohort": 2, "rng_seed": 7}
    plan = coterie.plan(coterie.fedavg(lr=0.1), dense(), clients, **options)
    shown = dict(Cells(plan._repr_html_()).rows)
    assert shown["clients"] == str(len(clients))
    assert (shown["clients in a round"], shown["rounds"], shown["rng seed"]) == ("2", "3", "7")
    assert "test examples" not in shown
    round = next(coterie.federate(coterie.fedavg(lr=0.1), dense(), clients, **options))
    html = round._repr_html_()
    shown = dict(Cells(html).rows)
    assert "<b>Round 1 of 3</b>" in html
    assert shown["train loss"] == f"{round.train_loss:.4g}"
    assert shown["clients that count"] == "2 of 2"
    assert shown["bytes up"] == f"{round.bytes_up:,}"
    assert "test accuracy" not in shown
