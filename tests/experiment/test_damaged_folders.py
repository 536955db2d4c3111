"""Whatever happens to a file of a run folder, a command says the right thing or says what is wrong; no traceback."""

import contextlib
import io
import json
import random
import shutil
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import count, islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import typer
from torch import nn

from coterie.cli import main as cli
from coterie.cli import probe_commands
from coterie.core.errors import FolderGone, Mistake
from coterie.experiment.finished_run import load_finished_run
from coterie.experiment.folder_jobs import Outcome
from coterie.experiment.run import RunWatch, SilentRun, run
from coterie.experiment.save_checkpoints import CheckpointSaver
from coterie.experiment.settings import load_settings
from coterie.experiment.trained_model import load_trained_model
from coterie.pretrain.pretrained_weights import load_weights_file
from coterie.report import compare_runs, write_report
from coterie.track.checksums import find_damage
from coterie.track.rounds_file import Record
from tests.experiment.files import written

TINY = """
rounds = 4
[data]
source = "npz"
path = "rows.npz"
num_clients = 2
[model]
name = "logistic"
[algorithm]
name = "scaffold"
lr = 0.1
local_steps = 1
"""
EVERY = {"report": 2, "run": 2, "probe": 4}
"""Commands that take long are called for every second mutation, or every fourth; a file has seven, an odd number."""
PARTS = 3
"""The mutations are taken in turn by so many tests, the first of which is not long."""
JSON_VALUES = [b"{}", b"[]", b"null", b"1", b'"text"', b"[1, 2]", b"[[[]]]", b'{"round": 1}', b"NaN", b"[" * 5000]


class Stop(SilentRun):
    """Ends a run as Ctrl-C does after its second round."""

    def round(self, record: Record) -> None:
        if record["round"] == 2:
            raise KeyboardInterrupt


@pytest.fixture(scope="module", autouse=True)
def quick_pages() -> Iterator[None]:
    """Charts take most of a report's time, and no damage of a file is found by drawing them."""
    with pytest.MonkeyPatch.context() as patch:
        for module in ("charts", "clients_chart"):
            patch.setattr(f"coterie.report.{module}.draw_svg", lambda draw, size, label: "<svg></svg>")
        yield


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory, quick_pages: None) -> Path:
    """A folder with an experiment, its run in `done`, and one that was stopped after two rounds in `stopped`."""
    home = tmp_path_factory.mktemp("tiny")
    rng = np.random.default_rng(0)
    np.savez(home / "rows.npz", x=rng.normal(size=(24, 3)).astype(np.float32), y=np.arange(24) % 2)
    settings = load_settings(written(home, TINY, "tiny.toml"))
    run(settings, home / "done")
    with pytest.raises(KeyboardInterrupt):
        run(settings, home / "stopped", watch=Stop())
    return home


@dataclass(frozen=True)
class Ended:
    """How a command ended."""

    status: int
    out: str
    err: str


