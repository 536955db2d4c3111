"""A run under a guarantee: its folder, its ledger, what it refuses, and that a stopped run goes on bit for bit."""

from __future__ import annotations

import json
import shutil
import stat
from pathlib import Path
from typing import Any

import pytest

from coterie.algorithms import ALGORITHMS
from coterie.core import tree
from coterie.core.errors import Mistake
from coterie.experiment.build_experiment import build_experiment
from coterie.experiment.folder_jobs import Outcome
from coterie.experiment.outside_guarantee import OF_BOTH
from coterie.experiment.privacy import describe_privacy, refuse_open_exchanges
from coterie.experiment.resolve_engine import this_machine
from coterie.experiment.run import run
from coterie.experiment.settings import load_settings
from coterie.experiment.staged_run import _check_chain
from coterie.experiment.stages import load_stages
from coterie.loop.federate import federate
from coterie.loop.private_plan import check_parts
from coterie.privacy.accountant import Event, spent
from coterie.track.noise_file import Noise, NoiseFile
from tests.experiment.private_plans import plan_of

FILE = """
rounds = 3
[data]
source = "digits"
num_clients = 20
examples_per_client = 10
partition = "iid"
[model]
name = "logistic"
[algorithm]
name = "fedavg"
lr = 0.1
[privacy]
unit = "client"
clip_norm = 0.5
noise_multiplier = 2.0
delta = 1e-3
"""


def start(tmp_path: Path, *overrides: str, out: str = "run", text: str = FILE, resume: bool = False) -> Outcome:
    file = tmp_path / "a.toml"
    file.write_text(text)
    return run(load_settings(file, overrides), tmp_path / out, resume=resume)


def weights(tmp_path: Path, out: str = "run") -> bytes:
    return (tmp_path / out / "model.safetensors").read_bytes()


def test_the_summary_states_what_was_spent(tmp_path: Path) -> None:
    """Three releases of a Poisson sample of half of the clients, as the account counts them."""
    summary = start(tmp_path, "cohort.fraction=0.5", "cohort.sampling=poisson").summary
    assert summary["epsilon"] == spent({Event(2.0, probability=0.5): 3}, 1e-3)
    assert (summary["delta"], summary["noise_multiplier"]) == (1e-3, 2.0)
    assert summary["privacy"]["releases"] == 3
    assert summary["privacy"]["neighbours"] == "add or remove"
    assert summary["privacy"]["outside"] == list(OF_BOTH)
    record = json.loads((tmp_path / "run" / "rounds.jsonl").read_text().splitlines()[0])
    assert record["train_loss"] is None
    assert record["test_accuracy"] is not None
    noise = tmp_path / "run" / "noise.json"
    assert stat.S_IMODE(noise.stat().st_mode) == 0o600
    secret = json.loads(noise.read_text())["secret"]
    others = [p for p in (tmp_path / "run").rglob("*") if p.is_file() and p != noise]
    assert not any(secret.encode() in path.read_bytes() for path in others)


def test_a_calibrated_run_keeps_its_target_and_config_toml_runs_again(tmp_path: Path) -> None:
    target = ("privacy.epsilon=3.0", "privacy.noise=rng_seed")
    text = FILE.replace("noise_multiplier = 2.0\n", "")
    summary = start(tmp_path, *target, text=text).summary
    assert 2.9 < summary["epsilon"] <= 3.0
    again = run(load_settings(tmp_path / "run" / "config.toml"), tmp_path / "again").summary
    assert (again["epsilon"], again["noise_multiplier"]) == (summary["epsilon"], summary["noise_multiplier"])
    assert weights(tmp_path) == weights(tmp_path, "again")


def test_a_stopped_run_goes_on_with_the_same_noise_and_the_same_ledger(tmp_path: Path) -> None:
    """Two folders with one secret go on to the same bits, with an adaptive bound and hidden cohorts."""
    options = ("cohort.size=8", "privacy.clip=adaptive", "privacy.count_noise=2.0")
    start(tmp_path, "rounds=1", *options)
    shutil.copytree(tmp_path / "run", tmp_path / "copy")
    resumed = start(tmp_path, *options, resume=True).summary
    start(tmp_path, *options, out="copy", resume=True)
    assert weights(tmp_path) == weights(tmp_path, "copy")
    assert resumed["epsilon"] == spent({Event(2.0, fixed=(8, 20)): 3}, 1e-3)
    assert resumed["privacy"]["neighbours"] == "replace"
    assert resumed["privacy"]["releases"] == 3


