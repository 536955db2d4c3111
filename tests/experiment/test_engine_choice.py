"""What "auto" chooses, and that it is a function of work and machine alone."""

from dataclasses import replace

import pytest

from coterie.experiment.engine_choice import PROCESS_BYTES, Machine, Work, choose_engine
from coterie.experiment.resolve_engine import resolve_engine
from coterie.experiment.tables import Engine

LAPTOP = Machine(cores=2, memory=2**34, device="cpu", compiler=True)
LONG = Work(cohort=10, steps=600_000, flops=1.2e7, layers=6)


@pytest.mark.parametrize(
    ("work", "machine", "expected"),
    [
        (LONG, LAPTOP, ("sequential", True, 2)),
        (replace(LONG, steps=6_000), LAPTOP, ("sequential", False, 1)),
        (replace(LONG, steps=60_000), replace(LAPTOP, compiler=False), ("sequential", False, 1)),
        (replace(LONG, steps=60_000), replace(LAPTOP, compiler=False, copies=True), ("sequential", False, 2)),
        (replace(LONG, steps=6_000), replace(LAPTOP, copies=True), ("sequential", False, 1)),
        (LONG, replace(LAPTOP, compiler=False), ("sequential", False, 2)),
        (LONG, replace(LAPTOP, cores=16), ("sequential", True, 10)),
        (replace(LONG, cohort=1), LAPTOP, ("sequential", True, 1)),
        (LONG, replace(LAPTOP, cores=16, memory=2 * 4 * PROCESS_BYTES), ("sequential", True, 4)),
        (
            replace(LONG, data=3 * PROCESS_BYTES),
            replace(LAPTOP, cores=16, memory=2 * 8 * PROCESS_BYTES),
            ("sequential", True, 2),
        ),
        (
            replace(LONG, data=3 * PROCESS_BYTES),
            replace(LAPTOP, cores=16, memory=2 * 8 * PROCESS_BYTES, copies=True),
            ("sequential", True, 8),
        ),
        (LONG, replace(LAPTOP, memory=1), ("sequential", True, 1)),
        (replace(LONG, layers=200), LAPTOP, ("sequential", False, 2)),
        (replace(LONG, uncompilable="a loop"), LAPTOP, ("sequential", False, 2)),
        (LONG, replace(LAPTOP, device="cuda"), ("vectorised", False, 1)),
        (replace(LONG, unbatchable="an LSTM"), replace(LAPTOP, device="cuda"), ("sequential", False, 1)),
    ],
)
def test_choices(work: Work, machine: Machine, expected: tuple[str, bool, int]) -> None:
    choice = choose_engine(work, machine)
    assert (choice.name, choice.compile, choice.workers) == expected
    assert choose_engine(work, machine) == choice


def test_the_reason_is_told() -> None:
    assert "no C++ compiler" in choose_engine(LONG, replace(LAPTOP, compiler=False)).steps
    assert "a loop" in choose_engine(replace(LONG, uncompilable="a loop"), LAPTOP).steps
    assert "an LSTM" in choose_engine(replace(LONG, unbatchable="an LSTM"), replace(LAPTOP, device="cuda")).order


@pytest.mark.parametrize(
    ("work", "machine", "expected"),
    [
        (replace(LONG, flops=3e6), LAPTOP, 1),
        (replace(LONG, flops=7e8), LAPTOP, 2),
        (replace(LONG, flops=7e8), replace(LAPTOP, cores=64, threads=32), 32),
        (replace(LONG, flops=3e6), replace(LAPTOP, threads=3, threads_are_set=True), 3),
        (replace(LONG, flops=7e8), replace(LAPTOP, threads=1, threads_are_set=True), 1),
        (replace(LONG, flops=3e6), replace(LAPTOP, device="cuda"), 2),
    ],
)
def test_small_steps_compute_with_one_thread_unless_the_environment_says_how_many(
    work: Work, machine: Machine, expected: int
) -> None:
    assert choose_engine(work, machine).threads == expected


def test_threads_of_a_file_and_of_several_processes() -> None:
    large = replace(LONG, flops=7e8, steps=10)
    assert resolve_engine(Engine(), LAPTOP, large).engine.threads == 2
    assert resolve_engine(Engine(), LAPTOP, large).why.endswith(", one process, 2 threads")
    assert resolve_engine(Engine(workers=2), LAPTOP, large).engine.threads == 1
    assert resolve_engine(Engine(workers=2, threads=3), LAPTOP, large).engine.threads == 3
    assert resolve_engine(Engine(threads=1), LAPTOP, large).engine.threads == 1
