"""A round under a guarantee: bounded updates, fixed denominators, noise once, and nothing else of the clients'.

With z = 1e-12 the noise is below rounding, so a round's result has a closed form.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import coterie
from coterie import Cohort, Examples, Mistake, Plan, Privacy, Round
from coterie.attacks import attack
from coterie.core import tree
from coterie.engines.sequential import Sequential
from coterie.engines.vectorised import Vectorised
from coterie.loop.faults import Faults
from coterie.loop.federate import federate
from tests.federations import dense, distance, ragged

SILENT = 1e-12
STILL = 1e-12
LIMIT = 1.15
"""Between the smallest and the largest norm of a first round's updates."""


def linear(inputs: int = 6) -> nn.Module:
    torch.manual_seed(0)
    return nn.Linear(inputs, 3).double()


def private_plan(recipe: Any = None, model: nn.Module | None = None, clients: Any = None, **options: Any) -> Plan:
    given = {"unit": "client", "clip_norm": LIMIT, "noise_multiplier": 1.0, "noise": "rng_seed"}
    privacy = Privacy(**{**given, **options.pop("privacy", {})})
    everything = {"rounds": 1, "rng_seed": 4, "engine": Sequential(dtype=torch.float64), "num_classes": 3, **options}
    recipe = coterie.fedavg(lr=0.5, batch_size=5) if recipe is None else recipe
    return coterie.plan(recipe, model or linear(), clients or ragged(), privacy=privacy, **everything)


def without_noise(plan: Plan) -> Plan:
    assert plan.privacy is not None
    return replace(plan, privacy=replace(plan.privacy, noise_multiplier=SILENT))


def run(plan: Plan, **more: Any) -> list[Round]:
    return list(federate(plan, **more))


def bounded(update: tree.Tree, limit: float) -> Tensor:
    """An update as one vector, scaled down to the bound: computed another way than in the library."""
    vector = torch.cat([leaf.reshape(-1).double() for leaf in tree.leaves(update)])
    return vector * min(1.0, limit / float(vector.norm()))


def moved(round: Round) -> Tensor:
    """w before a round minus w after it, as one vector."""
    return torch.cat(
        [
            (a - b).reshape(-1)
            for a, b in zip(tree.leaves(round.before["params"]), tree.leaves(round.state["params"]), strict=True)
        ]
    )


def test_the_server_moves_by_the_sum_of_bounded_updates_over_the_mean_cohort_size() -> None:
    """Every client counts alike, whatever its number of examples."""
    (round,) = run(without_noise(private_plan()), keep_updates=True)
    assert round.updates is not None
    norms = [float(tree.norm(update)) for update in round.updates.values()]
    assert max(norms) > LIMIT > min(norms)  # some are scaled down, and not all
    expected = sum(bounded(update, LIMIT) for update in round.updates.values()) / 6
    assert torch.allclose(moved(round), expected, atol=1e-10)
    assert round.measures["train_loss"] is None


@pytest.mark.parametrize("sampling", ["uniform", "poisson"])
def test_who_does_not_answer_adds_zeros(sampling: Any) -> None:
    """The sum is over those that answer, the denominator is 0.5 * 6 = 3 whoever does."""
    plan = private_plan(cohort=Cohort(fraction=0.5, sampling=sampling), faults=Faults(drop=0.3, corrupt=0.2), rounds=6)
    rounds = run(without_noise(plan), keep_updates=True)
    assert {round.reached for round in rounds} - {3}
    for round in rounds:
        assert round.updates is not None
        total = sum((bounded(update, LIMIT) for update in round.updates.values()), torch.zeros(21).double())
        assert torch.allclose(moved(round), total / 3, atol=1e-10)


def test_the_noise_has_the_deviation_z_c_over_n_in_every_coordinate_also_where_nobody_answers() -> None:
    """30,003 coordinates of clients that do not move: the deviation is known to 0.4 % (one standard deviation)."""
    clients = {client: Examples(torch.randn(4, 10_000), torch.arange(4) % 3) for client in "abcd"}
    still = coterie.fedavg(lr=STILL)
    for cohort, faults in ((None, Faults(drop=1.0)), (Cohort(fraction=0.5, sampling="poisson"), None), (2, None)):
        privacy = {"noise_multiplier": 3.0, "clip_norm": 0.2}
        plan = private_plan(still, linear(10_000), clients, cohort=cohort, faults=faults, privacy=privacy)
        (round,) = run(plan)
        n = 4 if cohort is None else 2
        assert float(moved(round).std()) == pytest.approx(3.0 * 0.2 / n, rel=0.02)
        assert abs(float(moved(round).mean())) < 4 * 3.0 * 0.2 / n / math.sqrt(30_003)


