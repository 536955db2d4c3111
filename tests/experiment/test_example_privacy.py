"""A run that hides single examples: its folder, its account for each client, and that a stopped run goes on."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest

from coterie.core.errors import Mistake
from coterie.experiment.folder_jobs import Outcome
from coterie.experiment.outside_guarantee import OF_BOTH, OF_EXAMPLES
from coterie.experiment.privacy import refuse_open_exchanges
from coterie.experiment.run import run
from coterie.experiment.settings import load_settings
from coterie.privacy.accountant import Event, spent

FILE = """
rounds = 2
[data]
source = "digits"
num_clients = 4
examples_per_client = 20
partition = "iid"
[model]
name = "logistic"
[algorithm]
name = "fedavg"
lr = 0.1
batch_size = 5
[cohort]
size = 3
[privacy]
unit = "example"
clip_norm = 0.5
noise_multiplier = 2.0
delta = 1e-3
"""
FOR_A_TARGET = FILE.replace("noise_multiplier = 2.0\n", "epsilon = 3.0\n")


def start(tmp_path: Path, *overrides: str, out: str = "run", text: str = FILE, resume: bool = False) -> Outcome:
    file = tmp_path / "a.toml"
    file.write_text(text)
    return run(load_settings(file, overrides), tmp_path / out, resume=resume)


def weights(tmp_path: Path, out: str = "run") -> bytes:
    return (tmp_path / out / "model.safetensors").read_bytes()


def clients(tmp_path: Path, out: str = "run") -> dict[str, float]:
    return {c["id"]: c["epsilon"] for c in json.loads((tmp_path / out / "epsilons.json").read_text())}


def test_a_stopped_run_goes_on_with_the_same_noise_and_each_client_has_its_account(tmp_path: Path) -> None:
    """Two folders with one secret go on to the same bits. A client has 4 steps on a quarter in each of its rounds."""
    start(tmp_path, "rounds=1")
    first = clients(tmp_path)
    assert sorted(first.values()) == [0.0] + [spent({Event(2.0, 0.25): 4}, 1e-3)] * 3
    shutil.copytree(tmp_path / "run", tmp_path / "copy")
    summary = start(tmp_path, resume=True).summary
    start(tmp_path, out="copy", resume=True)
    assert weights(tmp_path) == weights(tmp_path, "copy")
    each = clients(tmp_path)
    assert summary["epsilon"] == max(each.values()) == spent({Event(2.0, 0.25): 8}, 1e-3)
    assert set(each.values()) <= {spent({Event(2.0, 0.25): 4 * rounds}, 1e-3) for rounds in (0, 1, 2)}
    assert all(each[client] >= first[client] for client in each)
    assert (summary["privacy"]["unit"], summary["privacy"]["clients"]) == ("example", "epsilons.json")
    assert summary["privacy"]["outside"] == [*OF_BOTH, OF_EXAMPLES]
    pages = [(Path(__file__).parents[2] / "docs" / name).read_text() for name in ("privacy.md", "privacy-examples.md")]
    assert all(f"`{file}`" in page for page in pages for file in re.findall(r"[\w.]+\.(?:json\w?|png)", str(OF_BOTH)))
    records = [json.loads(line) for line in (tmp_path / "run" / "rounds.jsonl").read_text().splitlines()]
    assert [record["train_loss"] for record in records] == [None, None]
    noise = tmp_path / "run" / "noise.json"
    secret = json.loads(noise.read_text())["secret"].encode()
    assert not any(secret in p.read_bytes() for p in (tmp_path / "run").rglob("*") if p.is_file() and p != noise)


def test_a_run_for_a_target_keeps_its_noise_and_refuses_rounds_that_would_spend_more(tmp_path: Path) -> None:
    target = ("privacy.noise=rng_seed", "cohort.size=4")
    summary = start(tmp_path, *target, text=FOR_A_TARGET).summary
    assert 2.9 < summary["epsilon"] <= 3.0
    before = weights(tmp_path)
    with pytest.raises(Mistake, match=r"privacy.epsilon = 3.0: 9 rounds with .* spend .* at one client"):
        start(tmp_path, "rounds=9", *target, text=FOR_A_TARGET, resume=True)
    assert weights(tmp_path) == before
    again = run(load_settings(tmp_path / "run" / "config.toml"), tmp_path / "again").summary
    assert again["noise_multiplier"] == summary["noise_multiplier"]
    assert weights(tmp_path, "again") == before


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["task.class_weights=balanced"], "clients would send counts of their labels"),
        (["algorithm.seed_examples_per_client=1"], "clients would give examples of their own"),
        (["evaluate.clients=true"], "clients' own accuracies are weighted by their labels"),
        (["probe.names=['drift']"], "a probe may look at clients' own examples"),
        (["privacy.epsilon=0.5"], "privacy.epsilon = 0.5: 2 rounds with .* spend"),
        (["seed_set.source=digits", "seed_set.examples=10"], "counts a client's own examples; leave the seed set out"),
    ],
)
def test_what_escapes_is_refused_and_nothing_is_written(tmp_path: Path, overrides: list[str], words: str) -> None:
    with pytest.raises(Mistake, match=words):
        start(tmp_path, *overrides)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("how", ["local", "federated"])
def test_features_that_depend_on_other_examples_are_refused(tmp_path: Path, how: str) -> None:
    (tmp_path / "a.toml").write_text(FILE)
    settings = load_settings(tmp_path / "a.toml", [f"data.standardize={how}"])
    with pytest.raises(Mistake, match=r"each example would change the features of all others; give .none."):
        refuse_open_exchanges(settings)
