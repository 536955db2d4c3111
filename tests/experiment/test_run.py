"""A run from settings to report: what it leaves, that it can be repeated, and that a stop costs nothing."""

import json
import os
import signal
import subprocess
import sys
import time
import tomllib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch

from coterie import Mistake
from coterie.data.sources.synthetic import Synthetic
from coterie.experiment import build_experiment as build_module
from coterie.experiment import folder_jobs, save_checkpoints, shared_run
from coterie.experiment import run as run_module
from coterie.experiment.build_experiment import Experiment, build_experiment
from coterie.experiment.engine_choice import Machine
from coterie.experiment.resolve_engine import this_machine
from coterie.experiment.run import SilentRun, run
from coterie.experiment.settings import load_settings
from coterie.experiment.trained_model import load_trained_model
from coterie.report.clients_page import clients_sentence
from coterie.track.file_writing import client_file_names, client_id
from coterie.track.rounds_file import Record
from tests.experiment.conftest import Start
from tests.experiment.files import DIGITS, written


@pytest.fixture(autouse=True)
def quick(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """A report takes longer than a run of digits; only the test that looks at a run's files has one drawn."""
    if request.node.originalname != "test_a_run_leaves_what_the_public_face_says":
        monkeypatch.setattr(folder_jobs, "write_report", lambda folder: (folder / "report.html").write_text("page"))


def lines(folder: Path) -> list[Record]:
    """rounds.jsonl without what no two runs share: its times."""
    records = [json.loads(line) for line in (folder / "rounds.jsonl").read_text().splitlines()]
    return [{k: v for k, v in r.items() if k not in ("seconds", "elapsed")} for r in records]


def end(folder: Path) -> dict[str, Any]:
    """summary.json without its times."""
    found = json.loads((folder / "summary.json").read_text())
    return {k: v for k, v in found.items() if k not in ("seconds", "elapsed")}


def model(folder: Path) -> bytes:
    return (folder / "model.safetensors").read_bytes()


def same(a: Path, b: Path) -> None:
    """Two runs ended alike, bit for bit."""
    assert lines(a) == lines(b)
    assert model(a) == model(b)
    assert end(a) == end(b)


class StopAfter(SilentRun):
    """Ctrl-C after a round."""

    def __init__(self, round: int) -> None:
        self.stop = round
        self.said: list[str] = []

    def round(self, record: Record) -> None:
        if record["round"] == self.stop:
            raise KeyboardInterrupt

    def say(self, sentence: str) -> None:
        self.said.append(sentence)


def test_a_run_leaves_what_the_public_face_says(start: Start) -> None:
    folder = start("evaluate.every=2").folder
    names = {p.name for p in folder.iterdir() if not p.name.startswith(".")}
    expected = {"config.toml", "rounds.jsonl", "summary.json", "clients.json", "model.safetensors", "report.html"}
    assert names == expected | {"inputs.json", "data.json", "checksums.json", "checkpoint"}
    records = [json.loads(line) for line in (folder / "rounds.jsonl").read_text().splitlines()]
    assert [r["round"] for r in records] == [1, 2, 3]
    keys = "round seconds elapsed cohort_size reached dropped bytes_up bytes_down train_loss test_loss test_accuracy"
    assert all(set(keys.split()) <= r.keys() for r in records)
    assert [r["test_accuracy"] is None for r in records] == [True, False, False]  # every second, and the last
    parameters = 64 * 16 + 16 + 16 * 10 + 10
    assert records[0]["bytes_up"] == records[0]["bytes_down"] == 5 * 4 * parameters
    end = json.loads((folder / "summary.json").read_text())
    assert end["rounds"] == 3
    assert end["bytes_up"] == 3 * records[0]["bytes_up"]
    assert end["test_accuracy"] == records[2]["test_accuracy"]
    clients = json.loads((folder / "clients.json").read_text())
    assert [c["id"] for c in clients] == [str(k) for k in range(10)]
    assert sum(c["examples"] for c in clients) == 1438
    assert all(sum(c["label_counts"].values()) == c["examples"] for c in clients)
    assert all(len(c["label_counts"]) == 2 for c in clients)
    assert set(safetensors.torch.load(model(folder))) == {"1.weight", "1.bias", "3.weight", "3.bias"}


def test_config_is_an_input_that_makes_the_run_again(start: Start, tmp_path: Path) -> None:
    first = start().folder
    tables = tomllib.loads((first / "config.toml").read_text())
    assert tables["engine"]["name"] in ("sequential", "vectorised")
    assert tables["engine"]["device"] in ("cpu", "cuda")
    assert "torch" in tables["versions"]
    second = run(load_settings(first / "config.toml"), tmp_path / "again").folder
    same(first, second)
    assert (first / "config.toml").read_bytes() == (second / "config.toml").read_bytes()


def test_parts_of_the_users_own_are_found_from_anywhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home, elsewhere = tmp_path / "home", tmp_path / "elsewhere"
    home.mkdir()
    elsewhere.mkdir()
    (home / "own_parts_of_run.py").write_text(
        "import numpy as np, torch\nfrom torch import nn\nfrom coterie import Examples, fedavg\n"
        "from coterie.data import Source\n"
        "def data(n: int = 40):\n"
        "    x = torch.arange(2.0 * n).reshape(n, 2) / n\n"
        "    return Source('mine', Examples(x, (x[:, 0] > 1).long()), Examples(x, (x[:, 0] > 1).long()), 2)\n"
        "def net(): return nn.Linear(2, 2)\n"
        "def algorithm(*, lr: float): return fedavg(lr=lr)\n"
    )
    text = DIGITS.replace('"digits"', '"own_parts_of_run:data"').replace(
        '"mlp"\nhidden = [16]', '"own_parts_of_run:net"'
    )
    text = text.replace('"label"', '"iid"').replace("labels_per_client = 2", "n = 60")
    text = text.replace('"fedavg"', '"own_parts_of_run:algorithm"')
    first = run(load_settings(written(home, text)), tmp_path / "first").folder
    monkeypatch.chdir(elsewhere)
    sys.modules.pop("own_parts_of_run")
    same(first, run(load_settings(first / "config.toml"), tmp_path / "second").folder)


@pytest.mark.parametrize("algorithm", ["fedavg", "scaffold"])
def test_a_run_that_was_stopped_ends_like_one_that_was_not(start: Start, algorithm: str) -> None:
    whole = start(f"algorithm.name={algorithm}", "rounds=6", out="whole").folder
    for stop in (2, 5):
        with pytest.raises(KeyboardInterrupt):
            start(f"algorithm.name={algorithm}", "rounds=6", out="parts", resume=stop > 2, watch=StopAfter(stop))
        assert len(lines(whole.parent / "parts")) == stop
    parts = start(f"algorithm.name={algorithm}", "rounds=6", out="parts", resume=True).folder
    same(whole, parts)


KILLED = """
import sys
from coterie.experiment import save_checkpoints
save_checkpoints.MIN_PAUSE_SECONDS = 0.0
from coterie.cli.main import main
main(sys.argv[1:])
"""


@pytest.mark.parametrize("algorithm", [pytest.param("fedavg", marks=pytest.mark.long), "scaffold"])
def test_a_run_that_was_killed_ends_like_one_that_was_not(start: Start, tmp_path: Path, algorithm: str) -> None:
    """SIGKILL at an arbitrary instant, between whatever two writes."""
    overrides = (f"algorithm.name={algorithm}", "rounds=80", "evaluate.every=10")
    arguments = ["run", str(tmp_path / "digits.toml"), *overrides, "--out", str(tmp_path / "killed")]
    threads = {**os.environ, "OMP_NUM_THREADS": "1"}  # as many as this process has: sums are split among them
    process = subprocess.Popen([sys.executable, "-c", KILLED, *arguments], stdout=subprocess.DEVNULL, env=threads)
    rounds = tmp_path / "killed" / "rounds.jsonl"
    while process.poll() is None and not (rounds.exists() and rounds.read_bytes().count(b"\n") >= 20):
        time.sleep(0.005)
    os.kill(process.pid, signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL, "the run was over before it could be killed"
    seen: list[int] = []

    class Look(SilentRun):
        def begin(self, experiment: Experiment, folder: Path, records: list[Record]) -> None:
            seen.append(len(records))

    killed = start(*overrides, out="killed", resume=True, watch=Look()).folder
    assert 0 < seen[0] < 80
    same(start(*overrides, out="whole").folder, killed)


def test_a_checkpoint_cut_in_half_costs_only_the_rounds_since_the_one_before(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(save_checkpoints.CheckpointSaver, "due", True)
    watch = StopAfter(4)
    with pytest.raises(KeyboardInterrupt):
        start("rounds=6", watch=watch)
    folder = start("rounds=6", out="whole").folder.parent / "run"
    newest = folder / "checkpoint" / "state-4.safetensors"
    newest.write_bytes(newest.read_bytes()[: newest.stat().st_size // 2])
    watch = StopAfter(0)
    start("rounds=6", resume=True, watch=watch)
    assert "is damaged" in watch.said[0]
    assert watch.said[0].endswith("continuing from round 3")
    same(folder.parent / "whole", folder)


def test_checkpoints_that_are_all_damaged_are_a_mistake(start: Start, tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        start("rounds=6", watch=StopAfter(4))
    for path in (tmp_path / "run" / "checkpoint").glob("state-*"):
        path.write_bytes(b"")
    with pytest.raises(Mistake, match=r"no checkpoint in .* can be read"):
        start("rounds=6", resume=True)


def test_a_finished_run_is_left_alone_unless_rounds_are_added(start: Start) -> None:
    first = start("rounds=3")
    before = {p: p.read_bytes() for p in first.folder.rglob("*") if p.is_file()}
    again = start("rounds=3", resume=True)
    assert not again.ran
    assert {p: p.read_bytes() for p in first.folder.rglob("*") if p.is_file()} == before
    with pytest.raises(Mistake, match="holds a run already; continue it with --resume"):
        start("rounds=3")
    more = start("rounds=5", resume=True)
    assert more.ran
    same(start("rounds=5", out="whole").folder, more.folder)
    assert tomllib.loads((more.folder / "config.toml").read_text())["rounds"] == 5


def test_a_run_that_was_killed_before_its_report_has_one_of_all_its_rounds(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where a report of fewer rounds was there before."""

    def drawn(folder: Path) -> None:
        (folder / "report.html").write_text(str(end(folder)["rounds"]))

    def killed(folder: Path) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(folder_jobs, "write_report", drawn)
    start("rounds=2")
    monkeypatch.setattr(folder_jobs, "write_report", killed)
    with pytest.raises(KeyboardInterrupt):
        start("rounds=4", resume=True)
    monkeypatch.setattr(folder_jobs, "write_report", drawn)
    outcome = start("rounds=4", resume=True)
    assert not outcome.ran
    assert (outcome.folder / "report.html").read_text() == "4"


def test_a_damaged_summary_is_written_again(start: Start) -> None:
    outcome = start("rounds=3")
    whole, page = end(outcome.folder), outcome.folder / "summary.json"
    page.write_bytes(page.read_bytes()[:20])
    start("rounds=3", resume=True)
    assert end(outcome.folder) == whole


def test_a_run_stops_at_its_target_and_is_then_finished(start: Start) -> None:
    options = ("rounds=50", "algorithm.local_epochs=3", "evaluate.target_accuracy=0.4")
    outcome = start(*options)
    accuracies = [r["test_accuracy"] for r in lines(outcome.folder)]
    assert accuracies[-1] >= 0.4 > max(accuracies[:-1])
    assert outcome.summary["stopped"] == "target"
    assert len(accuracies) - 1 <= outcome.summary["rounds_to_target"] <= len(accuracies)
    assert not start(*options, resume=True).ran
    assert not start(*options, "rounds=60", resume=True).ran


def test_a_target_reached_just_before_the_end_was_written_needs_no_further_round(start: Start) -> None:
    options = ("rounds=50", "algorithm.local_epochs=3", "evaluate.target_accuracy=0.4")
    outcome = start(*options)
    (outcome.folder / "summary.json").unlink()
    (outcome.folder / "model.safetensors").unlink()
    before = lines(outcome.folder)
    assert start(*options, resume=True).summary == outcome.summary
    assert lines(outcome.folder) == before
    assert (outcome.folder / "model.safetensors").exists()


@pytest.mark.parametrize(
    ("override", "names"),
    [
        ("algorithm.lr=0.2", "algorithm.lr"),
        ("rng_seed=1", "rng_seed"),
        ("cohort.size=3", "cohort.fraction, cohort.size"),
        ("algorithm.clip_norm=1", "algorithm.clip_norm"),
        ("engine.dtype=float64", "engine.dtype"),
        ("model.hidden=[8]", "model.hidden"),
    ],
)
def test_a_resume_with_other_settings_names_them(start: Start, tmp_path: Path, override: str, names: str) -> None:
    if not (tmp_path / "run").exists():
        start("rounds=1")
    with pytest.raises(Mistake) as caught:
        start("rounds=1", override, resume=True)
    assert str(caught.value).startswith(f"{names}: changed since the run")


def test_fewer_rounds_than_are_done_are_a_mistake(start: Start) -> None:
    with pytest.raises(KeyboardInterrupt):
        start("rounds=6", watch=StopAfter(4))
    with pytest.raises(Mistake, match="rounds = 2: 4 rounds are done already; give 4 or more"):
        start("rounds=2", resume=True)


def test_resume_starts_where_there_is_nothing_yet(start: Start) -> None:
    assert start("rounds=1", resume=True).ran


def test_a_resume_keeps_the_engine_that_the_run_began_with(start: Start, tmp_path: Path) -> None:
    """The file says "auto", and "auto" would now choose otherwise: the run's config.toml decides."""
    with pytest.raises(KeyboardInterrupt):
        start("rounds=4", "engine.name=sequential", watch=StopAfter(2))
    start("rounds=4", resume=True)
    assert tomllib.loads((tmp_path / "run" / "config.toml").read_text())["engine"]["name"] == "sequential"


def test_an_engine_chosen_twice_gives_the_same_weights_bit_for_bit(
    start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a machine whose memory lets two clients work at once; a resume on another keeps to that."""
    little = Machine(cores=1, memory=16 * 2 * 60_000, device="cpu", compiler=False)
    with monkeypatch.context() as patched:
        patched.setattr(run_module, "this_machine", lambda: little)
        first, second = (start("engine.name=vectorised", out=out).folder for out in ("first", "second"))
        with pytest.raises(KeyboardInterrupt):
            start("engine.name=vectorised", watch=StopAfter(1))
    same(first, second)
    assert (first / "config.toml").read_bytes() == (second / "config.toml").read_bytes()
    chosen = tomllib.loads((first / "config.toml").read_text())["engine"]
    assert (chosen["chunk"], chosen["compile"], chosen["workers"]) == (2, False, 1)
    same(first, start("engine.name=vectorised", resume=True).folder)


def test_clients_with_models_of_their_own_have_a_file_each(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    ids = np.array(["St. Mary's", "a/b", "ü", "Bonn", "bonn"]).repeat(20)
    np.savez(tmp_path / "d.npz", x=rng.normal(size=(100, 3)), y=np.arange(100) % 2, hospital=ids)
    text = (
        'rounds = 1\n[data]\nsource = "npz"\npath = "d.npz"\nclient_column = "hospital"\n[model]\nname = "logistic"\n'
    )
    path = written(tmp_path, text + '[algorithm]\nname = "independent"\nlr = 0.1\n')
    folder = run(load_settings(path), tmp_path / "run").folder
    assert {client_id(p.stem) for p in (folder / "clients").iterdir()} == {"St. Mary's", "a/b", "ü", "Bonn", "bonn"}
    assert len({p.name.lower() for p in (folder / "clients").iterdir()}) == 5
    for client in ("Bonn", "bonn"):
        weights = safetensors.torch.load_file(
            folder / "clients" / f"{client_file_names(['Bonn', 'bonn'])[client]}.safetensors"
        )
        own = load_trained_model(folder, client).model.state_dict()
        assert all(bool((own[name] == weights[name]).all()) for name in weights)
    assert not (folder / "model.safetensors").exists()
    end = json.loads((folder / "summary.json").read_text())
    assert end["test_accuracy"] is not None
    assert end["own_test_accuracy"] is not None


@pytest.mark.parametrize("algorithm", ["fedh2l", "fedmd"])
def test_clients_of_different_architectures_learn_from_one_another(
    start: Start, tmp_path: Path, algorithm: str
) -> None:
    """Two examples of each of ten clients become the seed set, and leave their private data."""
    options = (f"algorithm.name={algorithm}", "algorithm.seed_examples_per_client=2", "model.names=['mlp', 'logistic']")
    folder = start("rounds=2", *options).folder
    clients = json.loads((folder / "clients.json").read_text())
    assert sum(c["examples"] for c in clients) == 1438 - 10 * 2
    shapes = [
        {n: tuple(t.shape) for n, t in safetensors.torch.load_file(folder / "clients" / f"{k}.safetensors").items()}
        for k in (0, 1, 2)
    ]
    assert shapes[0] == shapes[2]
    assert shapes[1] == {"1.weight": (10, 64), "1.bias": (10,)}
    assert len(lines(folder)) == 2
    again = run(load_settings(folder / "config.toml"), tmp_path / "again").folder
    assert lines(again) == lines(folder)


def test_a_seed_set_joins_the_training_data_of_an_algorithm_that_has_no_other_use_for_it(start: Start) -> None:
    """With one epoch in batches of one, a client's steps are its private examples and the 20 of the seed set."""
    taken: list[Experiment] = []

    class Look(SilentRun):
        def begin(self, experiment: Experiment, folder: Path, records: list[Record]) -> None:
            taken.append(experiment)

    start("rounds=1", "algorithm.seed_examples_per_client=2", watch=Look())
    experiment = taken[0]
    assert {len(experiment.plan.clients[c]) - len(experiment.clients[c]) for c in experiment.plan.ids} == {20}


POPULATION = """
rounds = 3
[data]
source = "synthetic"
num_clients = 30000
[model]
name = "logistic"
[algorithm]
name = "scaffold"
lr = 0.05
[cohort]
size = 4
"""


def test_of_a_large_population_those_asked_first_are_described(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Three rounds of four clients, and almost none of the other 29,988 is made."""
    made: set[str] = set()
    make = Synthetic.__getitem__
    monkeypatch.setattr(Synthetic, "__getitem__", lambda self, c: (self.test or made.add(c), make(self, c))[1])
    folder = run(load_settings(written(tmp_path, POPULATION)), tmp_path / "run").folder
    described = json.loads((folder / "clients.json").read_text())
    asked = [c["id"] for c in described]
    assert len(asked) == len(set(asked)) == 12
    assert sum(described[0]["label_counts"].values()) == described[0]["examples"]
    assert len(made - set(asked)) <= 11  # the first client, whose shape the model takes, and ten that are looked at
    assert json.loads((folder / "summary.json").read_text())["clients"] == 30000
    sentence = clients_sentence(described, 30000)
    assert sentence is not None
    assert "30,000 clients; those that were asked first are shown. 12 clients with" in sentence
    monkeypatch.setattr(build_module, "MAX_DESCRIBED_CLIENTS", 5)
    few = run(load_settings(written(tmp_path, POPULATION)), tmp_path / "few").folder
    assert [c["id"] for c in json.loads((few / "clients.json").read_text())] == asked[:5]


def test_robust_rules_and_attacks_are_a_matter_of_the_file(start: Start) -> None:
    """Two of ten clients send ten times the opposite of what others learnt: the median shrugs, the mean does not."""
    options = ("rounds=12", "data.partition=iid", "cohort.size=10", "algorithm.local_epochs=5", "attack.num_clients=2")
    attack = ("attack.name=ipm", "attack.factor=10.0")
    robust = start(*options, *attack, "aggregation.name=median", out="robust").summary
    mean = start(*options, *attack, out="mean").summary
    assert robust["test_accuracy"] > 0.7 > 0.4 > mean["test_accuracy"]


def test_probes_are_a_matter_of_the_file_and_survive_a_stop(start: Start) -> None:
    """What they measure is on record, round by round; the run says what they cost."""
    probe = ('probe.names=["drift", "direction", "gain"]', "probe.every=2", "rounds=5")
    whole = start(*probe, out="whole").folder
    found = {r["round"]: {k for k in r if k.startswith("probe.")} for r in lines(whole)}
    assert {round for round, measures in found.items() if measures} == {1, 2, 4, 5}
    assert {"probe.dispersion", "probe.direction", "probe.gain"} <= found[4]
    assert tomllib.loads((whole / "config.toml").read_text())["probe"]["examples"] == 1000
    watch = StopAfter(3)
    with pytest.raises(KeyboardInterrupt):
        start(*probe, out="parts", watch=watch)
    (sentence,) = watch.said
    assert sentence.startswith("the first round, the last, and one in 2 are probed, and keep the updates of ")
    same(whole, start(*probe, out="parts", resume=True).folder)
    assert "probe" not in tomllib.loads((start(out="plain").folder / "config.toml").read_text())


def test_a_full_disk_is_one_sentence_and_the_run_can_go_on(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = start("rounds=5", out="whole").folder

    def full(handle: int) -> None:
        raise OSError(28, "No space left on device")

    class FullAfter(SilentRun):
        def round(self, record: Record) -> None:
            if record["round"] == 3:
                monkeypatch.setattr("os.fsync", full)

    with pytest.raises(Mistake, match=r"cannot be written \(No space left on device\); .*--resume"):
        start("rounds=5", watch=FullAfter())
    monkeypatch.undo()
    same(whole, start("rounds=5", resume=True).folder)


WRONG: list[tuple[str, str]] = [
    ("algorithm.lr=-0.1", "algorithm.lr = -0.1: it must be a number above 0"),
    ("algorithm.lr=nan", "algorithm.lr = nan: it must be a number above 0"),
    ("algorithm.momentum=1.0", "algorithm.momentum = 1.0: it must be a number from 0 to below 1"),
    ("algorithm.batch_size=0", 'algorithm.batch_size = 0: it must be a whole number, 1 or more, or "full"'),
    ("data.num_clients=2000", "data.num_clients = 2000: "),
    ("data.labels_per_client=11", "data.labels_per_client = 11: "),
    ("cohort.size=11", "cohort.size = 11: there are 10 clients; lower it to 10 or less"),
    ("data={source='digits', partition='dirichlet', num_clients=5, alpha=0}", "data.alpha = 0"),
    ("data={source='digits', partition='shards', num_clients=5, shards_per_client=1000}", "data.num_clients = 5: "),
    ("data={source='digits', partition='iid'}", "data.num_clients: missing"),
    ("data={source='digits', partition='natural'}", 'data.partition = "natural"'),
    ("data={source='digits', partition='iid', num_clients=5, test_fraction=1.5}", "data.test_fraction = 1.5"),
    ("data={source='npz', path='absent.npz', partition='iid', num_clients=5}", "there is no such file"),
    ("data={source='npz', path='no_y.npz', partition='iid', num_clients=5}", 'holds no array "y"'),
    ("data={source='npz', path='nan.npz', partition='iid', num_clients=5}", "holds nan"),
    (
        "data={source='npz', path='one_hot.npz', partition='iid', num_clients=5}",
        "do not fit labels of shape [2, 3]",
    ),
    ("data={source='npz', path='whole.npz', partition='iid', num_clients=5}", "[3], which are whole numbers"),
    ("model.name=char_lstm", 'model.name = "char_lstm": it takes sequences'),
    ("model={name='own_wrong_model:too_few'}", "gives 3 outputs for 10 classes"),
    ("model={name='own_wrong_model:misfit'}", "cannot take examples of shape [1, 8, 8]"),
    ("model={name='own_wrong_model:pair'}", 'model.name = "own_wrong_model:pair": its forward returns a tuple'),
    ("model={name='own_wrong_model:counter'}", 'model.name = "own_wrong_model:counter": its attribute calls changes'),
    ("model={name='own_wrong_model:frozen'}", 'model.name = "own_wrong_model:frozen": nothing in it can be trained'),
    ("model={name='own_wrong_model:raises'}", 'model.name = "own_wrong_model:raises": it cannot be made: KeyError'),
    ("model={name='mlp', hidden=[1000000000]}", "hidden = [1000000000]"),
    ("engine.device=warp", 'engine.device = "warp": cannot be used here'),
    ("engine={name='sequential', chunk=3}", "engine.chunk = 3"),
    ("engine={device='meta', workers=2}", "engine.workers = 2: each process needs a device of its own"),
    ("aggregation={name='krum', num_byzantine=3}", "aggregation.num_byzantine = 3: "),
    ("attack={name='sign_flip', num_clients=10}", "attack.num_clients = 10: "),
    ("model.names=['mlp', 'logistic']", "fedavg has one model for all clients"),
    ("algorithm={name='fedh2l', lr=0.1}", "algorithm.seed_examples_per_client is missing; fedh2l needs a seed set"),
    ("algorithm={name='fedmd', lr=0.1}", "algorithm.seed_examples_per_client is missing; fedmd needs a seed set"),
    ("algorithm.seed_examples_per_client=1000", "algorithm.seed_examples_per_client = 1000: "),
    ("algorithm={name='scaffold', lr=0.1, momentum=0.9}", "algorithm.momentum = 0.9: it must be 0 with scaffold"),
]


@pytest.mark.parametrize(("override", "sentence"), WRONG, ids=[w[0] for w in WRONG])
def test_nothing_is_written_on_a_mistake(tmp_path: Path, start: Start, override: str, sentence: str) -> None:
    x, y = np.zeros((30, 3)), np.arange(30) % 3
    np.savez(tmp_path / "no_y.npz", x=x)
    np.savez(tmp_path / "nan.npz", x=np.where(np.arange(90).reshape(30, 3) == 7, np.nan, x), y=y)
    np.savez(tmp_path / "one_hot.npz", x=x, y=np.eye(3, dtype=int)[y])
    np.savez(tmp_path / "whole.npz", x=x.astype(int), y=y)
    (tmp_path / "own_wrong_model.py").write_text(
        "from torch import nn\n"
        "def too_few(): return nn.Sequential(nn.Flatten(), nn.Linear(64, 3))\n"
        "def misfit(num_classes): return nn.Linear(5, num_classes)\n"
        "class Pair(nn.Linear):\n"
        "    def forward(self, x): return super().forward(x.flatten(1)), x\n"
        "def pair(): return Pair(64, 10)\n"
        "class Counter(nn.Linear):\n"
        "    calls = 0\n"
        "    def forward(self, x): self.calls += 1; return super().forward(x.flatten(1))\n"
        "def counter(): return Counter(64, 10)\n"
        "def frozen(): return nn.Linear(64, 10).requires_grad_(False)\n"
        "def raises(): raise KeyError('width')\n"
    )
    with pytest.raises(Mistake) as caught:
        start(override)
    assert sentence in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "run").exists()


def test_a_mistake_that_only_the_first_round_finds_is_withdrawn_too(
    tmp_path: Path, start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*arguments: object, **options: object) -> None:
        raise Mistake("the first round cannot be")

    monkeypatch.setattr(shared_run, "federate", refused)
    with pytest.raises(Mistake, match="the first round cannot be"):
        start(out="new/run")
    assert not (tmp_path / "new").exists()


def test_a_truncated_file_of_mnist_is_named(start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COTERIE_DATA", str(tmp_path / "data"))
    (tmp_path / "data" / "mnist").mkdir(parents=True)
    for name in ("train-images-idx3", "train-labels-idx1", "t10k-images-idx3", "t10k-labels-idx1"):
        (tmp_path / "data" / "mnist" / f"{name}-ubyte.gz").write_bytes(b"\x1f\x8b\x08\x00half a file")
    with pytest.raises(Mistake, match=r"train-images-idx3-ubyte\.gz: is not a complete gzip file"):
        start("data.source=mnist")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(("warm_start", "said"), [(2, []), (3, ["algorithm.warm_start = 3 with rounds = 3"])])
def test_a_run_that_would_only_measure_says_so(tmp_path: Path, warm_start: int, said: list[str]) -> None:
    text = DIGITS.replace('"fedavg"', f'"fbn"\nlocal_steps = 1\nwarm_start = {warm_start}').replace(
        '"mlp"\nhidden = [16]', '"resnet20"'
    )
    remarks = build_experiment(load_settings(written(tmp_path, text)), this_machine()).remarks
    assert [sentence.split(":")[0] for sentence in remarks] == said
