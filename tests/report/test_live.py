"""The live page: how a run stands, and what its server answers and refuses."""

import http.client
import json
import re
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from coterie.core.errors import Mistake
from coterie.report.live_run import LiveRun, live_runs
from coterie.report.live_server import LiveServer
from coterie.report.live_state import LiveState, is_watchable, resume_command, run_state
from coterie.sweep.axes import parse_axis
from coterie.sweep.live_sweep import LiveSweep
from coterie.sweep.sweep_toml import write_grid
from coterie.track.folder_lock import hold_lock
from tests.experiment.conftest import Start, start  # noqa: F401 - a fixture


class Counter:
    """A source whose page says how often it was made."""

    name, pause_seconds = "a <run>", 1.0

    def __init__(self) -> None:
        self.made, self.stamp = 0, "1"

    def state(self) -> LiveState:
        return LiveState("running", "it goes on", "", self.stamp)

    def page(self) -> str:
        self.made += 1
        return f"<p>{self.made}</p>"


@pytest.fixture
def source() -> Counter:
    return Counter()


@pytest.fixture
def server(source: Counter) -> Iterator[LiveServer]:
    with LiveServer(lambda: {"": source, "runs/lr=0.1": source}) as live:
        thread = threading.Thread(target=live.serve_forever, args=(0.01,))
        thread.start()
        yield live
        live.shutdown()
        thread.join()


def ask(server: LiveServer, path: str, method: str = "GET", host: str | None = None) -> tuple[int, str]:
    """The status and the body of an answer."""
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=10)
    connection.request(method, path, headers={} if host is None else {"Host": host})
    answer = connection.getresponse()
    body = answer.read().decode()
    assert answer.status != 200 or answer.headers["Content-Security-Policy"].startswith("default-src 'none'; ")
    connection.close()
    return answer.status, body


def test_the_server_listens_on_the_loopback_address_alone(server: LiveServer) -> None:
    assert server.server_address[0] == "127.0.0.1"
    assert server.address == f"http://127.0.0.1:{server.port}/"


def test_a_page_a_state_and_a_report_made_once_a_state(server: LiveServer, source: Counter) -> None:
    status, page = ask(server, "/")
    assert status == 200
    assert "<title>a &lt;run&gt;</title>" in page
    assert json.loads(ask(server, "/state")[1]) == {
        **{"kind": "running", "sentence": "it goes on", "command": "", "stamp": "1"},
        "pause": 1.0,
    }
    assert [ask(server, "/page")[1] for _ in range(2)] == ["<p>1</p>", "<p>1</p>"]
    source.stamp = "2"
    assert ask(server, "/page") == (200, "<p>2</p>")
    assert ask(server, "/runs/lr=0.1/report.html")[0] == ask(server, "/runs/lr%3D0.1/")[0] == 200


def test_a_page_loads_nothing_from_elsewhere(server: LiveServer) -> None:
    page = ask(server, "/")[1]
    names = set(re.findall(r"https?://[^\s\"']*", page))  # of SVG's elements, and in the licence line of uPlot
    assert names == {"http://www.w3.org/2000/svg", "https://github.com/leeoniya/uPlot"}
    assert "src=" not in page


@pytest.mark.parametrize(
    "path", ["/x", "/runs/", "/runs/lr=0.2/", "/../config.toml", "/%2e%2e/%2e%2e/etc/passwd", "/runs/lr=0.1/../../page"]
)
def test_only_pages_that_are_known_are_there(server: LiveServer, path: str) -> None:
    assert ask(server, path)[0] == 404


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE", "OPTIONS"])
def test_nothing_can_be_written(server: LiveServer, method: str) -> None:
    assert ask(server, "/", method) == (405, "this page can only be read\n")


def test_a_head_has_no_body(server: LiveServer) -> None:
    assert ask(server, "/page", "HEAD") == (200, "")


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("127.0.0.1", 200),
        ("localhost:8000", 200),  # the other end of an ssh tunnel
        ("LOCALHOST", 200),
        ("[::1]:8000", 200),
        ("[::1]", 200),
        ("evil.example", 403),  # whose name leads to this machine
        ("evil.example:8000", 403),
        ("127.0.0.1.evil.example", 403),
        ("127.0.0.1@evil.example:80", 403),
        ("localhost:8000:evil", 403),
        ("", 403),
    ],
)
def test_a_page_under_the_name_of_a_stranger_is_refused(server: LiveServer, host: str, status: int) -> None:
    assert ask(server, "/state", host=host)[0] == status


