"""What the command imports before it answers: PyTorch only where something is computed."""

import json
import subprocess
import sys
from pathlib import Path

from tests.experiment.files import DIGITS, written

HEAVY = ("torch", "matplotlib", "sklearn", "scipy", "pandas")
"""Packages that take from tenths of a second to seconds to import."""

PROGRAM = """
import json, sys
import coterie
after = [("import coterie", 0, sorted(m for m in ("numpy", "rich", "typer", "pydantic") if m in sys.modules))]
from coterie.cli.main import main
for line in sys.stdin:
    *arguments, blocked = json.loads(line)
    for name in blocked:
        assert sys.modules.get(name) is None, f"{name} was imported before {arguments}"
        sys.modules[name] = None
    try:
        main(arguments)
    except SystemExit as end:
        after.append((" ".join(arguments), end.code, []))
    for name in blocked:
        del sys.modules[name]
print(json.dumps(after))
"""


def test_answers_that_compute_nothing_import_nothing_heavy(tmp_path: Path) -> None:
    """Importing a blocked module fails, and the command would end with a traceback instead of its exit status."""
    written(tmp_path)
    stages = '[[stage]]\nname = "first"\n[[stage]]\nname = "second"\n'
    (tmp_path / "chain.toml").write_text(f"{DIGITS}\n{stages}", encoding="utf-8")
    light = [*HEAVY, "numpy", "rich"]
    commands: list[tuple[list[str], int, list[str]]] = [
        (["--version"], 0, light),
        (["--help"], 0, light),
        (["run", "--help"], 0, light),
        (["data", "--help"], 0, light),
        (["deploy", "--help"], 0, light),
        (["probe", "--help"], 0, light),
        (["run", "absent.toml"], 2, light),
        (["run", "digits.toml", "algorithm.mometum=0.9"], 2, light),
        (["run", "digits.toml", "algorithm.name=fedavgg"], 2, light),
        (["run", "digits.toml", "algorithm.lr=-1"], 2, light),
        (["run", "chain.toml", "stage.1.algorithm.lrr=3"], 2, light),
        (["data", "show", "digits.toml", "data.sorce=mnist"], 2, light),
        (["peer", "absent.toml", "--id", "a", "--mailbox", "m"], 2, light),
        (["data", "list"], 0, [*HEAVY, "numpy"]),
        (["sweep", "digits.toml", "algorithm.lrr=1,2"], 2, list(HEAVY)),
        (["pretrain", "absent.toml"], 2, list(HEAVY)),
        (["report", "absent"], 2, list(HEAVY)),
        (["compare", "absent"], 2, list(HEAVY)),
    ]
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        input="".join(f"{json.dumps([*arguments, blocked])}\n" for arguments, _, blocked in commands),
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    seen = json.loads(done.stdout.splitlines()[-1])
    assert seen[0] == ["import coterie", 0, []]
    assert [(name, status) for name, status, _ in seen[1:]] == [(" ".join(a), status) for a, status, _ in commands]
    assert "did you mean algorithm.momentum?" in done.stderr
