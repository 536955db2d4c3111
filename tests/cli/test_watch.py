"""`coterie watch` as a user types it: its address, its end by Ctrl-C, and folders that it refuses."""

import re
import signal
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest

from tests.cli.test_main import exit_status


def test_it_prints_its_address_and_ends_by_ctrl_c_with_status_0(tmp_path: Path) -> None:
    (tmp_path / "config.toml").write_text("[model]\n[algorithm]\n")
    command = [sys.executable, "-m", "coterie", "watch", str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        address = process.stdout.readline().rsplit(" ", 1)[-1].strip()
        port = re.fullmatch(r"http://127\.0\.0\.1:(\d+)/", address)
        assert port is not None
        assert f"ssh -N -L {port[1]}:127.0.0.1:{port[1]} " in process.stdout.readline()
        with urllib.request.urlopen(f"{address}state", timeout=30) as answer:
            assert b'"kind": "stopped"' in answer.read()
        process.stdout.readline()
        process.send_signal(signal.SIGINT)
        assert process.communicate(timeout=30) == ("", "")
    assert process.returncode == 0


def test_a_folder_without_a_run_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert exit_status("watch", str(tmp_path)) == 2
    assert (
        capsys.readouterr().err == f"{tmp_path}: holds neither a run nor a sweep; start one there, and then watch it\n"
    )
