"""What a file may say: defaults, overrides, and one sentence for each thing that it may not."""

import tomllib
from pathlib import Path

import pytest

from coterie import Mistake
from coterie.experiment.pretraining_settings import load_pretraining
from coterie.experiment.settings import load_settings, parse_settings
from coterie.experiment.stages import load_stages
from coterie.experiment.toml_file import apply_overrides, has_stages
from tests.experiment.files import DIGITS, written

ROOT = Path(__file__).parents[2]


def test_defaults_are_those_of_the_public_face(tmp_path: Path) -> None:
    tables = load_settings(written(tmp_path)).tables()
    assert (tables["rng_seed"], tables["rounds"]) == (0, 3)
    assert tables["data"]["test_fraction"] == 0.2
    expected = {"local_epochs": 1, "batch_size": 32, "momentum": 0.0, "weight_decay": 0.0, "lr_decay": 1.0}
    assert expected.items() <= tables["algorithm"].items()
    assert "clip_norm" not in tables["algorithm"]
    assert tables["aggregation"] == {"name": "mean"}
    assert tables["attack"] == {"name": "none"}
    assert tables["evaluate"] == {"every": 1, "clients": False}
    assert tables["engine"]["name"] == "auto"
    assert tables["faults"]["drop"] == 0


def test_without_a_cohort_table_everyone_takes_part(tmp_path: Path) -> None:
    settings = load_settings(written(tmp_path, DIGITS.replace("[cohort]\nfraction = 0.5", "")))
    assert settings.cohort.count(17) == 17
    assert settings.tables()["cohort"] == {"sampling": "uniform"}


@pytest.mark.parametrize(
    ("override", "table", "key", "value"),
    [
        ("rounds=7", None, "rounds", 7),
        ("algorithm.lr=1", "algorithm", "lr", 1.0),
        ("algorithm.lr=1e-2", "algorithm", "lr", 0.01),
        ("algorithm.name=scaffold", "algorithm", "name", "scaffold"),
        ('algorithm.name="scaffold"', "algorithm", "name", "scaffold"),
        ("algorithm.batch_size=full", "algorithm", "batch_size", "full"),
        ("model.name=2nn", "model", "name", "2nn"),
        ("model.hidden=[4, 5]", "model", "hidden", [4, 5]),
        ("evaluate.clients=true", "evaluate", "clients", True),
        ("cohort.size=4", "cohort", "size", 4),
    ],
)
def test_overrides_are_read_as_toml_and_a_bare_word_as_text(
    tmp_path: Path, override: str, table: str | None, key: str, value: object
) -> None:
    tables = load_settings(written(tmp_path), [override]).tables()
    assert (tables if table is None else tables[table])[key] == value


def test_an_override_of_a_choice_takes_the_old_choices_keys_with_it(tmp_path: Path) -> None:
    path = written(tmp_path, DIGITS.replace('"fedavg"', '"scaffold"\nobjective = "clients"'))
    tables = load_settings(
        path, ["algorithm.name=fedavg", "data.partition=dirichlet", "data.alpha=1", "model.name=2nn"]
    ).tables()
    assert "objective" not in tables["algorithm"]
    assert "labels_per_client" not in tables["data"]
    assert tables["data"]["alpha"] == 1.0
    assert "hidden" not in tables["model"]
    assert load_settings(path, ["cohort.size=2"]).tables()["cohort"] == {"size": 2, "sampling": "uniform"}
    assert "num_clients" not in load_settings(path, ["data.partition=natural"]).tables()["data"]
    stepping = written(tmp_path, DIGITS.replace("lr = 0.1", "lr = 0.1\nlocal_steps = 3"))
    assert "local_steps" not in load_settings(stepping, ["algorithm.local_epochs=2"]).tables()["algorithm"]


