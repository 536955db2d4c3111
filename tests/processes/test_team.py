"""A team of processes ends where one process does. One team is launched for all that it is asked."""

import os
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

import coterie
from coterie import Mistake, Privacy, Round
from coterie.aggregation import aggregation
from coterie.core import aggregators, tree
from coterie.core.aggregators import Composite, Coordinatewise
from coterie.core.tree import Tree
from coterie.engines.sequential import Sequential
from coterie.engines.vectorised import Vectorised
from coterie.loop.attack import Attack
from coterie.loop.checkpoint import Checkpoints
from coterie.loop.store import Store
from coterie.probes import PROBES, Probe
from coterie.processes.lost import Lost
from coterie.processes.process_group import Group
from coterie.processes.spawn import run_in_processes
from coterie.processes.team import ALONE, Team, owner, owns, share_work
from tests.common.recipes import RECIPES
from tests.common.test_every_algorithm import run
from tests.federations import SIZES, dense, distance, ragged

SIZE = 2
ROUNDS = 3
"""The third is the first in which every recipe trains."""
FEDAVG = coterie.fedavg(lr=0.1, batch_size=5)


def centre_and_spread(updates: list[Tree], combine: aggregators.Combine) -> Tree:
    """Two stages, the second of which needs the first."""
    centre = combine(updates)
    gaps = combine([tree.map(lambda u, m: u - m, update, centre) for update in updates])
    return tree.add(centre, gaps, 0.5)


def largest(sight: Any) -> Tensor:
    """An attack that looks at everyone's updates, at its own and at the rule."""
    return sight.own + sight.honest.abs().max(0).values - sight.outcome(sight.own)


AGGREGATORS = {
    "median": aggregation("median"),
    "trimmed mean": aggregation("trimmed_mean", num_byzantine=1),
    "geometric median": aggregation("geometric_median"),
    "krum of neighbours in random buckets": aggregation("krum", pre=["bucketing", "nnm"], num_byzantine=1),
    "median of neighbours": aggregation("median", pre=["nnm"], num_byzantine=1),
    "stages": Composite(centre_and_spread, Coordinatewise(lambda x: x.median(0).values)),
}
"""Rules of every kind, those whose outcome depends on the order of the updates included."""

NOISE: dict[str, Any] = {"clip_norm": 0.5, "noise_multiplier": 1.0, "delta": 1e-3, "noise": "rng_seed"}

OF_THE_FIRST = {client: examples for client, examples in ragged().items() if owner(Group(0, SIZE), client) == 0}
"""Clients of one owner. Some of them must work in the other process, so their states travel there and back."""

CASES: dict[str, dict[str, Any]] = {
    **{name: {"recipe": recipe, "model": "dense"} for name, recipe in RECIPES.items()},
    "convolutional": {"recipe": RECIPES["fedavg, all options"], "model": "convolutional"},
    **{
        name: {"recipe": FEDAVG, "aggregation": rule, "cohort": 5, "faults": None} for name, rule in AGGREGATORS.items()
    },
    "attack": {
        "recipe": FEDAVG,
        "attack": Attack(2, forge=largest),
        "aggregation": aggregation("median"),
        "cohort": None,
    },
    "one client a round": {"recipe": FEDAVG, "cohort": 1, "faults": None},
    "states that travel": {"recipe": RECIPES["scaffold"], "clients": OF_THE_FIRST, "cohort": None, "faults": None},
    "own models that travel": {"recipe": RECIPES["independent"], "clients": OF_THE_FIRST, "cohort": None},
    "updates": {"recipe": RECIPES["scaffold"], "keep_updates": True},
    "probes": {"recipe": RECIPES["scaffold"], "test": ragged()["1"], "probe": Probe(list(PROBES), every=2)},
    "own accuracies": {"recipe": FEDAVG, "test": ragged()["1"], "own_test": ragged(), "evaluate_clients": True},
    "own models": {"recipe": RECIPES["independent"], "test": ragged()["1"], "own_test": ragged()},
    "pooled": {"recipe": RECIPES["centralized"], "test": ragged()["1"]},
    "bounded clients": {"recipe": FEDAVG, "privacy": Privacy(unit="client", clip="adaptive", **NOISE)},
    "shares of the noise": {
        "recipe": FEDAVG,
        "privacy": Privacy(unit="client", where="clients", tolerated_dropouts=0.5, **NOISE),
    },
    "noised gradients": {
        "recipe": coterie.fixbn(lr=0.1, batch_size=5, freeze_after=0),
        "privacy": Privacy(unit="example", **NOISE),
    },
    "every client's table": {"recipe": coterie.fedh2l(lr=0.1, batch_size=5, exchange="tables")},
}


