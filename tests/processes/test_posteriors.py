"""Mutual learning whose work several processes share: reductions and exchanges carry the posteriors."""

from typing import Any

import pytest
import torch
from torch import nn

import coterie
from coterie import Round
from coterie.engines.sequential import Sequential
from coterie.processes.spawn import run_in_processes
from coterie.processes.team import ALONE, Team
from tests.federations import dense, ragged, seed_set
from tests.processes.test_team import assert_same, outcome

EXCHANGES = ("sum", "tables")


def models() -> list[nn.Module]:
    """Two architectures, one of them with BatchNorm and dropout."""
    torch.manual_seed(3)
    return [nn.Linear(6, 3).double(), dense()]


def shared_out(exchange: str, team: Team = ALONE) -> list[Round]:
    """Run six clients with two architectures in turn; the processes of a team share their work."""
    recipe = coterie.fedh2l(lr=0.1, batch_size=5, exchange=exchange)
    engine = Sequential(dtype=torch.float64)
    options: dict[str, Any] = {"rounds": 3, "rng_seed": 1, "seed_set": seed_set(), "engine": engine}
    return list(coterie.federate(recipe, models(), ragged(), cohort=0.7, team=team, **options))


def in_every_process(team: Team) -> dict[str, Any]:
    return {kind: outcome(shared_out(kind, team), team) for kind in EXCHANGES}


@pytest.fixture(scope="module")
def launched() -> dict[str, Any]:
    return run_in_processes(2, in_every_process)


@pytest.mark.parametrize("exchange", EXCHANGES)
def test_a_team_s_reductions_carry_the_posteriors(launched: dict[str, Any], exchange: str) -> None:
    """Their sum is one reduction, every table one exchange: what one process computes, to 1e-10."""
    assert_same(outcome(shared_out(exchange), ALONE), launched[exchange])
