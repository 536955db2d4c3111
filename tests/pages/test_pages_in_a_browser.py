"""The pages of real runs in a browser: no request, no error, no scrolling sideways, readable for all, and alive.

`make test-pages` runs these. axe-core (npm) checks accessibility; without it or without Chromium they are skipped.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from coterie.report import compare_runs, write_comparison, write_report
from coterie.report.live_run import live_runs
from coterie.report.live_server import LiveServer
from tests.pages.browser import Tab, find_browser, open_browser
from tests.report.test_pages import client, folder

ROOT = Path(__file__).parent.parent.parent
AXE = Path(os.environ.get("COTERIE_AXE", ROOT / ".venv/npm/node_modules/axe-core/axe.min.js"))

pytestmark = [
    pytest.mark.pages,
    pytest.mark.pictures,
    pytest.mark.skipif(find_browser() is None, reason="there is no Chromium"),
]

DIGITS = ["experiments/digits.toml", "rounds=6", "data.num_clients=8"]
RUNS = {
    "fedavg": ["run", *DIGITS, "evaluate.target_accuracy=0.9"],
    "fbn": [
        *("run", "experiments/digits.toml", "rounds=3", "algorithm.name=fbn", "model.name=resnet20", "model.width=4"),
        *("data.num_clients=5", "probe.names=['drift', 'gain']"),
    ],
    "fedh2l": [
        *("run", "experiments/digits.toml", "rounds=3", "algorithm.name=fedh2l", "data.num_clients=5"),
        *("data.partition=dirichlet", "data.alpha=1", "algorithm.seed_examples_per_client=10", "cohort.fraction=1"),
        *("evaluate.clients=true", "model.name=mlp"),
    ],
    "pretrain": ["pretrain", "experiments/fps-5min.toml", "pretrain.steps=12", "pretrain.interval=4"],
    "sweep": ["sweep", *DIGITS[:2], "algorithm.lr=0.1,0.2", "rng_seed=0,1"],
}
SCREENS: dict[str, dict[str, Any]] = {"light": {}, "dark": {"dark": True}, "phone": {"width": 390, "height": 844}}


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "coterie", *arguments]


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The page of each kind of run, of a comparison, and of a run with a thousand clients and a hundred classes."""
    place = tmp_path_factory.mktemp("pages")
    for name, arguments in RUNS.items():
        out = ["--out", str(place / name)]
        subprocess.run(command(*arguments, *out), cwd=ROOT, check=True, capture_output=True)
    found = {name: place / name / "report.html" for name in RUNS}
    runs = sorted((place / "sweep/runs").iterdir())
    found["compare"] = write_comparison(compare_runs(runs), place / "compare.html")
    found["many"] = write_report(crowd(place / "many"))
    return found


def crowd(path: Path) -> Path:
    """Write the folder of a run with 1,000 clients and 100 classes."""
    run = folder(path, [0.1 + 0.008 * k for k in range(100)])
    clients = [client(str(k), 30, {str((k + j) % 100): 3 for j in range(10)}) for k in range(1000)]
    (run / "clients.json").write_text(json.dumps(clients))
    return run


@pytest.fixture(scope="module")
def tab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tab]:
    with open_browser(tmp_path_factory.mktemp("profile")) as tab:
        yield tab


@pytest.mark.parametrize("screen", SCREENS)
@pytest.mark.parametrize("name", [*RUNS, "compare", "many"])
def test_a_page_opens_from_disk_without_a_request_or_an_error(
    tab: Tab, pages: dict[str, Path], name: str, screen: str
) -> None:
    tab.set_screen(**SCREENS[screen])
    tab.open(pages[name].as_uri())
    assert tab.console == []
    assert [each for each in tab.requests if not each.startswith("data:")] == [pages[name].as_uri()]
    assert tab.run("document.documentElement.scrollWidth <= innerWidth"), "the page scrolls sideways"
    assert tab.run("document.querySelectorAll('figure.plot:not(.drawn)').length") == 0
    assert tab.run("document.querySelectorAll('figure.plot canvas').length") > 0


@pytest.mark.skipif(not AXE.is_file(), reason="there is no axe-core: npm install axe-core")
@pytest.mark.parametrize("screen", SCREENS)
@pytest.mark.parametrize("name", [*RUNS, "compare", "many"])
def test_a_page_passes_axe(tab: Tab, pages: dict[str, Path], name: str, screen: str) -> None:
    tab.set_screen(**SCREENS[screen])
    tab.open(pages[name].as_uri())
    assert list_violations(tab) == []


SITE = ("index", "tutorial", "concepts", "troubleshooting", "how-to/sweep", "api/coterie", "algorithms/fbn")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("material")
    place = tmp_path_factory.mktemp("site")
    build = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(place)]
    subprocess.run(build, cwd=ROOT, check=True, capture_output=True)
    return place


@pytest.mark.skipif(not AXE.is_file(), reason="there is no axe-core: npm install axe-core")
@pytest.mark.parametrize("name", SITE)
def test_a_page_of_the_site_stays_on_the_machine_follows_the_theme_and_passes_axe(
    tab: Tab, site: Path, name: str
) -> None:
    for screen, light in (("light", True), ("dark", False), ("phone", True)):
        tab.set_screen(**SCREENS[screen])
        tab.open((site / f"{name}.html").as_uri())
        time.sleep(0.5)  # the page's script comes after the theme's
        assert tab.console == []
        assert [each for each in tab.requests if not each.startswith(("file:", "data:", "blob:"))] == []
        assert tab.run("document.documentElement.scrollWidth <= innerWidth"), "the page scrolls sideways"
        assert tab.run("document.body.dataset.mdColorScheme") == ("default" if light else "slate")
        assert list_violations(tab) == []