def outcome(rounds: list[Round], team: Team) -> dict[str, Any]:
    """Everything about a run that does not depend on the clock."""
    last = rounds[-1]
    mine = {client: last.weights(client) for client in last.plan.ids if owns(team, client)}
    records = [round.record() for round in rounds]
    return {
        "weights": {f"S/{name}": leaf for name, leaf in tree.flatten(last.state).items()}
        | {f"{c}/{name}": leaf for part in team.gather(mine) for c, own in part.items() for name, leaf in own.items()},
        "records": [{k: v for k, v in r.items() if k not in ("seconds", "elapsed")} for r in records],
        "updates": [{} if r.updates is None else tree.flatten(dict(r.updates)) for r in rounds],
    }


def all_cases(team: Team, folder: Path) -> dict[str, dict[str, Any]]:
    """Run every case, in each process of the team."""
    engine = Sequential(dtype=torch.float64)
    results = {
        name: outcome(run(engine=engine, rounds=ROUNDS, team=team, **case), team) for name, case in CASES.items()
    }
    vectorised = run(RECIPES["scaffold"], Vectorised(dtype=torch.float64), rounds=ROUNDS, team=team)
    secrets = {"secrets": {str(k): secret for k, secret in enumerate(draw_secrets(team))}}
    return results | {"vectorised": outcome(vectorised, team)} | secrets | resumed(team, folder)


def draw_secrets(team: Team) -> list[str]:
    """Return each process's secret of a run whose noise has one; the run itself checks that all know the same."""
    given = Privacy(unit="client", **{**NOISE, "noise": "secret"})
    last = run(FEDAVG, Sequential(dtype=torch.float64), rounds=1, team=team, privacy=given)[-1]
    return team.gather(last.plan.secret)


def resumed(team: Team, folder: Path) -> dict[str, dict[str, Any]]:
    """Two rounds of the team and two more; one checkpoint is left for a single process, and one of its is taken up."""
    first = run(RECIPES["scaffold"], Sequential(dtype=torch.float64), rounds=2, team=team)
    Checkpoints(folder / "team", team).save(first[-1])
    rest = {}
    for written_by in ("team", "one"):
        found = Checkpoints(folder / written_by, team).load()
        rounds = run(RECIPES["scaffold"], Sequential(dtype=torch.float64), rounds=4, resume=found, team=team)
        rest[f"resumed from {written_by}"] = outcome(rounds, team)
    return rest


@pytest.fixture(scope="module")
def launched(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, dict[str, Any]], Path]:
    folder = tmp_path_factory.mktemp("checkpoints")
    first = run(RECIPES["scaffold"], Sequential(dtype=torch.float64), rounds=2)
    Checkpoints(folder / "one").save(first[-1])
    return run_in_processes(SIZE, all_cases, folder), folder


def assert_same(ours: dict[str, Any], theirs: dict[str, Any]) -> None:
    assert distance(ours["weights"], theirs["weights"]) < 1e-10
    for mine, other in zip(ours["records"], theirs["records"], strict=True):
        assert mine.keys() == other.keys()
        for key, value in mine.items():
            number = isinstance(value, float) or key == "probe.best_weights"
            assert other[key] == (pytest.approx(value, rel=1e-8, abs=1e-10) if number else value)
    for mine, other in zip(ours["updates"], theirs["updates"], strict=True):
        assert list(mine) == list(other)
        assert not mine or distance(mine, other) < 1e-10


@pytest.mark.parametrize("name", CASES)
def test_a_team_agrees_with_one_process(launched: Any, name: str) -> None:
    """To 1e-10 in float64, with ragged, partially sampled, faulty and stateful clients, BatchNorm and dropout."""
    alone = outcome(run(engine=Sequential(dtype=torch.float64), rounds=ROUNDS, **CASES[name]), ALONE)
    assert_same(alone, launched[0][name])


