"""Runs with several rng seeds compared: means and standard errors, speed-ups, and the files for other programs."""

import csv
import io
import math
import re
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coterie import Mistake
from coterie.report import compare_runs, write_comparison
from coterie.report.seed_groups import mean_of
from coterie.report.sortable_table import read_quantity
from coterie.report.table_files import comparison_rows, escape_latex, format_csv, format_latex
from tests.cli.test_main import exit_status
from tests.report.test_pages import Page, folder


def seeded(path: Path, lr: float, seed: int, accuracies: Sequence[float | None]) -> Path:
    """Write the folder of a run with an rng seed; its target accuracy is 0.8."""
    folder(path, list(accuracies), lr=lr)
    config = path / "config.toml"
    config.write_text(f"rng_seed = {seed}\n" + config.read_text())
    return path


@pytest.fixture
def folders(tmp_path: Path) -> list[Path]:
    """Two rates with two seeds each.

    Of lr = 0.1, seed 0 reaches 0.8 at 2 + 0.1 / 0.2 = 2.5 rounds and seed 1 at 1 + 0.3 / 0.4 = 1.75 rounds. Of lr =
    0.2, both reach it in round 1.
    """
    made = [
        (0.1, 0, [0.5, 0.7, 0.9]),
        (0.1, 1, [0.5, 0.9, 0.8]),
        (0.2, 0, [0.8, 0.9, 0.95]),
        (0.2, 1, [0.85, 0.9, 0.95]),
    ]
    return [seeded(tmp_path / f"lr={lr},rng_seed={seed}", lr, seed, curve) for lr, seed, curve in made]


def test_runs_that_differ_in_their_seed_alone_are_one_line_of_means(folders: list[Path]) -> None:
    """The last accuracies of lr = 0.1 are 0.9 and 0.8: mean 0.85, standard deviation 0.0707, error 0.0707 / sqrt(2).

    Its rounds to 0.8 are 2.5 and 1.75: mean 2.125, error 0.375. Those of lr = 0.2 are 1, so its speed-up is 2.1.
    """
    head, slow, fast = compare_runs(folders).table_of_means()
    assert head == ["settings", "algorithm.lr", "seeds", "test accuracy", "best", "rounds to target", "speed-up"]
    assert slow == ["lr=0.1", "0.1", "2", "85.00 ± 5.00 %", "90.00 ± 0.00 %", "2.12 ± 0.38", "1.0x"]
    assert fast == ["lr=0.2", "0.2", "2", "95.00 ± 0.00 %", "95.00 ± 0.00 %", "1.00 ± 0.00", "2.1x"]


def test_a_run_has_the_speed_up_over_the_mean_of_the_baseline(folders: list[Path]) -> None:
    """2.125 / 2.5, 2.125 / 1.75, and 2.125 / 1 twice; over lr = 0.2, 1 / 2.5 and so on."""
    found = compare_runs(folders)
    place = found.head.index("speed-up")
    assert [row[place] for row in found.rows] == ["0.8x", "1.2x", "2.1x", "2.1x"]
    for name in ("lr=0.2", "lr=0.2,rng_seed=1"):
        other = compare_runs(folders, baseline=name)
        assert [row[place] for row in other.rows] == ["0.4x", "0.6x", "1.0x", "1.0x"]
    with pytest.raises(Mistake, match=r'baseline = "lr=0.3": it must be the name of a run, .*: lr=0.1, lr=0.2'):
        compare_runs(folders, baseline="lr=0.3")


def test_a_group_reaches_a_target_only_if_every_seed_does(folders: list[Path], tmp_path: Path) -> None:
    never = seeded(tmp_path / "never", 0.1, 2, [0.1, 0.2, 0.3])
    found = compare_runs([*folders[:2], never, *folders[2:]], baseline="lr=0.2")
    _, slow, fast = found.table_of_means()
    assert slow[2:] == ["3", "66.67 ± 18.56 %", "70.00 ± 20.00 %", "-", "-"]
    assert fast[-1] == "1.0x"