def ended(command: Callable[[], None]) -> Ended:
    """How a command ends; `main` itself would build all commands again for each of hundreds of calls."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            command()
        except Mistake as mistake:
            return Ended(2, out.getvalue(), f"{err.getvalue()}{mistake}\n")
        except typer.Exit as stopped:
            return Ended(stopped.exit_code, out.getvalue(), err.getvalue())
    return Ended(0, out.getvalue(), err.getvalue())


def without_times(folder: Path) -> dict[str, object]:
    """What a finished run leaves, without what no two runs share."""
    times = ("seconds", "elapsed")
    records = [json.loads(line) for line in (folder / "rounds.jsonl").read_text().splitlines()]
    summary = json.loads((folder / "summary.json").read_text())
    same = ("config.toml", "clients.json", "inputs.json", "model.safetensors")
    return {
        "records": [{k: v for k, v in record.items() if k not in times} for record in records],
        "summary": {k: v for k, v in summary.items() if k not in times},
        **{name: (folder / name).read_bytes() for name in same},
    }


@dataclass(frozen=True)
class Mutation:
    """One change of one file."""

    name: str
    what: str
    change: Callable[[bytes], bytes | None]


def flip(position: float, bit: int) -> Callable[[bytes], bytes]:
    def flipped(data: bytes) -> bytes:
        at = int(position * len(data))
        return data[:at] + bytes([data[at] ^ (1 << bit)]) + data[at + 1 :]

    return flipped


def mutations(folder: Path) -> Iterator[Mutation]:
    """Several changes of every file in the folder, by one rng seed."""
    draw = random.Random(0)
    for path in sorted(p for p in folder.rglob("*") if p.is_file() and p.name != ".lock"):
        name = path.relative_to(folder).as_posix()
        for _ in range(2):
            position, bit = draw.random(), draw.randrange(8)
            yield Mutation(name, f"bit {bit} at {position}", flip(position, bit))
        cut = draw.random()
        yield Mutation(name, f"cut at {cut}", lambda data, cut=cut: data[: int(cut * len(data))])
        yield Mutation(name, "empty", lambda data: b"")
        yield Mutation(name, "gone", lambda data: None)
        for value in draw.sample(JSON_VALUES, 2):
            yield Mutation(name, f"replaced by {value[:20]!r}", lambda data, value=value: value)
        if name.endswith(".jsonl"):
            yield Mutation(name, "a line less", lambda data: b"".join(data.splitlines(keepends=True)[1:]))
            yield Mutation(name, "two lines changed about", lambda d: b"".join(reversed(d.splitlines(keepends=True))))


def is_sentence(text: str) -> bool:
    notes = text.splitlines()[:-1]
    return text.endswith("\n") and len(text) > 1 and all(line.startswith("note: ") for line in notes)


@pytest.mark.parametrize("part", [0, *(pytest.param(part, marks=pytest.mark.long) for part in range(1, PARTS))])
@pytest.mark.parametrize("state", ["done", "stopped"])
def test_damage_of_any_file_is_mended_or_said(
    state: str, part: int, tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every command ends as it would without the damage, or with a sentence; no result is another one.

    The number of mutations of all parts stands in docs/reliability.md.
    """
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("os.fsync", lambda handle: None)
    home, run_folder, page, table = tiny / state, Path("run"), Path("run/report.html"), Path("p.csv")
    commands: dict[str, tuple[Callable[[], None], Callable[[], object]]] = {
        "compare": (lambda: cli.compare([run_folder, tiny / "done"], Path("c.html")), lambda: None),
        "report": (lambda: cli.report([run_folder]), page.read_bytes),
        "predict": (lambda: cli.predict(run_folder, tiny / "rows.npz", None, table), table.read_bytes),
        "probe": (lambda: probe_commands.curvature([run_folder], examples=9), lambda: None),
        "run": (lambda: cli.run(tiny / "tiny.toml", None, run_folder, True), lambda: without_times(run_folder)),
    }
    right: dict[str, tuple[Ended, object]] = {}
    if state == "stopped":  # these two refuse it in any case
        del commands["predict"], commands["probe"]
    for name, (command, look) in commands.items():
        shutil.rmtree(run_folder, ignore_errors=True)
        shutil.copytree(home, run_folder)
        end = ended(command)
        assert end.status == 0, end
        right[name] = end, look()
    assert right["run"][1] == without_times(tiny / "done")
    problems, statuses, tried = [], Counter[tuple[str, int]](), 0
    for number, mutation in enumerate(islice(mutations(home), part, None, PARTS)):
        original = (home / mutation.name).read_bytes()
        changed = mutation.change(original)
        if changed == original:
            continue
        shutil.rmtree(run_folder)
        shutil.copytree(home, run_folder)
        (run_folder / mutation.name).unlink()
        if changed is not None:
            (run_folder / mutation.name).write_bytes(changed)
        tried += 1
        for name, (command, look) in commands.items():
            if number % EVERY.get(name, 1):
                continue
            try:
                end = ended(command)
            except Exception as error:  # every one is a traceback for the user
                problems.append(f"{mutation.name}, {mutation.what}: {name} raised {error!r}")
                continue
            statuses[name, end.status] += 1
            is_right = name == "run" or end.out == right[name][0].out
            if not (is_right and look() == right[name][1] if end.status == 0 else is_sentence(end.err)):
                problems.append(f"{mutation.name}, {mutation.what}: {name} gave {end}")
    assert not problems, "\n".join(problems)
    assert tried >= 100 // PARTS
    assert statuses["run", 0] > 50 // PARTS
    assert not statuses["run", 2]  # all of it is mended
    assert all(statuses[name, 0] and statuses[name, 2] for name in commands if name != "run"), statuses