@pytest.mark.long
def test_a_stopped_run_ends_as_an_unbroken_one(tmp_path: Path) -> None:
    options = ("privacy.noise=rng_seed", "cohort.fraction=0.4", "cohort.sampling=poisson", "privacy.clip=adaptive")
    start(tmp_path, *options, out="whole")
    start(tmp_path, "rounds=1", *options)
    start(tmp_path, *options, resume=True)
    assert weights(tmp_path) == weights(tmp_path, "whole")
    assert not (tmp_path / "run" / "noise.json").exists()


def test_rounds_that_silos_run_again_count_again(tmp_path: Path) -> None:
    """Noise for other answers must be new, so what was released before is part of the account."""
    kept = NoiseFile(tmp_path / "noise.json")
    assert kept.read() is None
    kept.write("0" * 64, 2)
    assert kept.read() == Noise("0" * 64, 2)
    plan = plan_of("fedavg", {})
    assert plan.privacy is not None
    described = describe_privacy(plan, 3 + 2)
    assert described["privacy"]["releases"] == 5
    assert described["epsilon"] == spent({Event(0.5): 5}, plan.privacy.delta or 0)
    (tmp_path / "noise.json").write_text('{"secret": 1}')
    with pytest.raises(Mistake, match=r"noise.json: cannot be read"):
        kept.read()


def test_more_rounds_may_not_spend_more_than_was_asked(tmp_path: Path) -> None:
    text = FILE.replace("noise_multiplier = 2.0\n", "epsilon = 3.0\n")
    start(tmp_path, text=text)
    before = weights(tmp_path)
    with pytest.raises(Mistake, match=r"privacy.epsilon = 3.0: 9 rounds with privacy.noise_multiplier = .* spend"):
        start(tmp_path, "rounds=9", text=text, resume=True)
    assert weights(tmp_path) == before
    free = FILE.replace("rounds = 3", "rounds = 2")
    start(tmp_path, out="free", text=free)
    longer = start(tmp_path, "rounds=5", out="free", text=free, resume=True).summary
    assert longer["epsilon"] == spent({Event(2.0): 5}, 1e-3)  # no target was named: the ledger goes on


def test_a_run_goes_on_with_the_keys_of_its_guarantee_alone(tmp_path: Path) -> None:
    """Otherwise earlier rounds would be counted as if they had had the noise, or the cohorts, of later ones."""
    start(tmp_path, "rounds=1")
    before = weights(tmp_path)
    for key in (
        "privacy.noise_multiplier=9.0",
        "privacy.clip_norm=1.0",
        "privacy.noise=rng_seed",
        "cohort.fraction=0.5",
    ):
        with pytest.raises(Mistake, match=f"{key.partition('=')[0]}: changed since the run in .* began"):
            start(tmp_path, key, resume=True)
    with pytest.raises(Mistake, match=r"privacy\.\w+.*: changed since the run in .* began"):
        start(tmp_path, text=FILE[: FILE.index("[privacy]")], resume=True)
    assert weights(tmp_path) == before


def test_a_run_without_its_secret_does_not_go_on(tmp_path: Path) -> None:
    start(tmp_path)
    (tmp_path / "run" / "noise.json").unlink()
    with pytest.raises(Mistake, match=r"noise.json: is gone, and with it the secret"):
        start(tmp_path, "rounds=4", resume=True)


def test_rounds_on_record_count_although_their_secret_is_gone(tmp_path: Path) -> None:
    """A run that was stopped before its first checkpoint begins again, with noise that nobody has seen."""
    start(tmp_path)
    folder = tmp_path / "run"
    shutil.rmtree(folder / "checkpoint")
    for name in ("noise.json", "summary.json", "report.html", "checksums.json", "model.safetensors"):
        (folder / name).unlink()
    summary = start(tmp_path, resume=True).summary
    assert summary["privacy"]["releases"] == 6
    assert summary["epsilon"] == spent({Event(2.0): 6}, 1e-3)


def test_a_run_that_stops_early_reports_what_it_spent(tmp_path: Path) -> None:
    target = ("evaluate.target_accuracy=0.01", "rounds=50", "privacy.epsilon=40.0")
    summary = start(tmp_path, *target).summary
    assert (summary["stopped"], summary["rounds"]) == ("target", 1)
    assert summary["epsilon"] == spent({Event(2.0): 1}, 1e-3)