def test_the_noise_differs_from_round_to_round_and_with_the_secret_alone() -> None:
    plan = private_plan(coterie.fedavg(lr=STILL), rounds=2)
    first, second = run(plan)
    assert distance({"w": moved(first)}, {"w": moved(second)}) > 1e-3
    hidden = private_plan(coterie.fedavg(lr=STILL), rounds=2, privacy={"noise": "secret"})
    assert len(hidden.secret) == 64
    again = [moved(round) for round in run(hidden)]
    assert torch.equal(moved(run(hidden)[0]), again[0])
    assert not torch.equal(moved(run(replace(hidden, secret="0" * 64))[0]), again[0])
    assert not torch.equal(moved(first), again[0])


def test_nobody_foresees_who_is_asked() -> None:
    """Amplification by sampling needs that cohorts are hidden: with a secret they do not follow from the rng seed."""
    plans = [private_plan(cohort=3, privacy={"noise": "secret"}) for _ in range(2)]
    draws = [[tuple(plan.draw_cohort(k)) for k in range(1, 9)] for plan in plans]
    assert draws[0] != draws[1]
    open_plan = private_plan(cohort=3)
    assert [open_plan.draw_cohort(k) for k in range(1, 9)] == [
        Cohort(size=3).draw(open_plan.ids, 4, k) for k in range(1, 9)
    ]


def test_an_attacker_moves_the_model_by_its_bound_at_most() -> None:
    small = {"clip_norm": 0.1}
    honest, hostile = (
        without_noise(private_plan(attack=each, privacy=small)) for each in (None, attack("label_flip", num_clients=1))
    )
    assert len(hostile.attackers()) == 1
    difference = moved(run(honest)[0]) - moved(run(hostile)[0])
    assert 0 < float(difference.norm()) <= 2 * 0.1 / 6 * (1 + 1e-9)  # its update points elsewhere


@pytest.mark.parametrize("codec", [None, "top_k", "float16", "uint8"])
@pytest.mark.parametrize("size", [0.0, 1e3, 1e30, 1e300, math.nan])
def test_whatever_a_client_holds_moves_the_model_by_its_bound_at_most(codec: str | None, size: float) -> None:
    """Two rounds, so that what a codec has kept of the first update comes in the second: each moves it by 2 C / n.

    Both second rounds start from the model after the honest first one, so that all others send the same.
    """
    options = {"privacy": {"clip_norm": 0.1}, "rounds": 2, "up": codec and coterie.Communication(codec)}
    honest, first = ragged(), None
    hostile = {**honest, "1": Examples(honest["1"].tensors()[0] * size, honest["1"].tensors()[1])}
    ends = []
    for clients in (honest, hostile):
        plan = without_noise(
            private_plan(coterie.fedavg(lr=0.5, batch_size=5), clients=MappingProxyType(clients), **options)
        )
        rounds = run(plan)
        ends.append(moved(rounds[0]))
        again = run(plan, resume=coterie.Resume(1, first or rounds[0].state, rounds[0].store))
        first = first or rounds[0].state
        ends.append(moved(again[0]))
    for k in (0, 1):
        assert float((ends[k] - ends[k + 2]).norm()) <= 2 * 0.1 / 6 * (1 + 1e-9)


@pytest.mark.parametrize("privacy", [{}, {"clip": "adaptive"}, {"where": "clients"}])
@pytest.mark.parametrize("model", [linear, dense])
def test_engines_agree(privacy: Mapping[str, Any], model: Any) -> None:
    ends = []
    for engine in (Sequential(dtype=torch.float64), Vectorised(dtype=torch.float64)):
        plan = private_plan(model=model(), engine=engine, privacy=privacy, rounds=2)
        ends.append(run(plan)[-1].weights())
    assert distance(*ends) < 1e-9


def test_bounds_for_parts_scale_each_part_and_its_noise() -> None:
    """P = 2 parts: the noise on part p has the deviation z sqrt(2) C_p / n. SCAFFOLD's c is one."""
    clients = {client: Examples(torch.randn(4, 10_000), torch.arange(4) % 3) for client in "abcd"}
    recipe = coterie.scaffold(lr=STILL, objective="clients", control="gradient")
    bounds = {"delta": 0.2, "control": 1e-9}
    privacy = {"clip_norm": None, "clip_norms": bounds, "noise_multiplier": 3.0}
    (round,) = run(private_plan(recipe, linear(10_000), clients, privacy=privacy))
    assert float(moved(round).std()) == pytest.approx(3.0 * math.sqrt(2) * 0.2 / 4, rel=0.02)
    c = torch.cat([leaf.reshape(-1) for leaf in tree.leaves(round.state["control"])])
    assert float(c.std()) == pytest.approx(3.0 * math.sqrt(2) * 1e-9 / 4, rel=0.02)


