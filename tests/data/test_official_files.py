"""Where official files lie, and what happens if one is missing."""

from __future__ import annotations

import hashlib
import threading
from functools import partial
from http.server import HTTPServer, SimpleHTTPRequestHandler
from pathlib import Path

import pytest

from coterie.core.errors import Mistake
from coterie.data.official_files import data_home, find_or_fetch


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, format, *args):
        pass


@pytest.fixture
def server(tmp_path):
    """A web server on this machine for the files in `tmp_path / "offered"`."""
    (tmp_path / "offered").mkdir()
    with HTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(tmp_path / "offered"))) as http:
        threading.Thread(target=http.serve_forever, args=(0.01,), daemon=True).start()
        yield f"http://127.0.0.1:{http.server_port}/"
        http.shutdown()


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("COTERIE_DATA", str(tmp_path / "home"))
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path / "home"


def test_home_is_coterie_data_or_the_cache_folder(monkeypatch, tmp_path):
    monkeypatch.setenv("COTERIE_DATA", str(tmp_path))
    assert data_home() == tmp_path
    monkeypatch.delenv("COTERIE_DATA")
    assert data_home().parts[-1] in ("coterie", "Cache")


def test_a_missing_file_is_fetched_once_and_checked(home, server, tmp_path):
    content = b"examples" * 5000
    (tmp_path / "offered" / "a.bin").write_bytes(content)
    checksum = "sha256:" + hashlib.sha256(content).hexdigest()
    path = find_or_fetch("toy", "a.bin", server + "a.bin", checksum)
    assert path == home / "toy" / "a.bin"
    assert path.read_bytes() == content
    (tmp_path / "offered" / "a.bin").unlink()
    assert find_or_fetch("toy", "a.bin", server + "a.bin", checksum) == path


def test_content_other_than_the_official_is_refused_and_removed(home, server, tmp_path):
    (tmp_path / "offered" / "a.bin").write_bytes(b"something else")
    with pytest.raises(Mistake, match=r"a.bin: is missing and could not be fetched"):
        find_or_fetch("toy", "a.bin", server + "a.bin", "sha256:" + "0" * 64)
    assert list(home.rglob("*")) == []


def test_a_file_that_exists_is_not_checked(home):
    (home / "toy").mkdir(parents=True)
    (home / "toy" / "a.bin").write_bytes(b"mine")
    assert find_or_fetch("toy", "a.bin", "http://127.0.0.1:9/a.bin", "md5:0").read_bytes() == b"mine"


@pytest.mark.parametrize(("port_and_name", "why"), [("9/a.bin", "no connection"), (None, "the server answered 404")])
def test_a_file_that_cannot_be_fetched_is_named_with_its_place(home, server, port_and_name, why):
    url = server + "a.bin" if port_and_name is None else f"http://127.0.0.1:{port_and_name}"
    with pytest.raises(Mistake, match=why) as raised:
        find_or_fetch("toy", "a.bin", url, "md5:0")
    assert str(Path(home, "toy", "a.bin")) in str(raised.value)
    assert "\n" not in str(raised.value)
    assert list(home.rglob("*")) == []  # no empty folder, which would look like a source's
