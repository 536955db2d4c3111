"""Files, overrides and folders that nobody should give, and what the command says: one sentence, with status 2."""

import os
import socket
from pathlib import Path

import pytest

from tests.cli.mutations import call, write_data
from tests.experiment.files import DIGITS, written

RUN = ["run", "digits.toml"]
LIMIT_SECONDS = 20.0


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Make a working directory that holds only the digits experiment."""
    monkeypatch.chdir(tmp_path)
    return written(tmp_path)


def refuse(*arguments: str) -> str:
    """Run a command that is refused; return its sentence."""
    outcome = call(list(arguments), LIMIT_SECONDS)
    assert (outcome.status, outcome.out) == (2, ""), outcome
    (sentence,) = outcome.err.splitlines()
    assert sentence.isprintable()
    assert not Path("runs").exists()
    return sentence


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"", "data.source is missing"),
        (DIGITS.encode("utf-16"), "digits.toml: is text in UTF-16; save it as UTF-8"),
        (b"\x7fELF\x02\x01\x01\x00\xff\xff", "digits.toml: is not text in UTF-8"),
        (b"rounds = \0", "digits.toml: is not valid TOML"),
        (b"#" * 9_000_000, "digits.toml: is larger than 8 MiB"),
        (b"rounds = " + b"9" * 5000, "digits.toml: is not valid TOML: a whole number is too large"),
        (b"rounds = 0x" + b"f" * 5000, "digits.toml: rounds: the whole number is too large"),
        (b"rounds = " + b"9" * 20, "digits.toml: rounds: the whole number is too large"),
        (b"a = " + b"[" * 5000 + b"]" * 5000, "nested more than 50 deep"),
        (b"[" + b".".join([b"a"] * 300) + b"]", "nested more than 50 deep"),
        (b"a.b = 1\na.b.c = 2", "digits.toml: is not valid TOML"),
        (b'[data]\nsource = "a\\u0000b"', "digits.toml: data.source: holds the character NUL"),
        (b"[algorithm]\nlr = 1e308", "digits.toml: algorithm.lr: the number is too large"),
        (DIGITS.encode() + b'"\\u001b[31m\\u202e" = 1', "cohort.\\x1b[31m\\u202e = 1: there is no such key"),
    ],
    ids=lambda value: None if isinstance(value, str) else value[:12].decode("latin-1"),
)
def test_a_file_that_nobody_should_give_is_answered_in_a_sentence(content: bytes, sentence: str) -> None:
    Path("digits.toml").write_bytes(content)
    assert sentence in refuse(*RUN)
    assert refuse("data", "show", "digits.toml")
    assert refuse("pretrain", "digits.toml")


def test_a_file_that_begins_with_a_byte_order_mark_is_read() -> None:
    Path("digits.toml").write_bytes(b"\xef\xbb\xbf" + DIGITS.replace("rounds = 3", "rounds = 1").encode())
    assert call(RUN, LIMIT_SECONDS).status == 0


def test_what_is_no_file_is_not_waited_for() -> None:
    os.mkfifo("pipe.toml")
    Path("folder.toml").mkdir()
    Path("circle.toml").symlink_to("circle.toml")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind("socket.toml")
        for name in ("pipe", "folder", "circle", "socket"):
            assert f"{name}.toml: " in refuse("run", f"{name}.toml")
    assert "/dev/zero: is a pipe, a socket or a device" in refuse("run", "/dev/zero")


@pytest.mark.parametrize(
    "override",
    [
        *(
            "=",
            "a=",
            "=1",
            "model.name",
            "a.b.c.d=1",
            "rounds=1e3",
            "rounds=true",
            "rounds=[",
            "rounds='",
            'rounds="""',
        ),
        *("rounds=1979-05-27", "rounds=nan", "rounds=-inf", "rounds=[1, 'a']", "rounds={a=1}", "rounds=" + "9" * 5000),
        *("rounds=1\nrounds=2", "x=\x1b[31m", "model.name=\udcff", "data.source=\ud800", "model=1", "[data]=1"),
        *("data.num_clients=1000000000000", "data.num_clients=" + "[" * 999, "algorithm.lr=[0.1]", "engine.workers=0"),
        *(
            "engine.workers=1000000000",
            "engine.workers=-1",
            "engine.workers=two",
            "engine.dtype=int8",
            "engine.chunk=0",
        ),
        *("engine.device=cuda:99", "engine.device=meta", "engine.device=", "engine.device=cpu:7:7", "engine.device=ü"),
        *("engine.name=fast", "engine.compile=2", "cohort=[]", "evaluate.every=1e300", "rng_seed=-1", "rng_seed=0.5"),
    ],
)
def test_an_override_of_an_odd_form_is_answered_in_a_sentence(override: str) -> None:
    assert len(refuse(*RUN, override)) < 500


