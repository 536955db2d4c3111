"""Pages made from run folders that the tests write themselves."""

import base64
import hashlib
import json
import re
import runpy
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from coterie import Mistake
from coterie.aggregation.registry import AGGREGATORS, PRE
from coterie.algorithms import ALGORITHMS
from coterie.data.partitions import PARTITIONS
from coterie.data.sources import SOURCES
from coterie.probes import Line, Plane
from coterie.report import compare_runs, read_run, write_comparison, write_report
from coterie.report.charts import SERIES_COLOURS, dashes, series_variable
from coterie.report.citations import CITED, citations, read_references
from coterie.report.clients_chart import MAX_CLIENTS, clients_chart
from coterie.report.layer_charts import layer_charts
from coterie.report.line_chart import MAX_POINTS, MAX_ZOOM_POINTS, Curve, line_chart, thin
from coterie.report.loss_pages import write_line_page, write_plane_page
from coterie.report.probe_charts import PROBE_CHARTS

CONFIG = """
rounds = {rounds}
[data]
source = "digits"
partition = "label"
[model]
name = "{model}"
[algorithm]
name = "fedavg"
lr = {lr}
[evaluate]
target_accuracy = 0.8
[versions]
torch = "2.x"
"""
NASTY = '<script>alert("$1$")</script> & Söhne'


def round_(k: int, accuracy: float | None, why: str | None = None) -> dict[str, Any]:
    return {
        "round": k,
        "seconds": 0.5,
        "elapsed": 0.75 * k,
        "cohort_size": 4,
        "reached": 4 - bool(why),
        "dropped": [{"client": NASTY, "why": why}] if why else [],
        "bytes_up": 1_000_000,
        "bytes_down": 2_000_000,
        "train_loss": 1 / k,
        "test_loss": None if accuracy is None else 2 / k,
        "test_accuracy": accuracy,
    }


def folder(path: Path, accuracies: list[float | None], over: bool = True, model: str = "mlp", lr: float = 0.1) -> Path:
    """Write a run folder as a run would leave it, and return its path."""
    path.mkdir()
    (path / "config.toml").write_text(CONFIG.format(rounds=len(accuracies), model=model, lr=lr), encoding="utf-8")
    records = [round_(k, a, NASTY if k == 2 else None) for k, a in enumerate(accuracies, 1)]
    (path / "rounds.jsonl").write_text("".join(json.dumps(r) + "\n" for r in records))
    clients = [{"id": NASTY, "examples": 5, "label_counts": {"0": 2, "7": 3}}, client("b", 40, {"7": 40})]
    (path / "clients.json").write_text(json.dumps(clients))
    if over:
        end = read_run(path).end  # what is computed for a run that is not over is what a summary holds
        (path / "summary.json").write_text(json.dumps(end))
    return path


def client(name: str, examples: int, counts: dict[str, int] | None) -> dict[str, Any]:
    return {"id": name, "examples": examples, "label_counts": counts}


class Page(HTMLParser):
    """The text, tags and outside references of a page."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.links: list[str] = []
        self.text = ""
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.links += [
            v or "" for k, v in attrs if k in ("src", "href", "xlink:href") and not (v or "").startswith("#")
        ]

    def handle_data(self, data: str) -> None:
        if self.tags[-1:] not in (["script"], ["style"]):
            self.text += data


def test_a_report_says_what_ran_and_how_it_ended(tmp_path: Path) -> None:
    """0.8 lies half-way between rounds 2 and 3 (0.7 and 0.9): 2.5 rounds; 3 rounds of 1 MB up and 2 MB down."""
    page = Page(write_report(folder(tmp_path / "run", [0.5, 0.7, 0.9])))
    for words in ("fedavg on digits (label) with mlp", "90.00 %", "2.5", "3.0 MB", "6.0 MB", "2.2 s", "torch", "2.x"):
        assert words in page.text
    assert "Finished after 3 of 3 rounds: the target accuracy was reached." in page.text
    assert "2 clients with 45 examples together" in page.text
    assert page.tags.count("svg") == 5  # accuracy and loss by rounds and by bytes, and who holds what
    assert "8.33 %" in page.text  # one of twelve was dropped


def test_a_page_loads_nothing_and_runs_its_own_scripts_alone(tmp_path: Path) -> None:
    """Its policy lets the browser run the scripts that coterie wrote, by their digests, and load nothing."""
    path = write_report(folder(tmp_path / "run", [0.5, 0.9], model=NASTY.replace('"', "'").replace("\\", "")))
    page, text = Page(path), path.read_text(encoding="utf-8")
    assert page.links == ["data:,"]
    assert not re.search(r"url\((?!#)", text)
    assert NASTY in page.text  # the reason of the dropped client, as text
    scripts = re.findall(r"<script>(.*?)</script>", text, re.DOTALL)
    digests = [base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() for script in scripts]
    policy = re.search(r'http-equiv="Content-Security-Policy" content="([^"]*)"', text)
    assert policy is not None
    assert re.findall(r"sha256-([^']*)", policy[1]) == digests
    assert policy[1].startswith("default-src 'none'; script-src 'sha256-")


def plots(text: str) -> list[dict[str, Any]]:
    """Return what the page's script draws."""
    return [json.loads(each) for each in re.findall(r'<script type="application/json">(.*?)</script>', text)]