def test_an_adaptive_bound_moves_as_the_paper_says() -> None:
    """C_2 = C_1 exp(-0.2 (b - 0.5)), b the share of the norms up to C_1; and the noise is a little larger for it."""
    plan = private_plan(rounds=2, privacy={"clip": "adaptive", "count_noise": 1e-3, "noise_multiplier": 1e-4})
    first, second = run(plan, keep_updates=True)
    assert first.updates is not None
    within = sum(float(tree.norm(update)) <= LIMIT for update in first.updates.values()) / 6
    assert first.measures["clip_norm"] == LIMIT
    assert second.measures["clip_norm"] == pytest.approx(LIMIT * math.exp(-0.2 * (within - 0.5)), rel=1e-3)
    assert 0 < within < 1


def test_an_adaptive_bound_finds_the_quantile() -> None:
    """After many rounds about half of the norms are within the bound, which began far too large."""
    privacy = {"clip": "adaptive", "clip_norm": 100.0, "noise_multiplier": 1e-6, "count_noise": 1e-3, "clip_lr": 1.0}
    recipe = coterie.fedavg(lr=0.01, batch_size="full")
    last = run(private_plan(recipe, rounds=40, privacy=privacy), keep_updates=True)[-1]
    assert last.updates is not None
    norms = sorted(float(tree.norm(update)) for update in last.updates.values())
    assert norms[1] < last.measures["clip_norm"] < norms[4]


def test_clients_shares_of_the_noise_add_up_and_too_few_change_nothing() -> None:
    """With 25 % tolerated dropouts, 3 of 4 shares have the variance (z C)^2, and all 4 of them a third more."""
    clients = {client: Examples(torch.randn(4, 10_000), torch.arange(4) % 3) for client in "abcd"}
    given = {"where": "clients", "tolerated_dropouts": 0.25, "noise_multiplier": 3.0, "clip_norm": 0.2}
    plan = private_plan(coterie.fedavg(lr=STILL), linear(10_000), clients, privacy=given, rounds=12)
    (round, *_) = run(plan)
    assert float(moved(round).std()) == pytest.approx(3.0 * 0.2 / 4 * math.sqrt(4 / 3), rel=0.02)
    rounds = run(replace(plan, faults=Faults(drop=0.25)))
    assert {round.reached for round in rounds} == {0, 3, 4}  # 2 or fewer are none
    for round in rounds:
        assert bool(moved(round).any()) == (round.reached > 0)


def test_what_is_sent_up_is_bounded_and_noisy_where_clients_add_the_noise() -> None:
    """The update that arrives is the honest one, scaled down, plus noise of the deviation z C / sqrt(n)."""
    clients = {client: Examples(torch.randn(4, 10_000), torch.arange(4) % 3) for client in "abcd"}
    given = {"where": "clients", "noise_multiplier": 3.0, "clip_norm": 0.2}
    plan = private_plan(coterie.fedavg(lr=0.5), linear(10_000), clients, privacy=given)
    ((_, updates),) = [(round, round.updates) for round in run(plan, keep_updates=True)]
    assert updates is not None
    for update in updates.values():
        vector = torch.cat([leaf.reshape(-1) for leaf in tree.leaves(update)])
        assert float(vector.std()) == pytest.approx(3.0 * 0.2 / 2, rel=0.03)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"evaluate_clients": True, "test": ragged()["1"]}, "clients' own accuracies show their data"),
        ({"privacy": {"clip_norms": {"w": 1.0}, "clip_norm": None}}, "has none"),
        ({"attack": attack("sign_flip", num_clients=1)}, "make their updates from those of all others"),
        ({"task": coterie.TaskOptions("classification", class_weights="balanced")}, "counts of clients' labels"),
        ({"cohort": 3, "available": lambda round, client: True}, "who is available would decide"),
        (
            {"cohort": Cohort(size=3, sampling="poisson"), "privacy": {"where": "clients"}},
            "need a cohort of a fixed size",
        ),
    ],
)
def test_what_would_escape_is_refused(options: dict[str, Any], words: str) -> None:
    with pytest.raises(Mistake, match=words):
        private_plan(**options)


def test_a_robust_rule_is_refused() -> None:
    from coterie.aggregation import aggregation

    with pytest.raises(Mistake, match="a robust rule sees single updates, and noise protects a sum; set aggregation"):
        private_plan(aggregation=aggregation("median"))


def test_an_algorithm_that_says_nothing_about_its_parts_is_refused() -> None:
    base = coterie.fedavg(lr=0.1)

    def own(task: Any) -> Any:
        algorithm = base(task)
        update = algorithm.server.update
        return replace(
            algorithm,
            client=replace(
                algorithm.client,
                finish=lambda b, c, ctx: ({**algorithm.client.finish(b, c, ctx)[0], "extra": c["params"]}, {}),
            ),
            server=replace(algorithm.server, update=update, weighting={"delta": "one", "extra": "one"}),
        )

    with pytest.raises(Mistake, match="does not say how the part extra of its updates is bounded"):
        private_plan(own)