def test_a_comparison_says_what_speed_ups_are_over_or_why_there_are_none(
    folders: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    never = seeded(tmp_path / "never", 0.3, 0, [0.1, 0.2, 0.3])
    wrong = "no speed-ups, since the baseline never did not reach the target; compare with another, such as "
    for paths, sentence in (
        ([never, *folders], f"{wrong}--baseline lr=0.1"),
        ([*folders, never], "speed-ups are over lr=0.1, which took 2.12 ± 0.38 rounds to the target"),
    ):
        assert exit_status("compare", *map(str, paths), "--out", str(tmp_path / "c.html")) == 0
        assert sentence in capsys.readouterr().out.splitlines()
        assert f"{sentence[:1].upper()}{sentence[1:]}." in Page(tmp_path / "c.html").text
    assert compare_runs([never, seeded(tmp_path / "b", 0.4, 0, [0.1])]).explain_speed_ups() is None


def test_repetitions_of_one_seed_are_runs_of_their_own(tmp_path: Path) -> None:
    found = compare_runs([seeded(tmp_path / name, 0.1, 0, [0.5, 0.9]) for name in ("a", "b")])
    assert found.table_of_means() == []
    assert [group.name for group in found.groups] == ["a", "b"]


def test_a_band_is_one_standard_error_around_the_mean(folders: list[Path]) -> None:
    """Round 2 of lr = 0.1 has 0.7 and 0.9: 0.8 and an error of 0.1."""
    group = compare_runs(folders).groups[0]
    curve = group.curve("test_accuracy", lambda run: [r["round"] for r in run.rounds])
    assert curve.band is not None
    assert (curve.x, curve.y[:2]) == ([1, 2, 3], [0.5, pytest.approx(0.8)])
    assert curve.band[1] == (pytest.approx(0.7), pytest.approx(0.9))


def test_a_curve_has_the_rounds_that_every_seed_measured(tmp_path: Path) -> None:
    """The first seed stopped after two rounds; of the second, round 1 was not evaluated."""
    both = [seeded(tmp_path / "a", 0.1, 0, [0.5, 0.9]), seeded(tmp_path / "b", 0.1, 1, [None, 0.7, 0.9])]
    for path in both:
        config = path / "config.toml"
        config.write_text(re.sub(r"rounds = \d", "rounds = 9", config.read_text()))
    [group] = compare_runs(both).groups
    curve = group.curve("test_accuracy", lambda run: [r["round"] for r in run.rounds])
    assert (curve.x, curve.y) == ([2], [pytest.approx(0.8)])


def test_csv_has_plain_numbers(folders: list[Path]) -> None:
    rows = list(csv.DictReader(io.StringIO(format_csv(comparison_rows(compare_runs(folders))))))
    assert [row["run"] for row in rows] == [path.name for path in folders]
    assert (rows[1]["rng_seed"], rows[1]["algorithm.lr"]) == ("1", "0.1")
    assert float(rows[1]["rounds_to_target"]) == pytest.approx(1.75)
    assert float(rows[1]["speed_up"]) == pytest.approx(2.125 / 1.75)
    assert (rows[0]["state"], rows[0]["why"], rows[0]["bytes_up"]) == ("finished", "", "3000000")


def test_latex_has_the_rules_of_booktabs_and_speed_ups_as_the_papers_print_them(folders: list[Path]) -> None:
    assert format_latex(compare_runs(folders)) == (
        "% needs \\usepackage{booktabs}\n"
        "\\begin{tabular}{lrr}\n"
        "\\toprule\n"
        "algorithm.lr & test accuracy (\\%) & rounds to target \\\\\n"
        "\\midrule\n"
        "0.1 & $85.00 \\pm 5.00$ & $2 \\pm 0.4$ \\\\\n"
        "0.2 & $95.00 \\pm 0.00$ & $1 \\pm 0.0$ ($2.1\\times$) \\\\\n"
        "\\bottomrule\n"
        "\\end{tabular}\n"
    )


def test_the_folder_of_a_sweep_stands_for_its_runs_in_the_order_of_its_table(tmp_path: Path) -> None:
    sweep = tmp_path / "sweep"
    (sweep / "runs").mkdir(parents=True)
    (sweep / "sweep.toml").write_text("")
    with pytest.raises(Mistake, match="no run of this sweep has begun"):
        compare_runs([sweep])
    for lr in (10.0, 9.0):
        seeded(sweep / "runs" / f"lr={lr:g}", lr, 0, [0.5])
    assert compare_runs([sweep]).names == ["lr=10", "lr=9"]
    (sweep / "sweep.csv").write_text("run,algorithm.lr\nlr=9,9.0\nlr=8,8.0\nlr=10,10.0\n")
    assert compare_runs([sweep]).names == ["lr=9", "lr=10"]


def test_the_page_sorts_and_loads_nothing(folders: list[Path], tmp_path: Path) -> None:
    path = write_comparison(compare_runs(folders), tmp_path / "compare.html")
    page, text = Page(path), path.read_text()
    assert page.links == ["data:,"]
    assert not re.search(r"https?://(?!www\.w3\.org|github\.com/leeoniya/uPlot)", text)
    assert '<td data-key="2.5">2.5</td>' in text
    assert "fill-opacity: 0.2" in text  # the bands
    assert text.count("<button") == len(compare_runs(folders).head) + len(compare_runs(folders).table_of_means()[0])


@given(st.lists(st.floats(-1e6, 1e6), min_size=2, max_size=20))
def test_the_error_of_a_mean_is_numpys(values: list[float]) -> None:
    import numpy as np

    mean = mean_of(values)
    assert mean is not None
    assert mean.error is not None
    assert mean.value == pytest.approx(np.mean(values), abs=1e-6)
    assert mean.error == pytest.approx(np.std(values, ddof=1) / math.sqrt(len(values)), abs=1e-6)


@pytest.mark.parametrize("text", ["-", "cnn", "1.2.3", "0.1 of it", "[32, 32]", ""])
def test_text_sorts_as_text(text: str) -> None:
    assert read_quantity(text) is None


def test_latex_shows_every_letter() -> None:
    assert escape_latex("a_b\\{50%}") == "a\\_b\\textbackslash{}\\{50\\%\\}"