def test_a_chart_holds_its_points_for_the_pages_script(tmp_path: Path) -> None:
    """The target of 0.8 is a line of its own; a round that was not evaluated has no point."""
    text = write_report(folder(tmp_path / "run", [0.5, None, 0.9])).read_text(encoding="utf-8")
    accuracy, loss, by_bytes, _ = plots(text)
    assert [(line["label"], line["x"], line["y"]) for line in accuracy["lines"]] == [
        ("on all test data", [1, 3], [0.5, 0.9]),
        ("target", [1, 3], [0.8, 0.8]),
    ]
    assert [line["y"] for line in loss["lines"]] == [[2, 0.666667], [1, 0.5, 0.333333]]
    assert by_bytes["lines"][0]["x"] == [3_000_000, 9_000_000]
    assert by_bytes["x_bytes"]


def test_no_name_ends_the_block_of_a_charts_points() -> None:
    picture = line_chart([Curve(NASTY, [1], [0.5]), Curve("</script><!--", [1], [0.6])], "round", "loss") or ""
    assert [line["label"] for line in plots(picture)[0]["lines"]] == [NASTY, "</script><!--"]


def test_each_series_differs_by_colour_or_dashes_from_all_others() -> None:
    looks = {(series_variable(k), dashes(k)) for k in range(24)}
    assert len(looks) == 24
    assert len({dashes(k) for k in range(6)}) == 6


def test_the_accuracy_of_each_model_on_each_clients_data_is_a_table(tmp_path: Path) -> None:
    path = folder(tmp_path / "run", [0.5, 0.9])
    records = [round_(k, 0.5) | {"accuracy_matrix": [[0.1 * k, None], [0.3, 0.4]]} for k in (1, 2)]
    (path / "rounds.jsonl").write_text("".join(json.dumps(r) + "\n" for r in records))
    text = Page(write_report(path)).text
    assert f"data of {NASTY}" in text
    assert "model of b30.00 %40.00 %" in text
    assert "20.00 %-" in text
    clients = json.loads((path / "clients.json").read_text())
    (path / "clients.json").write_text(json.dumps([client | {"model": "cnn"} for client in clients]))
    assert "model of b (cnn)30.00 %40.00 %" in Page(write_report(path)).text


def test_bytes_sent_once_and_each_clients_model_are_shown(tmp_path: Path) -> None:
    path = folder(tmp_path / "run", [0.5, 0.9])
    end = json.loads((path / "summary.json").read_text())
    (path / "summary.json").write_text(json.dumps(end | {"bytes_once": {"seed_set": 1_500_000}}))
    mapping = "[model.clients]\nb = 'cnn'\n'a.b' = 'mlp'\nc = 'cnn'"
    text = (path / "config.toml").read_text().replace('[model]\nname = "mlp"', mapping)
    (path / "config.toml").write_text(text)
    page = Page(write_report(path)).text
    assert "1.5 MBsent once: seed set" in page
    assert "fedavg on digits (label) with cnn, mlp" in page
    assert "{b = cnn, a.b = mlp, c = cnn}" in page


