"""The runs of a grid: full names of keys, names of folders, settings, and mistakes before anything starts."""

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coterie import Mistake
from coterie.experiment.settings import load_settings
from coterie.sweep.axes import parse_axis
from coterie.sweep.full_names import complete_names
from coterie.sweep.grid import SweepOptions, check_options, read_sweep
from coterie.sweep.points import make_points, point_name
from coterie.sweep.slurm_job import array_job
from coterie.sweep.sweep_toml import write_grid
from tests.experiment.files import written
from tests.test_public_face import without_torch


def keys(file: Path, *arguments: str) -> list[str]:
    return [axis.key for axis in complete_names(file, [parse_axis(each) for each in arguments])]


def test_a_key_without_its_table_is_found_if_one_table_has_it(tmp_path: Path) -> None:
    file = written(tmp_path)
    assert keys(file, "lr=1,2", "hidden=[8],[16]", "rounds=1,2", "fraction=0.5,1", "model.name=mlp,cnn") == [
        "algorithm.lr",
        "model.hidden",
        "rounds",
        "cohort.fraction",
        "model.name",
    ]
    assert keys(file, "algorithm.name=fedavg,fedprox", "proximal_weight=0.1,1")[1] == "algorithm.proximal_weight"
    for argument, sentence in (
        ("name=a,b", r"several tables have this key; write model\.name or algorithm\.name"),
        ("proximal_weight=0.1,1", "no table of this file has such a key"),
        ("momentun=0,1", "did you mean momentum"),
    ):
        with pytest.raises(Mistake, match=sentence):
            keys(file, argument)
    with pytest.raises(Mistake, match=r"algorithm\.lr: is given twice"):
        keys(file, "lr=0.1,0.2", "algorithm.lr=0.3,0.4")


def test_a_point_is_the_file_with_its_values_in_one_process_with_one_thread(tmp_path: Path) -> None:
    file = written(tmp_path)
    axes = complete_names(file, [parse_axis(each) for each in ("lr=0.1,0.5", "rounds=7", "rng_seed=3")])
    points = make_points(file, axes)
    assert [point.name for point in points] == ["lr=0.1,rng_seed=3", "lr=0.5,rng_seed=3"]
    assert [dict(point.values) for point in points] == [
        {"algorithm.lr": 0.1, "rng_seed": 3},
        {"algorithm.lr": 0.5, "rng_seed": 3},
    ]
    same = [*points[1].overrides, "engine.workers=1", "engine.threads=1"]
    assert points[1].settings == load_settings(file, same)
    assert points[1].name_without_seed == "lr=0.5"


def test_what_the_file_says_of_processes_stands(tmp_path: Path) -> None:
    file = written(tmp_path)
    with file.open("a") as text:
        text.write("[engine]\nworkers = 2\n")
    engine = make_points(file, [parse_axis("algorithm.lr=0.1,0.5")])[0].settings.engine
    assert (engine.workers, engine.threads) == (2, 1)


def test_a_mistake_names_the_run(tmp_path: Path) -> None:
    file = written(tmp_path)
    with pytest.raises(Mistake, match=r"algorithm\.lr = -1: it must be a number above 0 \(in the run lr=-1\)"):
        make_points(file, [parse_axis("algorithm.lr=0.1,-1")])
    with pytest.raises(Mistake, match="needs a key with two values or more"):
        make_points(file, [parse_axis("rounds=3")])
    with pytest.raises(Mistake, match="the grid has 1,000,000 points"):
        make_points(file, [parse_axis("algorithm.lr=1..2:lin:1000"), parse_axis("rng_seed=1..1000:lin:1000")])


@settings(max_examples=25)
@given(st.dictionaries(st.sampled_from(["lr", "name", "path"]), st.text() | st.floats() | st.lists(st.integers())))
def test_a_name_fits_any_file_system(values: dict[str, object]) -> None:
    name = point_name(values)
    assert "/" not in name
    assert len(name.encode()) <= 200
    assert name.isascii()
    assert name.isprintable()


def test_long_values_have_different_names() -> None:
    a, b = (point_name({"name": "x" * 300 + end}) for end in "ab")
    assert a != b