def test_an_attack_can_be_called_off(tmp_path: Path) -> None:
    path = written(tmp_path, DIGITS + '[attack]\nname = "ipm"\nnum_clients = 2\nfactor = 3\n')
    assert load_settings(path).tables()["attack"] == {
        "name": "ipm",
        "num_clients": 2,
        "on": "update",
        "factor": 3.0,
        "line_search": False,
    }
    assert load_settings(path, ["attack.name=none"]).tables()["attack"] == {"name": "none"}


def test_a_model_for_each_client_replaces_one_for_all(tmp_path: Path) -> None:
    path = written(tmp_path)
    assert load_settings(path, ["model.names=['mlp', '2nn']"]).tables()["model"] == {"names": ["mlp", "2nn"]}


def test_an_override_does_not_excuse_a_misspelt_key_of_the_file(tmp_path: Path) -> None:
    path = written(tmp_path, DIGITS.replace("lr = 0.1", "lr = 0.1\nmometum = 0.9"))
    with pytest.raises(Mistake, match=r"algorithm\.mometum = 0\.9: .*did you mean algorithm\.momentum\?"):
        load_settings(path, ["algorithm.name=scaffold"])


MISTAKES = [
    ("algorithm.mometum=0.9", "algorithm.mometum = 0.9: there is no such key; did you mean algorithm.momentum?"),
    ("algorithm.zebra=1", "algorithm.zebra = 1: there is no such key; [algorithm] takes name, "),
    ("algoritm.lr=1", "[algoritm]: there is no such table; did you mean [algorithm]?"),
    ("round=3", "round = 3: there is no such key; did you mean rounds?"),
    ("lr=0.1", "lr = 0.1: there is no such key; did you mean algorithm.lr?"),
    ("data.fraction=0.1", "data.fraction = 0.1: there is no such key; did you mean "),
    ("rounds=0", "rounds = 0: it must be a whole number, 1 or more"),
    ("rounds=-3", "rounds = -3: it must be a whole number, 1 or more"),
    ("rounds=true", "rounds = true: it must be a whole number"),
    ("rounds=2.0", "rounds = 2.0: it must be a whole number"),
    ('rounds="2"', 'rounds = "2": it must be a whole number'),
    ("rng_seed=-1", "rng_seed = -1: it must be a whole number, 0 or more"),
    ('algorithm.lr="0.1"', 'algorithm.lr = "0.1": it must be a number'),
    ("algorithm.lr=true", "algorithm.lr = true: it must be a number"),
    ("algorithm.batch_size=half", 'algorithm.batch_size = "half": it must be a whole number, 1 or more, or "full"'),
    ("algorithm.name=fedavgg", 'algorithm.name = "fedavgg": did you mean "fedavg"?'),
    (
        "algorithm.server=adam",
        'algorithm.server = "adam": a server optimiser is given from Python; in a file it is chosen',
    ),
    ("algorithm.name=3", "algorithm.name = 3: it must be text in quotes"),
    ("model.name=mpl", 'model.name = "mpl": did you mean "mlp"?'),
    ("model.hidden=[3, true]", "model.hidden = [3, true]: it must be a list, of whole numbers"),
    ("model=2nn", 'model = "2nn": it must be a table, [model]'),
    ("data.source=minst", 'data.source = "minst": did you mean "mnist"?'),
    ("data.partition=shard", 'data.partition = "shard": did you mean "shards"? It must be one of iid, shards'),
    ("data.alpha=0.1", 'data.alpha = 0.1: the partition "label" does not take it; it belongs to dirichlet'),
    ("data.num_clients=many", 'data.num_clients = "many": it must be a whole number'),
    ("cohort.fraction=1.5", "cohort.fraction = 1.5: it must be a number from 0 to 1"),
    ("cohort.fraction=nan", "cohort.fraction = nan: it must be a number from 0 to 1"),
    ("cohort={fraction=0.5, size=3}", "cohort.fraction and cohort.size are both given"),
    ("aggregation.name=medan", 'aggregation.name = "medan": did you mean "median"?'),
    ("aggregation.pre=nnm", 'aggregation.pre = "nnm": it must be a list, of text in quotes'),
    ('aggregation.pre=["nmm"]', 'aggregation.pre = "nmm": did you mean "nnm"?'),
    ("aggregation.name=krum", "aggregation.num_byzantine is missing; it must be a whole number"),
    ("aggregation.num_byzantine=2", "aggregation.num_byzantine = 2: there is no such key"),
    ("attack.num_clients=2", "attack.name is missing; it must be one of alie, "),
    ("attack.name=sign_flop", 'attack.name = "sign_flop": did you mean "sign_flip"?'),
    ("attack.name=sign_flip", "attack.num_clients is missing; it must be a whole number"),
    ("data.augment=flop", 'data.augment = "flop": it must be "none", "crop", "flip" or "crop_flip"'),
    ("algorithm.seed_examples_per_client=0", "algorithm.seed_examples_per_client = 0: it must be a whole number, 1 or"),
    ("model.names=[]", "model.names = []: it must be a list, of text in quotes, 1 or more of them"),
    ("model={name='mlp', names=['mlp']}", "model.name and model.names are both given"),
    ("model.names=['mlp', 'ccn']", 'model.names = "ccn": did you mean "cnn"?'),
    ("engine.compile=maybe", 'engine.compile = "maybe": it must be true or false, or "auto"'),
    ("evaluate.every=0", "evaluate.every = 0: it must be a whole number, 1 or more"),
    ("evaluate.target_accuracy=97", "evaluate.target_accuracy = 97: it must be a number above 0 and at most 1"),
    ("evaluate.target_accuracy=nan", "evaluate.target_accuracy = nan: it must be a number above 0 and at most 1"),
    ("evaluate.clients=yes", 'evaluate.clients = "yes": it must be true or false'),
    ("engine.name=vectorized", 'engine.name = "vectorized": it must be "auto", "sequential" or "vectorised"'),
    ("engine.dtype=float16", 'engine.dtype = "float16": it must be "float32" or "float64"'),
    ("faults.drop=1.1", "faults.drop = 1.1: it must be a number from 0 to 1"),
    ("rounds", '"rounds": an override is written table.key=value'),
    ("rounds=", '"rounds=": an override is written table.key=value'),
    ("a.b.c=1", '"a.b.c=1": an override is written table.key=value'),
    ("rounds.x=1", '"rounds.x=1": rounds is not a table in the file'),
    ("model.hidden=[1,", "is not valid TOML"),
]


