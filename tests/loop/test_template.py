"""Templates: made once for each form of broadcast and client state, and right in every round."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

import coterie
from coterie import Algorithm, Recipe
from coterie.algorithms.stages import stages
from coterie.core.engine import Job
from coterie.core.transforms import eight_bits
from coterie.core.tree import Tree
from coterie.engines.sequential import Sequential
from coterie.loop import template
from coterie.loop.jobs import Assignment
from tests.common.recipes import RECIPES
from tests.common.test_every_algorithm import run
from tests.federations import dense, ragged


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The architecture of each template that is made."""
    architectures: list[str] = []
    payload = template._payload

    def noting(plan: coterie.Plan, algorithm: Algorithm, broadcast: Tree, job: Job) -> Tree:
        architectures.append(job.architecture)
        return payload(plan, algorithm, broadcast, job)

    monkeypatch.setattr(template, "_payload", noting)
    return architectures


@pytest.mark.parametrize(
    ("name", "times"),
    [
        ("fedavg", 1),
        ("scaffold", 1),
        ("fedmd", 2),  # the consensus is empty in the first round
        ("hbn", 2),  # two kinds of rounds, in turn
        ("fixbn", 2),  # two stages, one after the other
    ],
)
def test_a_template_is_made_once_for_each_form(made: list[str], name: str, times: int) -> None:
    rounds = run(RECIPES[name], Sequential(dtype=torch.float64), rounds=6, faults=coterie.Faults())
    assert len(made) == times
    assert all(round.reached == len(round.cohort) for round in rounds)


def test_each_architecture_has_its_own(made: list[str]) -> None:
    clients, models = ragged(), [dense().float(), dense().float()]
    list(coterie.federate(coterie.independent(lr=0.1), models, clients, rounds=3))
    assert sorted(made) == ["0", "1"]


def growing(times: list[int]) -> Recipe:
    """FedAvg whose clients keep a table that grows by a row in each round, and send it too."""

    def bind(task: coterie.Task) -> Algorithm:
        base = coterie.fedavg(lr=0.1)(task)

        def start(broadcast: Tree, state: Tree, ctx: coterie.Context) -> Tree:
            times.append(len(state["table"]))
            return {**base.client.start(broadcast, state, ctx), "table": state["table"]}

        def finish(broadcast: Tree, carry: Tree, ctx: coterie.Context) -> tuple[Tree, Tree]:
            update, _ = base.client.finish(broadcast, carry, ctx)
            table = torch.cat([carry["table"], torch.ones(1)])
            return {**update, "table": table}, {"table": table}

        client = replace(base.client, start=start, finish=finish, initial_state=lambda w: {"table": torch.zeros(1)})
        server = replace(base.server, weighting={"delta": "examples", "table": "one"})
        return replace(base, client=client, server=server)

    return bind


def test_a_client_s_state_may_grow() -> None:
    """Six clients and a template in each of three rounds, with 1, 2 and 3 rows before it."""
    times: list[int] = []
    rounds = list(coterie.federate(growing(times), dense().float(), ragged(), rounds=3))
    assert [round.reached for round in rounds] == [6, 6, 6]
    assert sorted(times) == [1] * 7 + [2] * 7 + [3] * 7


def test_stages_that_are_made_again_in_every_round_need_bounded_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(template, "MAX_ENTRIES", 2)
    cache = template.Templates()
    plan = coterie.plan(stages([(RECIPES["fedavg"], None)]), dense().float(), ragged(), rounds=1)
    (algorithm,) = plan.algorithms.values()
    broadcast = algorithm.server.broadcast(algorithm.server.initial_state(plan.initial["model"], plan.federation()))
    job = Job("0", "model", {}, plan.data("0"), None, 1, 0)
    for _ in range(5):
        fresh = replace(plan, algorithms={"model": replace(algorithm, client=replace(algorithm.client))})
        cache.of_round(fresh, broadcast)(Assignment(job, {}))
        assert len(cache._entries) <= 2


def test_a_client_that_has_diverged_does_not_set_the_template_of_later_rounds(made: list[str]) -> None:
    """Posteriors that are not finite travel as floats, not as bytes; who sends bytes next must not be refused."""
    plan = coterie.plan(
        coterie.fedmd(lr=0.1, match="posteriors"), dense().float(), ragged(), rounds=1, seed_set=ragged()["1"],
        up=eight_bits(),
    )  # fmt: skip
    cache, data = template.Templates(), plan.data("1")
    healthy = plan.client_state_from("1", None)["algorithm"]
    broken = {**healthy, "params": {name: torch.full_like(p, torch.nan) for name, p in healthy["params"].items()}}
    for state, dtype in ((broken, torch.float32), (healthy, torch.uint8), (broken, torch.uint8)):
        job = Job("1", "model", state, data, plan.seed_set, 1, 0)
        found = cache.of_round(plan, {"consensus": torch.zeros(0, 0)})(Assignment(job, {}))
        assert found["scores"].dtype == dtype
    assert len(made) == 2