def test_each_probe_chart_has_a_caption(tmp_path: Path) -> None:
    """A single line is named by its axis, and a measure that was not taken is not drawn."""
    path = folder(tmp_path / "run", [0.5, 0.7, 0.9])
    plain = Page(write_report(path))
    assert "Probes" not in plain.text
    measures = {f"probe.{name}": 0.5 for chart in PROBE_CHARTS for name in chart.lines if name != "travelled"}
    first = {**measures, "probe.direction": None}
    records = [round_(1, 0.5) | first, round_(2, 0.7), round_(3, 0.9) | measures]
    (path / "rounds.jsonl").write_text("".join(json.dumps(r) + "\n" for r in records))
    page = Page(write_report(path))
    assert page.tags.count("svg") == plain.tags.count("svg") + len(PROBE_CHARTS)
    assert all(chart.caption in page.text for chart in PROBE_CHARTS)
    assert "distance of a client from the round's start" in page.text
    assert "of the server from the run's start" not in page.text
    assert "gain of averaging" in page.text


def test_charts_take_their_colours_from_the_page(tmp_path: Path) -> None:
    text = write_report(folder(tmp_path / "run", [0.5, 0.9])).read_text()
    assert "var(--series-1)" in text
    assert not [colour for colour in SERIES_COLOURS if colour in text]
    assert "prefers-color-scheme: dark" in text


def test_the_same_folder_gives_the_same_page(tmp_path: Path) -> None:
    path = folder(tmp_path / "run", [0.5, 0.9])
    assert write_report(path).read_bytes() == write_report(path).read_bytes()


@pytest.mark.parametrize("accuracies", [[0.5], [None, None], []])
def test_an_unfinished_run_has_a_report(tmp_path: Path, accuracies: list[float | None]) -> None:
    path = folder(tmp_path / "run", accuracies, over=False)
    with (path / "rounds.jsonl").open("a") as file:
        file.write('{"round": ')
    assert f"Not finished: {len(accuracies)} of" in Page(write_report(path)).text


def test_a_folder_without_a_run_is_a_mistake(tmp_path: Path) -> None:
    with pytest.raises(Mistake, match=r"is not a run folder, since it has no config\.toml"):
        write_report(tmp_path)
    path = folder(tmp_path / "run", [0.5])
    (path / "summary.json").write_text("{")
    with pytest.raises(Mistake, match=r"summary\.json: is damaged"):
        write_report(path)


def test_a_comparison_names_only_settings_that_differ(tmp_path: Path) -> None:
    """Target 0.6: run a crosses it half-way between rounds 1 (0.5) and 2 (0.7), run b in its first round."""
    a = folder(tmp_path / "a", [0.5, 0.7], lr=0.1)
    b = folder(tmp_path / "b", [0.6, 0.65, 0.9], lr=0.2, over=False)
    found = compare_runs([a, b], target=0.6)
    assert found.head[:3] == ["run", "rounds", "algorithm.lr"]
    by_name = dict(zip(found.head, zip(*found.rows, strict=True), strict=True))
    assert by_name["algorithm.lr"] == ("0.1", "0.2")
    assert by_name["rounds to target"] == ("1.5", "1.0")
    assert by_name["state"] == ("finished", "not finished")
    assert by_name["sent"] == ("6.0 MB", "9.0 MB")
    assert "data.source" not in by_name
    own = dict(zip(found.head, zip(*compare_runs([a, b]).rows, strict=True), strict=True))
    assert own["rounds to target"] == ("-", "2.6")  # each run's own target, 0.8: 2 + 0.15 / 0.25


def test_bytes_sent_once_count_in_a_comparison(tmp_path: Path) -> None:
    """Two rounds of 3 MB each, after 1.5 MB."""
    plain, more = (folder(tmp_path / name, [0.5, 0.9]) for name in ("plain", "more"))
    end = json.loads((more / "summary.json").read_text())
    (more / "summary.json").write_text(json.dumps(end | {"bytes_once": {"seed_set": 1e6, "standardize": 5e5}}))
    found = compare_runs([plain, more])
    assert [row[found.head.index("sent")] for row in found.rows] == ["6.0 MB", "7.5 MB"]
    assert [run.bytes_so_far() for run in found.runs] == [[3e6, 6e6], [4.5e6, 7.5e6]]


def test_a_comparison_page_overlays_the_curves(tmp_path: Path) -> None:
    folders = [folder(tmp_path / f"run{k}", [0.5, 0.6 + k / 100]) for k in range(10)]
    page = Page(write_comparison(compare_runs(folders), tmp_path / "compare.html"))
    assert page.tags.count("figure") == 6
    assert all(f"run{k}" in page.text for k in range(10))
    assert page.links == ["data:,"]


def test_runs_with_the_same_name_are_named_by_their_paths(tmp_path: Path) -> None:
    for side in ("left", "right"):
        (tmp_path / side).mkdir()
    found = compare_runs([folder(tmp_path / side / "run", [0.5]) for side in ("left", "right")])
    assert found.names == [str(tmp_path / "left" / "run"), str(tmp_path / "right" / "run")]


