"""Mutated files: whatever a file says, the command does it, or says in one sentence why not."""

from pathlib import Path

import pytest

from tests.cli.mutations import PRETRAININGS, RUNS, call, cases, format_toml, try_case, write_data

SEEDS = 300
LIMIT_SECONDS = 20.0
"""For one command, on a machine that others use too; most take some hundredths of a second."""


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_data(tmp_path)


@pytest.mark.parametrize("name", [*RUNS, *PRETRAININGS])
def test_the_files_that_are_mutated_are_valid(name: str) -> None:
    Path("file.toml").write_text(format_toml((RUNS | PRETRAININGS)[name]))
    outcome = call(["run" if name in RUNS else "pretrain", "file.toml", "--out", "out"], LIMIT_SECONDS)
    assert outcome.status == 0, outcome.err


LATER = [pytest.param(first, marks=pytest.mark.long) for first in range(100, SEEDS, 100)]


@pytest.mark.parametrize("first", [0, *LATER])
def test_a_mutated_file_runs_or_is_refused_in_one_sentence(first: int) -> None:
    statuses = []
    for name, arguments, data in cases(first, first + 100):
        outcome, wrong = try_case(arguments, data, LIMIT_SECONDS)
        assert wrong is None, (name, arguments, data, outcome)
        statuses.append(outcome.status)
    assert statuses.count(2) > 50  # and not because all of them fail for the same reason
    assert statuses.count(0) > 0