def test_a_sweep_goes_on_with_the_same_keys(tmp_path: Path) -> None:
    """Values may be added and left out; without any on the command line, those of the folder are taken."""
    file, folder = written(tmp_path), tmp_path / "sweep"
    for arguments in ([], ["rounds=3"]):
        with pytest.raises(Mistake, match="needs a key with two values or more"):
            read_sweep(file, arguments, folder, resume=False)
    with pytest.raises(Mistake, match="holds no sweep to continue"):
        read_sweep(file, [], folder, resume=True)
    grid = read_sweep(file, ["lr=0.1,0.2", "rng_seed=0"], folder, resume=True)
    folder.mkdir()
    write_grid(folder, file, grid.axes)
    assert read_sweep(file, [], folder, resume=True) == grid
    names = [point.name for point in read_sweep(file, ["lr=0.2,0.4", "rng_seed=1"], folder, resume=True).points]
    assert names == ["lr=0.2,rng_seed=1", "lr=0.4,rng_seed=1"]
    with pytest.raises(Mistake, match=r"its sweep varies algorithm\.lr, rng_seed, and not algorithm\.lr; values may"):
        read_sweep(file, ["lr=0.1,0.2"], folder, resume=True)
    with pytest.raises(Mistake, match="holds a sweep already; continue it with --resume"):
        read_sweep(file, ["lr=0.1,0.2"], folder, resume=False)
    (folder / "sweep.toml").write_text("grid = 3")
    with pytest.raises(Mistake, match=r"sweep\.toml: is damaged"):
        read_sweep(file, [], folder, resume=True)


def test_a_folder_with_something_else_is_refused(tmp_path: Path) -> None:
    file = written(tmp_path)
    with pytest.raises(Mistake, match=r"neither empty nor the folder of a sweep \(it holds digits\.toml\)"):
        read_sweep(file, ["lr=0.1,0.2"], tmp_path, resume=True)


def test_options_are_checked(tmp_path: Path) -> None:
    grid = read_sweep(written(tmp_path), ["lr=0.1,0.2", "rng_seed=0,1"], tmp_path / "sweep", resume=False)
    check_options(SweepOptions(jobs=1, baseline="lr=0.2"), grid.points)
    check_options(SweepOptions(baseline="lr=0.2,rng_seed=1"), grid.points)
    with pytest.raises(Mistake, match=r'baseline = "lr=3": it must be the name of a run, such as lr=0\.1,rng_seed=0'):
        check_options(SweepOptions(baseline="lr=3"), grid.points)
    with pytest.raises(Mistake, match="jobs = 0: it must be 1 or more"):
        check_options(SweepOptions(jobs=0), grid.points)


def test_an_array_job_has_a_task_for_each_run(tmp_path: Path) -> None:
    grid = read_sweep(written(tmp_path), ["model.hidden=[8],[4,4]", "rounds=2"], tmp_path / "a sweep", resume=False)
    script = array_job(Path("digits.toml"), Path("runs/a sweep"), grid.points, 5, "coterie sweep --resume")
    lines = script.splitlines()
    assert lines[:4] == [
        "#!/bin/bash",
        "#SBATCH --job-name='a sweep'",
        "#SBATCH --array=0-1%5",
        "#SBATCH --cpus-per-task=1",
    ]
    assert "#   coterie sweep --resume" in lines
    assert lines[-3:-1] == [
        "0) coterie run digits.toml 'model.hidden=[8]' rounds=2 engine.workers=1 engine.threads=1 "
        "--out 'runs/a sweep/runs/hidden=[8]' --resume ;;",
        "1) coterie run digits.toml 'model.hidden=[4,4]' rounds=2 engine.workers=1 engine.threads=1 "
        "--out 'runs/a sweep/runs/hidden=[4,4]' --resume ;;",
    ]


def test_a_run_watches_its_parent_before_it_imports_pytorch() -> None:
    """Importing PyTorch takes seconds, in which a killed sweep would leave a process behind."""
    without_torch("import coterie.sweep.child_process, coterie.cli.main")