@pytest.mark.parametrize(("override", "sentence"), MISTAKES, ids=[m[0] for m in MISTAKES])
def test_a_mistake_is_answered_by_one_sentence(tmp_path: Path, override: str, sentence: str) -> None:
    with pytest.raises(Mistake) as caught:
        load_settings(written(tmp_path), [override])
    assert sentence in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        ("rounds = 3", "rounds is missing; it must be a whole number, 1 or more"),
        ('source = "digits"', "data.source is missing; it must be one of digits, mnist, "),
        ("lr = 0.1", "algorithm.lr is missing; it must be a number"),
        ('name = "fedavg"', "algorithm.name is missing; it must be one of centralized, "),
        ('name = "mlp"', "model.name is missing; it must be one of 2nn, char_lstm, "),
    ],
)
def test_what_is_required_is_missed(tmp_path: Path, line: str, sentence: str) -> None:
    with pytest.raises(Mistake) as caught:
        load_settings(written(tmp_path, DIGITS.replace(line, "")))
    assert str(caught.value).startswith(sentence)


def test_a_file_that_is_no_toml_is_answered_with_the_line(tmp_path: Path) -> None:
    with pytest.raises(Mistake, match=r"digits\.toml: is not valid TOML: .*line 3"):
        load_settings(written(tmp_path, "rounds = 3\n[data]\nsource digits\n"))