def test_one_run_cannot_be_compared(tmp_path: Path) -> None:
    with pytest.raises(Mistake, match="needs two run folders or more, and got only"):
        compare_runs([folder(tmp_path / "a", [0.5])])


def test_long_curves_lose_points_but_keep_their_ends_and_extremes() -> None:
    n = 10 * MAX_POINTS + 7
    y = [0.5 + k / n for k in range(n)]
    y[4321], y[4322] = 90.0, -7.0
    line = thin(Curve("a", range(n), y, [(v - 0.1, v + 0.1) for v in y]), MAX_POINTS)
    assert len(line.x) <= MAX_POINTS
    assert (line.x[0], line.x[-1]) == (0, n - 1)
    assert {4321, 4322} <= set(line.x)
    assert line.y == [y[int(x)] for x in line.x]
    assert line.band == [(v - 0.1, v + 0.1) for v in line.y if v is not None]
    assert len(thin(Curve("a", range(n), y), MAX_ZOOM_POINTS, lines=40).x) <= 400


def test_values_that_are_not_finite_are_left_out() -> None:
    picture = line_chart([Curve("a", [1, 2, 3], [0.5, float("inf"), float("nan")])], "round", "loss") or ""
    assert plots(picture)[0]["lines"][0]["y"] == [0.5]


def y_labels(values: list[float | None]) -> list[str]:
    """Return the labels of the y axis on a chart of these values."""
    picture = line_chart([Curve("a", range(len(values)), values)], "round", "loss")
    assert picture is not None
    written = re.findall(r"<text[^>]*>([^<]*)</text>", picture)
    return written[written.index("round") + 1 : written.index("loss")]


@pytest.mark.parametrize(
    ("values", "y"),
    [
        ([2.0, 95.0, None, 1.0, 0.9], ["1", "3", "10", "30"]),
        ([2.0, 3e9, 1.0], ["1", "100", "10000", "1e+06", "1e+08"]),
        ([1e-6, 0.5, 2e-6], ["1e-06", "1e-05", "0.0001", "0.001", "0.01", "0.1"]),
    ],
)
def test_one_round_that_went_wrong_leaves_the_others_readable(values: list[float | None], y: list[str]) -> None:
    assert y_labels(values) == y


def test_values_of_similar_size_or_with_zero_have_a_linear_scale() -> None:
    assert y_labels([1.0, 29.0, 1.0])[:3] == ["0", "5", "10"]
    assert y_labels([0.0, 95.0, 1.0])[:3] == ["0", "20", "40"]


def test_the_axis_of_rounds_has_whole_numbers() -> None:
    """A single round is not drawn between 0.96 and 1.04."""
    picture = line_chart([Curve("a", [7], [0.5])], "round", "accuracy")
    assert picture is not None
    written = re.findall(r"<text[^>]*>([^<]*)</text>", picture)
    assert written[: written.index("round")] == ["7"]


def test_the_axis_of_a_line_between_models_has_ticks_between_its_ends(tmp_path: Path) -> None:
    line = Line([0.0, 0.5, 1.0], {"loss": [1.0, 3.0, 2.0]}, 4.0)
    text = write_line_page(line, ("a", "b"), [("data", "digits")], tmp_path / "line.html").read_text()
    assert re.findall(r"<text[^>]*>(0\.\d+)</text>", text) == ["0.0", "0.2", "0.4", "0.6", "0.8"]
    assert "the loss rises at most 1.5 above the straight chord" in text


def test_the_chart_of_a_plane_labels_its_axes_and_lines(tmp_path: Path) -> None:
    """Levels are round numbers, and each chart names the models below itself."""
    losses = [[0.21, 0.33, 0.48], [0.37, 0.52, 0.66], [0.55, 0.71, 0.83]]
    plane = Plane([0.0, 1.0, 2.0], [0.0, 1.0, 2.0], {"loss": losses}, ((0.0, 0.0), (2.0, 0.0), (1.0, 2.0)))
    path = write_plane_page(plane, ("first", "second", "third"), [("data", "digits")], tmp_path / "plane.html")
    text = path.read_text()
    levels = re.findall(r"<text[^>]*rotate[^>]*>(0\.\d+)</text>", text)
    assert levels
    assert all(len(level) <= 4 for level in levels)
    for said in ("distance from the first model towards the second", "distance at right angles to that", "third"):
        assert f">{said}</text>" in text