@pytest.fixture
def done(tiny: Path, tmp_path: Path) -> Path:
    """A copy of the finished run."""
    return shutil.copytree(tiny / "done", tmp_path / "run")


def resume(tiny: Path, folder: Path, *overrides: str, watch: RunWatch | None = None) -> Outcome:
    return run(load_settings(tiny / "tiny.toml", overrides), folder, resume=True, watch=watch)


def test_one_flipped_bit_in_the_weights_is_refused_by_every_use_of_them(tiny: Path, done: Path) -> None:
    weights = done / "model.safetensors"
    data = bytearray(weights.read_bytes())
    data[-3] ^= 1
    weights.write_bytes(data)
    start = load_settings(tiny / "tiny.toml", [f"pretrain.weights={str(done)!r}"])
    uses: list[Callable[[], object]] = [
        lambda: load_trained_model(done),
        lambda: load_finished_run(done),
        lambda: run(start, done.with_name("next")),
        lambda: load_weights_file(nn.Linear(3, 2), weights),
    ]
    for use in uses:
        with pytest.raises(Mistake, match=r"model\.safetensors: is damaged .* --resume, which mends"):
            use()
    assert resume(tiny, done).ran
    assert without_times(done) == without_times(tiny / "done")
    load_trained_model(done)


def test_a_folder_in_the_place_of_the_report_is_said(tiny: Path, done: Path) -> None:
    (done / "report.html").unlink()
    (done / "report.html").mkdir()
    for write in (lambda: resume(tiny, done), lambda: write_report(done)):
        with pytest.raises(Mistake, match=r"report\.html: cannot be written \(Is a directory\)"):
            write()


def test_the_files_of_a_run_that_starts_from_weights_are_mended_except_these_weights(
    tiny: Path, done: Path, tmp_path: Path
) -> None:
    settings, folder = load_settings(tiny / "tiny.toml", [f"pretrain.weights={str(done)!r}"]), tmp_path / "next"
    run(settings, folder)
    right = without_times(folder)
    for name in ("checksums.json", "start/start.json"):
        (folder / name).write_text("{}")
        run(settings, folder, resume=True)
        assert without_times(folder) == right
        assert not find_damage(folder)
    (folder / "start" / "model.safetensors").write_bytes(b"")
    with pytest.raises(Mistake, match=r"start/model\.safetensors: is damaged .* no checkpoint has a copy; put back"):
        run(settings, folder, resume=True)


def test_a_finished_run_without_damage_is_not_touched_by_a_resume(tiny: Path, done: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in done.rglob("*")}
    assert not resume(tiny, done).ran
    assert {path: path.stat().st_mtime_ns for path in done.rglob("*")} == before


def test_a_damaged_result_without_a_checkpoint_is_not_trained_again_in_silence(tiny: Path, done: Path) -> None:
    shutil.rmtree(done / "checkpoint")
    assert not resume(tiny, done).ran
    (done / "model.safetensors").write_bytes(b"")
    for overrides in ([], ["rounds=6"]):
        with pytest.raises(Mistake, match=r"holds no checkpoint, and model\.safetensors is damaged or gone; put back"):
            resume(tiny, done, *overrides)
    assert len((done / "rounds.jsonl").read_bytes().splitlines()) == 4


def test_a_lost_line_of_an_earlier_version_is_said(tiny: Path, done: Path) -> None:
    """Without checksums and copies, the summary still counts the rounds."""
    (done / "checksums.json").unlink()
    shutil.rmtree(done / "checkpoint")
    records = done / "rounds.jsonl"
    lines = records.read_bytes().splitlines(keepends=True)
    for left, problem in (
        (lines[:3], "counts 4 rounds, and the records 3"),
        ([lines[0], b"{\n", *lines[2:]], "line 2 is"),
    ):
        records.write_bytes(b"".join(left))
        for use in (lambda: write_report(done), lambda: compare_runs([done, tiny / "done"])):
            with pytest.raises(Mistake, match=problem):
                use()