def list_violations(tab: Tab) -> list[str]:
    tab.run(AXE.read_text(encoding="utf-8") + "\n;0")
    found: list[str] = tab.run("axe.run().then(all => all.violations.map(v => v.id + ': ' + v.nodes[0].html))")
    return found


def test_a_curve_zooms_and_names_its_values(tab: Tab, pages: dict[str, Path]) -> None:
    """A drag over the middle third shows less of x; a double click shows all again."""
    tab.set_screen()
    tab.open(pages["fedavg"].as_uri())
    box = tab.run("document.querySelector('.u-over').getBoundingClientRect().toJSON()")
    x, y, width, height = (box[name] for name in ("x", "y", "width", "height"))
    middle = y + height / 2
    tab.move_mouse(x + width / 2, middle)
    hover = tab.run("document.querySelector('.hover').innerText")
    assert hover.startswith("round ")
    assert "test data" in hover
    before = ends(tab)
    tab.move_mouse(x + width / 3, middle, "mousePressed")
    tab.move_mouse(x + 2 * width / 3, middle)
    tab.move_mouse(x + 2 * width / 3, middle, "mouseReleased")
    low, high = ends(tab)
    assert before[0] < low < high < before[1]
    tab.run("document.querySelector('figure.plot [title=\"Show all\"]').click()")
    assert ends(tab) == before


def ends(tab: Tab) -> list[float]:
    """Return the ends of x on the first chart."""
    found: list[float] = tab.run("coterie.ends(document.querySelector('figure.plot'))")
    return found


def test_keys_do_what_the_mouse_does(tab: Tab, pages: dict[str, Path]) -> None:
    tab.set_screen()
    tab.open(pages["fedavg"].as_uri())
    before = ends(tab)
    for key, text in (("ArrowRight", ""), ("ArrowRight", ""), ("+", "+")):
        tab.run("document.querySelector('.area').focus()")
        tab.send("Input.dispatchKeyEvent", type="keyDown", key=key, text=text)
        tab.send("Input.dispatchKeyEvent", type="keyUp", key=key)
    assert tab.run("document.querySelector('.hover').innerText").startswith("round 2")
    assert before[1] - before[0] > 1.5 * (ends(tab)[1] - ends(tab)[0])


def test_a_line_is_hidden_and_shown_by_its_name(tab: Tab, pages: dict[str, Path]) -> None:
    """On a comparison one name hides its line in all three charts of its section."""
    tab.set_screen()
    tab.open(pages["compare"].as_uri())
    pressed = "[...document.querySelectorAll('.keys.shared button')].map(b => b.getAttribute('aria-pressed'))"
    names = tab.run(pressed)
    assert set(names) == {"true"}
    tab.run("document.querySelector('.keys.shared button').click()")
    assert tab.run(pressed)[0] == "false"
    assert tab.run("coterie.hidden(document)") == 3


def test_the_theme_is_remembered(tab: Tab, pages: dict[str, Path]) -> None:
    tab.set_screen()
    tab.open(pages["fedavg"].as_uri())
    ground = "getComputedStyle(document.body).backgroundColor"
    assert tab.run(ground) == "rgb(255, 255, 255)"
    tab.run("document.getElementById('theme').click(), document.getElementById('theme').click()")
    assert tab.run(ground) == "rgb(20, 23, 28)"
    tab.open(pages["fedavg"].as_uri())
    assert tab.run(ground) == "rgb(20, 23, 28)"
    tab.set_screen(paper=True)
    assert tab.run(ground) == "rgb(255, 255, 255)"
    tab.set_screen()
    tab.run("localStorage.clear()")


def test_paper_and_browsers_without_scripts_show_pictures(tab: Tab, pages: dict[str, Path]) -> None:
    shown = "[...document.querySelectorAll('.plot > .picture')].every(each => each.getBoundingClientRect().width > 100)"
    tab.set_screen(paper=True)
    tab.open(pages["fedavg"].as_uri())
    assert tab.run(shown)
    tab.set_screen()
    tab.send("Emulation.setScriptExecutionDisabled", value=True)
    try:
        tab.open(pages["fedavg"].as_uri())
        assert tab.run(shown)
        assert tab.run("document.querySelectorAll('canvas').length") == 0
    finally:
        tab.send("Emulation.setScriptExecutionDisabled", value=False)


def test_the_live_page_advances_and_says_that_the_run_was_killed(tab: Tab, tmp_path: Path) -> None:
    run = tmp_path / "run"
    arguments = command("run", "experiments/digits.toml", "rounds=2000", "data.num_clients=8", "--out", str(run))
    process = subprocess.Popen(arguments, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        wait_until(lambda: (run / "rounds.jsonl").is_file())
        server = LiveServer(lambda: live_runs(run))
        threading.Thread(target=server.serve_forever, daemon=True).start()
        tab.set_screen()
        tab.open(server.address)
        wait_until(lambda: tab.run("document.querySelectorAll('#report canvas').length") > 0)
        first = ends(tab)[1]
        tab.run("document.querySelector('#report .keys button').click()")  # the reader hides a line
        wait_until(lambda: ends(tab)[1] > first + 3)
        assert tab.run("coterie.hidden(document)") == 1
        assert "goes on" in tab.run("document.getElementById('live').innerText")
        process.send_signal(signal.SIGKILL)
        process.wait()
        wait_until(lambda: "was stopped or killed" in tab.run("document.getElementById('live').innerText"))
        assert not [each for each in tab.requests if not each.startswith((server.address, "data:"))]
        assert tab.console == []
        if AXE.is_file():
            assert list_violations(tab) == []
        server.shutdown()
    finally:
        process.kill()
        process.wait()


def wait_until(is_so: Any, seconds: float = 60.0) -> None:
    end = time.monotonic() + seconds
    while not is_so():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.3)
