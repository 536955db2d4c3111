"""The example of a participant without a server, alone in its mailbox."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from safetensors import safe_open
from safetensors.torch import load_file

from coterie.peers.roster import roster_line
from tests.examples.test_examples import FOLDER, example

keys = pytest.importorskip("coterie.peers.keys")


def written(path: Path, n: int) -> str:
    """Examples whose label is the place of their largest number."""
    x = np.random.default_rng(n).standard_normal((n, 3), dtype=np.float32)
    np.savez(path, x=x, y=x.argmax(1))
    return str(path)


def given(folder: Path) -> list[str]:
    """The command line of the only participant."""
    made = keys.make_key(folder / "north.key")
    (folder / "roster.toml").write_text(roster_line("north", made.public_key))
    return [
        "--id", "north", "--seed-set", written(folder / "seed.npz", 30), "--model", "logistic",
        "--mailbox", str(folder / "box"), "--out", str(folder / "north"),
        "--roster", str(folder / "roster.toml"), "--key", str(folder / "north.key"),
    ]  # fmt: skip


def test_a_participant_goes_on_where_it_stopped(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = [*given(tmp_path), "--data", written(tmp_path / "north.npz", 200)]
    main = example("peer").main
    main([*arguments, "--rounds", "2"])
    main([*arguments, "--rounds", "3"])
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(":")[0] for line in lines] == ["round 1", "round 2", "round 3"]
    assert "1 of 1 count" in lines[0]
    assert float(lines[-1].split("accuracy ")[1].rstrip("%")) > 60
    assert load_file(tmp_path / "north" / "model.safetensors")["1.weight"].shape == (3, 3)
    with safe_open(tmp_path / "north" / "model.safetensors", "pt") as written_last:
        assert written_last.metadata() == {"model": "logistic"}


def test_a_mistake_is_one_sentence_and_status_2(tmp_path: Path) -> None:
    arguments = [*given(tmp_path), "--data", "absent.npz"]
    ended = subprocess.run(
        [sys.executable, FOLDER / "peer.py", *arguments], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert (ended.returncode, ended.stdout) == (2, "")
    assert ended.stderr == 'path = "absent.npz": there is no such file\n'
    assert not (tmp_path / "box").exists()