@pytest.mark.parametrize("line", ["7", "[1]", '{"round": 2}', '{"round": true}', '{"round": 2, "seconds": "x"}'])
def test_a_record_of_another_shape_is_a_sentence(tiny: Path, done: Path, line: str) -> None:
    (done / "checksums.json").unlink()
    records = done / "rounds.jsonl"
    lines = records.read_text().splitlines()
    records.write_text("\n".join([lines[0], line, *lines[2:]]) + "\n")
    with pytest.raises(Mistake, match=r"rounds\.jsonl: line 2 is"):
        write_report(done)


class Remove(SilentRun):
    """Removes the run folder, or puts another in its place, after the first round."""

    def __init__(self, folder: Path, replace: bool) -> None:
        self.folder, self.replace = folder, replace

    def round(self, record: Record) -> None:
        shutil.rmtree(self.folder)
        if self.replace:
            self.folder.mkdir()
            (self.folder / "rounds.jsonl").touch()


@pytest.mark.parametrize("replace", [False, True])
def test_a_folder_that_is_removed_during_a_run_ends_it_with_a_sentence(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, replace: bool
) -> None:
    folder = tmp_path / "run"
    wait_for_each_save(monkeypatch)  # or the folder could not be removed while a file is made in it
    with pytest.raises(FolderGone, match="run: was removed or replaced while the run wrote there"):
        run(load_settings(tiny / "tiny.toml"), folder, watch=Remove(folder, replace))
    assert [path.name for path in tmp_path.rglob("*")] == (["run", "rounds.jsonl"] if replace else [])


def test_the_command_ends_with_status_1_where_its_folder_is_removed(
    tiny: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def gone(*arguments: object) -> None:
        raise FolderGone("runs/a")

    monkeypatch.setattr("coterie.experiment.run.run", gone)
    with pytest.raises(SystemExit) as status:
        cli.main(["run", str(tiny / "tiny.toml")])
    assert status.value.code == 1
    assert capsys.readouterr().err.startswith("runs/a: was removed")


def wait_for_each_save(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let nothing be written beside the training."""
    save = CheckpointSaver.save

    def save_and_wait(saver: CheckpointSaver) -> None:
        save(saver)
        saver.wait()

    monkeypatch.setattr(CheckpointSaver, "save", save_and_wait)


def test_a_checkpoint_does_not_make_a_removed_folder_again(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The thread begins to write after the folder went."""
    folder, write = tmp_path / "run", CheckpointSaver._write

    def remove_and_write(*arguments: Any) -> None:
        shutil.rmtree(folder)
        write(*arguments)

    monkeypatch.setattr(CheckpointSaver, "_write", remove_and_write)
    with pytest.raises(FolderGone, match="run: was removed or replaced while the run wrote there"):
        run(load_settings(tiny / "tiny.toml"), folder)
    assert list(tmp_path.iterdir()) == []


class Killed(BaseException):
    """What a test raises where a process could be killed."""


def test_a_kill_between_any_two_writes_costs_nothing(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The run is killed at its first write, at its second, and so on, and its resume is killed in the same way."""
    right, settings = tmp_path / "right", load_settings(tiny / "tiny.toml", ["rounds=2"])
    monkeypatch.setattr("os.fsync", lambda handle: None)
    monkeypatch.setattr(CheckpointSaver, "due", True)
    wait_for_each_save(monkeypatch)  # or a write of the run could follow one that kills it
    run(settings, right)
    done, left = Path.replace, 0

    def replace(path: Path, target: Path) -> Path:
        nonlocal left
        left -= 1
        if left == 0:
            raise Killed
        return done(path, target)

    monkeypatch.setattr(Path, "replace", replace)
    kills = 0
    for at in count(1):
        folder, left = tmp_path / str(at), at
        killed = False
        for _ in range(2):
            try:
                run(settings, folder, resume=True)
            except Killed:
                killed, left, kills = True, at, kills + 1
        if not killed:
            break
        left = 0
        run(settings, folder, resume=True)
        assert without_times(folder) == without_times(right)
        assert not find_damage(folder)
        assert not resume(tiny, folder, "rounds=2").ran
    assert kills > 20
