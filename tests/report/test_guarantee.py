"""What a run promises about privacy, on its page and beside others."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import coterie
from coterie import Privacy
from coterie.experiment.privacy import describe_privacy
from coterie.loop.plan import Plan
from coterie.report import compare_runs, read_run, write_report
from coterie.report.guarantee_panel import NO_SECRET, guarantee_panel
from coterie.report.table_files import comparison_rows
from tests.federations import dense, ragged
from tests.report.test_pages import folder

TABLE = '[privacy]\nunit = "client"\nclip_norm = 0.5\nnoise_multiplier = 3.0\nwhere = "{where}"\nnoise = "{noise}"\n'


def plan(**options: Any) -> Plan:
    privacy = Privacy(unit="client", clip_norm=0.5, noise_multiplier=3.0, delta=1e-3, **options)
    return coterie.plan(coterie.fedavg(lr=0.1), dense(), ragged(), rounds=2, privacy=privacy, cohort=3, num_classes=3)


def private_folder(path: Path, noise: Any = "secret", where: Any = "server", more: str = "", over: bool = True) -> Path:
    folder(path, [0.5, 0.6], over=over)
    with (path / "config.toml").open("a") as file:
        file.write(TABLE.format(noise=noise, where=where) + more + "[cohort]\nsize = 3\n")
    if over:
        summary = json.loads((path / "summary.json").read_text())
        summary |= describe_privacy(plan(noise=noise, where=where), 2)
        (path / "summary.json").write_text(json.dumps(summary))
    return path


def test_the_page_says_how_large_and_to_whom_and_what_lies_outside(tmp_path: Path) -> None:
    path = private_folder(tmp_path / "run", where="clients", more="secure_sum = true\n")
    epsilon = read_run(path).end["epsilon"]
    page = write_report(path).read_text()
    for words in (
        "<h2>Privacy</h2>",
        f"<td>epsilon</td><td>{math.ceil(epsilon * 1000) / 1000:g}</td>",
        "<td>delta</td><td>0.001</td>",
        "any one client, replaced by another",
        "the clients, each its share",
        "sums of updates alone",
        "3 clients, every choice",
        "checkpoint/, which holds what clients keep",
    ):
        assert words in page
    assert "rng seed" not in page.split("<h2>Privacy</h2>")[1].split("<h2>")[0]


def test_the_page_says_how_clients_are_drawn(tmp_path: Path) -> None:
    path = private_folder(tmp_path / "run")
    with (path / "config.toml").open("a") as file:
        file.write('sampling = "poisson"\n')
    panel = guarantee_panel(read_run(path)) or ""
    assert "each client by a draw of its own, 3 on average" in panel
    assert "every choice" not in panel


def test_noise_that_repeats_is_no_guarantee_and_the_page_says_so_first(tmp_path: Path) -> None:
    panel = guarantee_panel(read_run(private_folder(tmp_path / "run", noise="rng_seed")))
    assert panel is not None
    assert panel.startswith("<p><b>No guarantee towards whoever knows the rng seed")
    assert NO_SECRET not in (guarantee_panel(read_run(private_folder(tmp_path / "other"))) or "")


def test_a_run_that_promises_nothing_or_is_not_over_says_no_epsilon(tmp_path: Path) -> None:
    plain = folder(tmp_path / "plain", [0.5])
    assert guarantee_panel(read_run(plain)) is None
    with (plain / "config.toml").open("a") as file:
        file.write("[privacy]\nsecure_sum = true\n")
    assert "Sums without noise are no guarantee" in (guarantee_panel(read_run(plain)) or "")
    begun = guarantee_panel(read_run(private_folder(tmp_path / "begun", over=False))) or ""
    assert "stated at its end" in begun
    assert "<td>epsilon</td>" not in begun


def test_a_comparison_has_epsilon_where_a_run_states_one(tmp_path: Path) -> None:
    plain, private = folder(tmp_path / "plain", [0.5, 0.6]), private_folder(tmp_path / "private")
    both = compare_runs([plain, private])
    place = both.head.index("epsilon")
    epsilon = read_run(private).end["epsilon"]
    assert both.rows[0][place] == "-"
    assert both.rows[1][place] == f"{epsilon:.4g}"
    assert [row["epsilon"] for row in comparison_rows(both)] == [None, epsilon]
    assert "epsilon" not in compare_runs([plain, folder(tmp_path / "other", [0.5])]).head
