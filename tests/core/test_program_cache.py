"""Compiled programs lie in a folder of the user's own, unless the user says otherwise."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from coterie.core.program_cache import VARIABLE, keep_compiled_programs

COMMAND = """
import contextlib, os, sys
sys.argv = ["coterie", "data", "list"]
from coterie.cli import main as command
command.app = lambda **options: None
with contextlib.suppress(SystemExit):
    command.main()
print(os.environ.get("TORCHINDUCTOR_CACHE_DIR"))
"""

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="Windows has a folder of each user for temporary files")


def test_it_is_below_the_users_cache_and_closed_to_others(tmp_path: Path) -> None:
    environment = {"HOME": str(tmp_path)}
    keep_compiled_programs(environment)
    folder = tmp_path / ".cache" / "coterie" / "programs"
    assert environment[VARIABLE] == str(folder)
    assert stat.S_IMODE(folder.stat().st_mode) & 0o077 == 0


def test_the_user_may_name_another(tmp_path: Path) -> None:
    environment = {"HOME": str(tmp_path), "XDG_CACHE_HOME": str(tmp_path / "caches")}
    keep_compiled_programs(environment)
    assert environment[VARIABLE] == str(tmp_path / "caches" / "coterie" / "programs")
    named = {"HOME": str(tmp_path), VARIABLE: "elsewhere"}
    keep_compiled_programs(named)
    assert named[VARIABLE] == "elsewhere"


def test_without_a_folder_to_write_to_nothing_is_changed(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    environment = {"HOME": str(tmp_path / "file")}
    keep_compiled_programs(environment)
    assert environment == {"HOME": str(tmp_path / "file")}
    homeless: dict[str, str] = {}
    keep_compiled_programs(homeless)
    assert homeless == {}


def test_the_command_sets_it(tmp_path: Path) -> None:
    clean = {name: value for name, value in os.environ.items() if name not in (VARIABLE, "XDG_CACHE_HOME")}
    ended = subprocess.run(
        [sys.executable, "-c", COMMAND], env=clean | {"HOME": str(tmp_path)}, capture_output=True, text=True, check=True
    )
    assert ended.stdout.strip() == str(tmp_path / ".cache" / "coterie" / "programs")