def test_all_processes_of_a_run_know_one_secret(launched: Any) -> None:
    first, second = launched[0]["secrets"].values()
    assert first == second
    assert len(first) == 64


def test_an_engine_inside_a_team(launched: Any) -> None:
    alone = run(RECIPES["scaffold"], Sequential(dtype=torch.float64), rounds=ROUNDS)
    assert_same(outcome(alone, ALONE), launched[0]["vectorised"])


@pytest.mark.parametrize("written_by", ["team", "one"])
def test_a_team_resumes_what_a_team_or_one_process_saved(launched: Any, written_by: str) -> None:
    whole = run(RECIPES["scaffold"], Sequential(dtype=torch.float64))[2:]
    assert_same(outcome(whole, ALONE), launched[0][f"resumed from {written_by}"])


def test_one_process_resumes_what_a_team_saved(launched: Any) -> None:
    found = Checkpoints(launched[1] / "team").load()
    rest = run(RECIPES["scaffold"], Sequential(dtype=torch.float64), rounds=4, resume=found)
    assert_same(outcome(run(RECIPES["scaffold"], Sequential(dtype=torch.float64))[2:], ALONE), outcome(rest, ALONE))


def test_every_client_has_one_owner() -> None:
    """A hash of the client alone, so that all processes agree; each of two processes owns some of six clients."""
    clients = [str(client) for client in range(len(SIZES))]
    assert {owner(Group(0, 2), client) for client in clients} == {0, 1}
    assert all(owner(Group(0, 3), c) == owner(Group(2, 3), c) for c in clients)
    assert all(sum(owns(Group(rank, 3), client) for rank in range(3)) == 1 for client in clients)
    assert {owner(ALONE, client) for client in clients} == {0}


@given(st.lists(st.integers(1, 200), max_size=30), st.integers(1, 5))
def test_shares_are_even(costs: list[int], size: int) -> None:
    """The fullest process exceeds the emptiest by at most its own smallest client, which would have moved otherwise."""
    team = Group(0, size)
    by_client = {str(k): float(cost) for k, cost in enumerate(costs)}
    at = share_work(by_client, team)
    assert at.keys() == by_client.keys()
    load = [sum(cost for client, cost in by_client.items() if at[client] == rank) for rank in range(size)]
    gap = max(load) - min(load)
    assert all(gap <= cost for client, cost in by_client.items() if at[client] == load.index(max(load)))


def test_equal_clients_are_shared_equally_and_few_of_them_move() -> None:
    """Ten clients for two processes: five each, and no client moves without need."""
    team = Group(0, 2)
    clients = [str(k) for k in range(10)]
    at_home = sum(owner(team, client) for client in clients)  # how many process 1 owns
    at = share_work(dict.fromkeys(clients, 60.0), team)
    assert sorted(at.values()) == [0] * 5 + [1] * 5
    assert sum(at[client] != owner(team, client) for client in clients) == abs(at_home - 5)


def fails(team: Team, how: str) -> None:
    """Both processes meet; then the second one ends."""
    team.gather(how)
    if team.rank == 1 and how == "raise":
        raise ValueError("the disk is on fire")
    if team.rank == 1 and how == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    team.gather(how)


@pytest.mark.parametrize(
    ("how", "why"), [("raise", "the disk is on fire"), ("kill", "process 1 .* killed by signal 9")]
)
def test_a_process_that_ends_ends_the_run_with_the_reason(how: str, why: str) -> None:
    with pytest.raises(Lost, match=why):
        run_in_processes(2, fails, how)


def test_a_team_of_one_needs_no_other_process() -> None:
    assert run_in_processes(1, lambda team: team) is ALONE
    with pytest.raises(Mistake, match="workers = 0: it must be 1 or more"):
        run_in_processes(0, lambda team: team)


def test_the_state_of_another_process_s_client_is_not_invented() -> None:
    """If a client's model depends on its state, only its owner has it."""
    plan = coterie.plan(RECIPES["independent"], dense(), ragged(), rounds=1, team=Group(0, 2))
    theirs = next(client for client in plan.ids if owner(plan.team, client) == 1)
    with pytest.raises(LookupError, match=f"process 1 of 2 keeps the state of client {theirs}"):
        plan.evaluated_weights({}, Store(), theirs)