@pytest.mark.parametrize(
    ("override", "sentence"),
    [
        ("algorithm.local_epochs=100000000000", "algorithm.local_epochs = 100000000000: the batches of one client"),
        ("algorithm.local_steps=1000000000000", "algorithm.local_steps = 1000000000000: the batches of one client"),
        ("rounds=1000000000000000000", "rounds = 1000000000000000000: the run would take about "),
        ("data.num_clients=1000000000", "data.num_clients = 1000000000: one example each would take"),
        ("data={source='synthetic', num_clients=10000000000}", "holds the ids of "),
        ("data={source='synthetic', num_clients=3, num_features=1000000000000}", "data.num_features = 1000000000000"),
        ("data={source='synthetic', num_clients=3, num_classes=1000000000000}", "data.num_classes = 1000000000000"),
        ("data={source='synthetic', num_clients=3, examples_per_client=1000000000000}", "data.examples_per_client = "),
        ("engine.workers=1000000000", "engine.workers = 1000000000: so many processes do not fit"),
    ],
)
def test_work_that_never_ends_is_refused_with_the_key_to_lower(override: str, sentence: str) -> None:
    assert sentence in refuse(*RUN, override)


@pytest.mark.parametrize("key", ["data.source", "data.partition", "aggregation.name", "attack.name", "model.name"])
@pytest.mark.parametrize("name", ["math:sqrt", "os:system", ":", "a:", ":b", "..:x", "no.such:thing", "ü:ü", "a:b:c"])
def test_a_name_that_means_nothing_of_ours_is_refused(key: str, name: str) -> None:
    assert key in refuse(*RUN, f'{key}="{name}"')


def test_names_in_lists_are_refused_too() -> None:
    assert "probe.names" in refuse(*RUN, 'probe.names=["math:sqrt"]')
    assert "aggregation.pre" in refuse(*RUN, 'aggregation.pre=["math:sqrt"]')
    assert "seed_set.source" in refuse(*RUN, 'seed_set.source="math:sqrt"')
    assert "algorithm.name" in refuse(*RUN, 'algorithm.name="math:sqrt"')


@pytest.mark.parametrize(
    "out", ["digits.toml", "digits.toml/run", "a" * 300, "x/" * 3000, "circle", "/proc/run", "/dev/null", "", "."]
)
def test_a_folder_that_cannot_be_one_is_refused_before_the_run(out: str) -> None:
    Path("circle").symlink_to("circle")
    assert refuse(*RUN, "--out", out)


def test_a_run_needs_no_home_and_no_place_for_temporary_files(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HOME", raising=False)
    monkeypatch.setenv("TMPDIR", "/absent")
    assert call([*RUN, "rounds=1"], LIMIT_SECONDS).status == 0


@pytest.mark.parametrize("arguments", [["run", "x", "--frob"], ["dance"], ["run", "x", "--workers", "two"], ["run"]])
def test_a_wrong_use_is_answered_in_a_sentence_that_names_the_help(arguments: list[str]) -> None:
    assert "--help` says how it is used" in refuse(*arguments)


@pytest.mark.parametrize("command", ["report", "compare", "predict", "probe line", "probe curvature", "probe plane"])
def test_commands_on_folders_refuse_what_is_none(command: str) -> None:
    write_data(Path())
    for odd in ("", ".", "absent", "digits.toml", "a" * 300, "nul\x1b[31m", "/dev/null", "wards.csv/x"):
        number = {"predict": 2, "probe line": 2, "probe plane": 3}.get(command, 1)
        assert refuse(*command.split(), *([odd] * number))
