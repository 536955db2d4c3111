"""Mutual learning where one launcher started all processes: by reductions, and as participants who exchange at once."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import coterie
from coterie import Plan, Round
from coterie.engines.sequential import Sequential
from coterie.peers.participate import participate
from coterie.peers.team_mailbox import TeamMailbox
from coterie.processes.spawn import run_in_processes
from coterie.processes.team import ALONE, Team
from tests.federations import dense, distance, ragged, seed_set
from tests.processes.test_team import assert_same, outcome

FEDH2L = coterie.fedh2l(lr=0.1, batch_size=5, momentum=0.5)
EXCHANGES = ("sum", "tables")
CLIENTS = {client: ragged()[client] for client in ("1", "3")}


def models() -> list[nn.Module]:
    """Two architectures, one of them with BatchNorm and dropout."""
    torch.manual_seed(3)
    return [nn.Linear(6, 3).double(), dense()]


def options(**more: Any) -> dict[str, Any]:
    return {"rounds": 3, "rng_seed": 1, "seed_set": seed_set(), "engine": Sequential(dtype=torch.float64)} | more


def shared_out(exchange: str, team: Team = ALONE) -> list[Round]:
    """Run six clients with two architectures in turn; the processes of a team share their work."""
    recipe = coterie.fedh2l(lr=0.1, batch_size=5, exchange=exchange)
    return list(coterie.federate(recipe, models(), ragged(), cohort=0.7, team=team, **options()))


def own_plan(rank: int, rounds: int = 3) -> Plan:
    """What the participant in one process knows: its data and its model."""
    me = list(CLIENTS)[rank]
    return coterie.plan(FEDH2L, models()[rank], {me: CLIENTS[me]}, **options(rounds=rounds))


def in_every_process(team: Team) -> dict[str, Any]:
    found: dict[str, Any] = {kind: outcome(shared_out(kind, team), team) for kind in EXCHANGES}
    rounds = list(participate(own_plan(team.rank), TeamMailbox(team)))
    found["weights"] = team.gather(rounds[-1].weights())
    found["heard"] = team.gather([(r.round, list(r.cohort), r.reached, r.bytes_up, r.bytes_down) for r in rounds])
    found["begin"] = team.gather(TeamMailbox(team, done=team.rank + 1).newest())
    return found


@pytest.fixture(scope="module")
def launched() -> dict[str, Any]:
    return run_in_processes(2, in_every_process)


@pytest.mark.parametrize("exchange", EXCHANGES)
def test_a_team_s_reductions_carry_the_posteriors(launched: dict[str, Any], exchange: str) -> None:
    """Their sum is one reduction, every table one exchange: what one process computes, to 1e-10."""
    assert_same(outcome(shared_out(exchange), ALONE), launched[exchange])


def test_participants_exchange_at_once_and_compute_what_one_process_does(launched: dict[str, Any]) -> None:
    last = list(coterie.federate(FEDH2L, models(), CLIENTS, **options()))[-1]
    theirs: list[dict[str, Tensor]] = launched["weights"]
    for client, weights in zip(CLIENTS, theirs, strict=True):
        assert distance(last.weights(client), weights) < 1e-10
    size = 8 * len(seed_set()) * 3
    assert launched["heard"] == [[(number, ["1", "3"], 2, size, size) for number in (1, 2, 3)]] * 2


def test_after_a_stop_all_begin_in_the_round_after_the_last_that_anyone_saved(launched: dict[str, Any]) -> None:
    """One has saved round 1, the other round 2."""
    assert launched["begin"] == [3, 3]


def test_alone_there_is_nobody_else_to_hear() -> None:
    (only,) = participate(own_plan(0, rounds=1), TeamMailbox(ALONE))
    assert (only.cohort, only.bytes_down) == (["1"], 0)