@pytest.mark.parametrize("content", [None, b"\xff\xfe\x00"])
def test_a_file_that_cannot_be_read_is_named(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "absent.toml"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(Mistake, match=r"absent\.toml: "):
        load_settings(path)


def test_relative_paths_are_the_files_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The TOML's folder comes first, then the working directory; a path that is in neither is the former's."""
    here, there = tmp_path / "here", tmp_path / "there"
    for folder, names in ((here, ("a.npz", "b.npz")), (there, ("a.npz",))):
        folder.mkdir()
        for name in names:
            (folder / name).touch()
    monkeypatch.chdir(here)
    text = DIGITS.replace('"digits"', '"npz"\npath = "PATH"')
    found = [
        load_settings(written(there, text.replace("PATH", name))).data["path"] for name in ("a.npz", "b.npz", "c.npz")
    ]
    assert found == [str(there / "a.npz"), str(here / "b.npz"), str(there / "c.npz")]


def test_an_override_leaves_the_content_it_was_given_alone() -> None:
    raw = {"cohort": {"size": 3}}
    assert apply_overrides(raw, ["cohort.size=4"]) == ({"cohort": {"size": 4}}, {"cohort.size"})
    assert raw == {"cohort": {"size": 3}}


OWN = """
from torch import nn
from coterie import fedavg
def small(in_shape, num_classes, width: int = 4):
    return nn.Sequential(nn.Flatten(), nn.Linear(64, width), nn.Linear(width, num_classes))
def mine(*, lr: float, boldness: float = 2.0):
    return fedavg(lr=lr * boldness)
"""


def test_functions_of_the_users_own_bring_their_keys(tmp_path: Path) -> None:
    (tmp_path / "my_parts.py").write_text(OWN)
    path = written(tmp_path)
    tables = load_settings(path, ["model.name=my_parts:small", "algorithm.name=my_parts:mine"]).tables()
    assert tables["model"] == {"name": "my_parts:small", "width": 4}
    assert tables["algorithm"] == {"name": "my_parts:mine", "lr": 0.1, "boldness": 2.0}
    with pytest.raises(Mistake, match=r"did you mean algorithm\.boldness"):
        load_settings(path, ["algorithm.name=my_parts:mine", "algorithm.boldnes=1"])


def test_two_folders_may_hold_modules_of_the_same_name(tmp_path: Path) -> None:
    for width in (3, 5):
        folder = tmp_path / str(width)
        folder.mkdir()
        (folder / "namesake.py").write_text(OWN.replace("width: int = 4", f"width: int = {width}"))
        tables = load_settings(written(folder), ["model.name=namesake:small"]).tables()
        assert tables["model"]["width"] == width


@pytest.mark.parametrize("name", ["nowhere_at_all:f", "my_parts:absent", "broken_parts:f", "my_parts:"])
def test_a_function_that_is_not_there_is_a_mistake(tmp_path: Path, name: str) -> None:
    (tmp_path / "my_parts.py").write_text(OWN)
    (tmp_path / "broken_parts.py").write_text("def f(:\n")
    with pytest.raises(Mistake, match=r'model\.name = "'):
        load_settings(written(tmp_path), [f"model.name={name}"])


def test_what_a_run_writes_for_the_reader_is_ignored() -> None:
    raw, _ = apply_overrides({}, [])
    text = {"rounds": 1, "data": {"source": "digits"}, "model": {"name": "mlp"}}
    content = raw | text | {"algorithm": {"name": "fedsgd", "lr": 1.0}, "versions": {"torch": "0"}}
    assert parse_settings(content, [Path.cwd()]).rounds == 1


@pytest.mark.parametrize("path", sorted((ROOT / "experiments").glob("*.toml")), ids=lambda path: path.stem)
def test_every_experiment_of_the_project_is_valid(path: Path) -> None:
    """Those that train an encoder on fractals are read by `coterie pretrain`, and chains stage by stage."""
    if has_stages(path):
        assert len(load_stages(path)) > 1
    elif "algorithm" in tomllib.loads(path.read_text()):
        assert load_settings(path).rounds > 0
    else:
        assert load_pretraining(path).pretrain.minutes