def test_a_port_that_is_taken_is_a_mistake(server: LiveServer) -> None:
    with pytest.raises(Mistake, match=f"--port {server.port}: cannot be used .*; leave it out for a free one"):
        LiveServer(dict, server.port)
    with pytest.raises(Mistake, match="--port 70000: cannot be used"):
        LiveServer(dict, 70_000)


def test_a_folder_says_how_its_run_stands(tmp_path: Path) -> None:
    assert not is_watchable(tmp_path)
    with hold_lock(tmp_path):
        assert is_watchable(tmp_path)
        assert run_state(tmp_path)[:2] == ("running", "This run goes on.")
        (tmp_path / "config.toml").write_text("[model]\n[algorithm]\n")
        before = run_state(tmp_path).stamp
        (tmp_path / "rounds.jsonl").write_text('{"round": 1}\n{"round": 2}\n')
        assert run_state(tmp_path)[:2] == ("running", "This run goes on: 2 rounds done.")
        assert run_state(tmp_path).stamp != before
    state = run_state(tmp_path)
    assert state.kind == "stopped"
    assert state.sentence.startswith("This run was stopped or killed after 2 rounds")
    assert state.command == f"coterie run {tmp_path}/config.toml --out {tmp_path} --resume"
    (tmp_path / "summary.json").write_text('{"rounds": 2}')
    assert run_state(tmp_path)[:3] == ("finished", "This run is finished.", "")
    (tmp_path / "summary.json").write_text('{"failure": "no update counted"}')
    assert run_state(tmp_path)[:2] == ("failed", "This run is over, and trained nothing of use: no update counted.")


def test_a_command_continues_each_kind_of_run(tmp_path: Path) -> None:
    (tmp_path / "config.toml").write_text('[model]\n[pretrain]\nmethod = "fps"\n')
    assert resume_command(tmp_path) == f"coterie pretrain {tmp_path}/config.toml --out {tmp_path} --resume"
    (tmp_path / "stages").mkdir()
    assert resume_command(tmp_path) == f"coterie run FILE --out {tmp_path} --resume"
    (tmp_path / "silos.json").touch()
    assert resume_command(tmp_path) == f"coterie deploy run FILE --out {tmp_path} --resume"


def test_a_chain_shows_its_stages_before_the_last_one_begins(tmp_path: Path) -> None:
    stage = tmp_path / "stages" / "1-fractals"
    stage.mkdir(parents=True)
    (stage / "config.toml").touch()
    (stage / "intervals.jsonl").write_text("{}\n")
    with hold_lock(stage):
        assert run_state(tmp_path).sentence == "This chain goes on: stage 1-fractals, 1 interval."
    assert run_state(tmp_path).kind == "stopped"
    assert sorted(live_runs(tmp_path)) == ["", "stages/1-fractals"]
    assert 'href="stages/1-fractals/"' in LiveRun(tmp_path).page()


def test_a_damaged_folder_is_told_on_the_page(tmp_path: Path) -> None:
    (tmp_path / "config.toml").write_text("rounds =")
    assert "config.toml: is damaged" in LiveRun(tmp_path).page()


def test_a_run_and_a_sweep_in_progress_have_pages(start: Start, tmp_path: Path) -> None:  # noqa: F811
    """One run of the sweep is over, and the other one has done two rounds."""
    over = start("rounds=2").folder
    assert "Finished after 2 of 2 rounds" in LiveRun(over).page()
    folder = tmp_path / "sweep"
    for name in ("lr=0.1", "lr=0.2"):
        shutil.copytree(over, folder / "runs" / name)
    for name in ("summary.json", "checksums.json", "report.html"):
        (folder / "runs" / "lr=0.2" / name).unlink()
    write_grid(folder, tmp_path / "digits.toml", [parse_axis("algorithm.lr=0.1,0.2,0.3")])
    live = LiveSweep(folder)
    assert sorted(live.sources()) == ["", "runs/lr=0.1", "runs/lr=0.2"]
    with hold_lock(folder), hold_lock(folder / "runs" / "lr=0.2"):
        assert live.state()[:2] == ("running", "This sweep goes on: 1 of 3 runs are over, 1 going on.")
        page = live.page()
        assert "1 of 3 finished" in page
        assert 'href="runs/lr=0.1/report.html"' in page
    state = live.state()
    assert state.kind == "stopped"
    assert state.command == f"coterie sweep {tmp_path}/digits.toml --out {folder} --resume"
    (folder / "sweep.csv").write_text("run,state\nlr=0.1,finished\nlr=0.2,failed\nlr=0.3,finished\n")
    (folder / "report.html").write_text("the page that it wrote")
    assert live.state()[:2] == ("finished", "This sweep is finished: 1 of 3 runs are over.")
    assert live.page() == "the page that it wrote"