def test_a_delta_with_which_epsilon_says_nothing_gets_a_note(tmp_path: Path) -> None:
    """Of 20 clients, each with 10 examples."""
    (tmp_path / "a.toml").write_text(FILE)

    def notes(*overrides: str) -> list[str]:
        remarks = build_experiment(load_settings(tmp_path / "a.toml", overrides), this_machine()).remarks
        return [sentence for sentence in remarks if "delta" in sentence]

    (one,) = notes("privacy.delta=0.06")
    assert "privacy.delta = 0.06 is above 1 / 20: a run that published one of 20 clients as it is" in one
    (other,) = notes("privacy.delta=0.2", "privacy.unit=example")
    assert "above 1 / 10: a run that published one of 10 examples" in other
    assert notes() == notes("privacy.delta=0.05") == notes("privacy.delta=0.06", "privacy.unit=example") == []


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["task.class_weights=balanced"], "clients would send counts of their labels"),
        (["algorithm.seed_examples_per_client=1"], "clients would give examples of their own"),
        (["evaluate.clients=true"], "clients' own accuracies show their data"),
        (["aggregation.name=median"], "a robust rule sees single updates"),
        (["privacy.epsilon=0.5"], "privacy.epsilon = 0.5: 3 rounds with privacy.noise_multiplier = 2 spend"),
        (["probe.names=['drift']"], "a probe shows measures of single updates"),
    ],
)
def test_what_escapes_is_refused_and_nothing_is_written(tmp_path: Path, overrides: list[str], words: str) -> None:
    with pytest.raises(Mistake, match=words):
        start(tmp_path, *overrides)
    assert not (tmp_path / "run").exists()


def test_a_federated_standardisation_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.toml").write_text(FILE)
    settings = load_settings(tmp_path / "a.toml", ["data.standardize=federated"])
    with pytest.raises(Mistake, match=r"data.standardize = .federated.: clients would send sums of their columns"):
        refuse_open_exchanges(settings)


def test_stages_before_a_guarantee_may_not_train_on_clients(tmp_path: Path) -> None:
    table = FILE[FILE.index("[privacy]") :].replace("[privacy]", "[stage.privacy]")
    text = FILE[: FILE.index("[privacy]")] + '[[stage]]\nrounds = 1\n[[stage]]\nname = "last"\n' + table
    (tmp_path / "a.toml").write_text(text)
    with pytest.raises(Mistake, match="a stage before it trains on the clients' data"):
        _check_chain(load_stages(tmp_path / "a.toml"))


PAGE = (Path(__file__).parents[2] / "docs" / "privacy.md").read_text("utf-8")
RECIPES: dict[str, dict[str, Any]] = {
    "scaffold": {"objective": "clients"},
    "fbn": {"local_steps": 1},
    "fixbn": {"freeze_after": 1},
    "fedprox": {"proximal_weight": 0.1},
    "feddyn": {"proximal_weight": 0.1},
    "fedssl": {"batch_size": 8},
}


def verdicts() -> dict[str, str]:
    """Algorithm -> the second cell of its row in the page."""
    section = PAGE.split("## Algorithms")[1].split("\n## ")[0]
    rows = [line.strip("|").split(" | ") for line in section.splitlines() if line.startswith("| `")]
    return {name.strip(" `"): cells[0].strip() for names, *cells in rows for name in names.split(",")}


def test_every_algorithm_has_a_verdict() -> None:
    assert verdicts().keys() == ALGORITHMS.keys()


@pytest.mark.parametrize("name", sorted(ALGORITHMS))
def test_the_page_says_what_the_code_does(name: str) -> None:
    """An algorithm with "no" is refused in a sentence, and one with "yes" protects every part of its updates."""
    plan = plan_of(name, RECIPES.get(name, {}))
    if verdicts()[name] == "no":
        with pytest.raises(Mistake, match=r"choose|leave"):
            check_parts(plan)
    else:
        for round in (1, 2, 3):
            assert set(check_parts(plan.in_round(round))) == set(plan.in_round(round).algorithm.server.weighting)


def test_tables_that_stand_alone_are_refused() -> None:
    with pytest.raises(Mistake, match='choose exchange = "sum", or fedmd'):
        check_parts(plan_of("fedh2l", {"exchange": "tables"}))


@pytest.mark.parametrize("name", [name for name in sorted(ALGORITHMS) if verdicts()[name] != "no"])
def test_every_protected_algorithm_runs_with_noise_and_stays_finite(name: str) -> None:
    """Three rounds with much noise: variances stay above 0, posteriors sum to 1, and nobody's loss is told."""
    plan = plan_of(name, RECIPES.get(name, {}), noise_multiplier=5.0)
    for round in federate(plan):
        assert round.reached == 6
        assert round.measures["train_loss"] is None
        assert not any(measure.startswith("shift") for measure in round.measures)
        buffers = round.state.get("buffers", {})
        assert all(bool((x > 0).all()) for buffer, x in buffers.items() if buffer.endswith("running_var"))
    assert tree.is_finite(round.weights())