def test_no_data_give_no_chart() -> None:
    assert line_chart([Curve("a", [1, 2], [None, None])], "round", "accuracy") is None
    assert clients_chart([]) is None
    assert clients_chart([{"id": "0", "examples": None, "label_counts": None}]) is None


@pytest.mark.parametrize(
    "clients",
    [
        [client(f"hospital {k}", 10 + k, {"0": 10, "1": k or 1}) for k in range(12)],
        [client(str(k), 10 + k, None) for k in range(MAX_CLIENTS)],
        [client(str(k), 300, {str(c): 3 for c in range(100)}) for k in range(MAX_CLIENTS)],
        [client(str(k), 10 + k, {str(k % 7): 10 + k}) for k in range(MAX_CLIENTS + 1)],
        [client("only", 1, {"0": 1})],
    ],
    ids=["names", "no labels", "many labels", "many clients", "one client"],
)
def test_any_number_of_clients_is_drawn(clients: list[dict[str, Any]]) -> None:
    picture = clients_chart(clients)
    assert picture is not None
    assert picture.startswith("<svg")
    assert len(picture) < 300_000


def test_long_names_are_distinct_and_take_no_room_from_the_bars() -> None:
    counts = {"0": 5, "1": 3}
    long = clients_chart([client(f"the hospital of number {k:02}", 8, counts) for k in range(15)]) or ""
    short = clients_chart([client(f"{k:02}", 8, counts) for k in range(15)]) or ""
    assert all(f">the hos…ber {k:02}</text>" in long for k in range(15))
    heights = [[float(h) for h in re.findall(r'<rect [^>]*height="([^"]+)"', picture)] for picture in (long, short)]
    assert heights[0] == pytest.approx(heights[1], rel=0.2)  # of the parts for labels and for bars


def test_clients_of_one_size_have_whole_numbers_on_the_axis() -> None:
    picture = clients_chart([client(str(k), 200, None) for k in range(MAX_CLIENTS + 1)]) or ""
    assert ">200</text>" in picture
    assert not re.search(r">\d+\.\d+</text>", picture)


@pytest.mark.parametrize(("number", "drawn"), [(2, 2), (20, 8)])
def test_each_layer_has_a_line(tmp_path: Path, number: int, drawn: int) -> None:
    """Of many layers, as many as there are colours are drawn, with the first and the last; without measures, none."""
    path = folder(tmp_path / "run", [0.5, 0.6])
    assert layer_charts(read_run(path)) is None
    records = [json.loads(line) for line in (path / "rounds.jsonl").read_text().splitlines()]
    for record in records:
        record |= {f"{measure}.layer{k}": k + 0.5 for k in range(number) for measure in ("shift", "drift")}
    (path / "rounds.jsonl").write_text("".join(json.dumps(r) + "\n" for r in records))
    page = Page(write_report(path))
    assert page.text.count("shift, in standard deviations") == page.text.count("drift of (M, V)") == 1
    assert "layer0" in page.text
    assert f"layer{number - 1}" in page.text
    assert len(set(re.findall(r"layer\d+", page.text))) == drawn
    assert ("8 of 20 layers" in page.text) == (number == 20)


@pytest.mark.parametrize(
    ("xs", "wanted"),
    [([0, 5e7, 2.5e8], {"0 B", "50 MB", "250 MB"}), ([11.36e6, 11.54e6, 11.78e6], {"11.36 MB", "11.44 MB"})],
)
def test_each_tick_of_an_axis_of_bytes_has_its_own_label(xs: list[float], wanted: set[str]) -> None:
    drawn = line_chart([Curve("a", xs, [0.1, 0.2, 0.3])], "sent so far", "accuracy", x_bytes=True)
    assert drawn is not None
    ticks = re.findall(r">([\d.]+ k?M?B)<", drawn)
    assert len(set(ticks)) == len(ticks) >= 3
    assert wanted <= set(ticks)


def test_between_silos_the_page_says_why_it_shows_no_predictions(tmp_path: Path) -> None:
    run = folder(tmp_path / "run", [0.5, 0.6])
    config = (run / "config.toml").read_text(encoding="utf-8")
    (run / "config.toml").write_text(config.replace("[data]", '[task]\nkind = "binary"\n[data]'), encoding="utf-8")
    assert "Predictions on test data" not in write_report(run).read_text("utf-8")
    (run / "silos.json").write_text(json.dumps({"clients": []}))
    assert "<p>Not shown: the test rows stay at the silos.</p>" in write_report(run).read_text("utf-8")


def test_the_page_of_a_run_between_silos_says_who_was_late_and_what_left(tmp_path: Path) -> None:
    """North answers all four rounds; south is silent in rounds 2 and 3, and late west's update did not count in 4."""
    run = folder(tmp_path / "run", [0.5, 0.6, 0.7, 0.8])
    hosts = [{"client": "n", "silo": "north"}, {"client": "s", "silo": "south"}, {"client": "w", "silo": "west"}]
    (run / "silos.json").write_text(json.dumps({"clients": hosts}))
    records = [round_(k, 0.5) for k in range(1, 5)]
    answered = {"north": {1, 2, 3, 4}, "south": {1, 4}, "west": {1, 2, 3}}
    for record in records:
        k = record["round"]
        record["silos"] = {
            silo: {"bytes_up": 1000 if k in own else 0, "bytes_down": 3000, "seconds": 0.5 * k if k in own else None}
            for silo, own in answered.items()
        }
    for k, name, why in ((2, "s", "left out"), (3, "s", "left out"), (4, "w", "gave no answer within 9 seconds")):
        records[k - 1]["dropped"] = [{"client": name, "why": why}]
    (run / "rounds.jsonl").write_text("".join(json.dumps(r) + "\n" for r in records))
    rows = re.findall(r"<tr>(.*?)</tr>", write_report(run).read_text("utf-8").split("<h2>Silos</h2>")[1])
    cells = [re.findall(r"<t[dh]>(.*?)</t[dh]>", row) for row in rows]
    assert cells[1:4] == [
        ["north", "1", "round 4, so it is in", "none", "4.0 kB", "12.0 kB", "1.2 s; 2 s at most"],
        ["south", "1", "round 4, so it is in", "2: 2 to 3", "2.0 kB", "12.0 kB", "1.2 s; 2 s at most"],
        ["west", "1", "round 3", "1: 4", "3.0 kB", "12.0 kB", "1 s; 1.5 s at most"],
    ]
    assert cells[5:7] == [
        ["south", "left out", "2", "2 to 3"],
        ["west", "gave no answer within 9 seconds", "1", "4"],
    ]


def test_every_name_has_its_citations() -> None:
    """Where nothing is to be cited, the table says so."""
    registries = {
        "algorithm.name": ALGORITHMS,
        "data.source": SOURCES,
        "data.partition": PARTITIONS,
        "aggregation.name": AGGREGATORS,
        "aggregation.pre": PRE,
    }
    for key, registry in registries.items():
        assert set(CITED[key]) == set(registry), key
    named = {name for values in CITED.values() for names in values.values() for name in names}
    assert named == set(read_references())


def test_a_report_gives_the_command_and_the_citations(tmp_path: Path) -> None:
    text = Page(write_report(folder(tmp_path / "run", [0.5, 0.9]))).text
    assert "coterie run config.toml --out ../run-again" in text
    for name in ("mcmahan2017communication", "alpaydin1998optical", "li2022federated"):
        assert text.count(f"{{{name},") == 1
    assert "guerraoui2024overcoming" not in text


def test_privacy_rules_and_several_models_are_cited() -> None:
    config = {"privacy.unit": "client", "privacy.secure_sum": True, "aggregation.pre": ["nnm"]}
    config |= {"model.names": ["resnet20"]}
    found = re.findall(r"@\w+\{(\w+),", citations(config))
    wanted = ["allouah2023fixing", "mcmahan2018learning", "koskela2020computing", "bonawitz2017practical"]
    assert found == [*wanted, "bell2020secure", "he2016deep"]


def test_pages_of_probes_in_the_folder_are_linked(tmp_path: Path) -> None:
    path = folder(tmp_path / "run", [0.5, 0.9])
    (path / "plane.html").write_text("")
    assert Page(write_report(path)).links == ["data:,", "plane.html"]


@pytest.mark.long
def test_the_report_of_a_long_run_is_small(tmp_path: Path) -> None:
    """Ten thousand rounds of a hundred clients, with every probe, take under 6 MB."""
    script = runpy.run_path(str(Path(__file__).parents[2] / "benchmarks/report/measure.py"))
    page = write_report(script["write_folder"](tmp_path / "run", 10_000, 100))
    assert page.stat().st_size < 6e6
    assert len(plots(page.read_text(encoding="utf-8"))) == 14
