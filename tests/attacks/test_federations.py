"""Attacks where they happen: in a round, on some clients, on some parts of what is sent."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

import coterie
from coterie import Examples, Mistake, Round
from coterie.aggregation import aggregation
from coterie.attacks import attack
from coterie.core import tree
from coterie.core.engine import Engine
from coterie.engines.sequential import Sequential
from coterie.engines.vectorised import Vectorised
from coterie.loop.attack import Attack
from coterie.loop.plan import Resume
from tests.algorithms import quadratics
from tests.federations import dense, distance, ragged


def run(rounds: int = 2, recipe: Any = None, engine: Engine | None = None, **options: Any) -> list[Round]:
    return list(
        coterie.federate(
            recipe or coterie.fedavg(lr=0.1, batch_size=5),
            dense(),
            ragged(),
            rounds=rounds,
            engine=engine or Sequential(dtype=torch.float64),
            rng_seed=3,
            keep_updates=True,
            **options,
        )
    )


def test_a_sign_flip_by_hand() -> None:
    """Three clients a / 2 (w - b)^2 with a = 1, b = 1, 2, 6 and n = 1, w = 0, one full step of 0.5: they send
    w - w_i = -0.5 b. The attacker sends the mean of the other two with the other sign, and w moves by the mean of
    -0.5 b, -0.5 b' and +0.25 (b + b'): w = (b + b') / 12."""
    clients = quadratics.clients([1, 1, 1], [1, 2, 6], [1, 1, 1])
    last = quadratics.run(coterie.fedavg(lr=0.5, batch_size="full"), clients, attack=attack("sign_flip", 1))[-1]
    (evil,) = last.plan.attackers()
    honest = [b for client, b in zip(clients, [1, 2, 6], strict=True) if client != evil]
    assert quadratics.w(last) == pytest.approx(sum(honest) / 12)


def test_the_attackers_are_the_same_in_every_round_and_depend_on_the_rng_seed() -> None:
    rounds = run(3, attack=attack("sign_flip", 2))
    assert len({r.plan.attackers() for r in rounds}) == 1
    assert len(rounds[0].plan.attackers()) == 2
    drawn = {attack("sign_flip", 2).attackers([str(i) for i in range(20)], seed) for seed in range(10)}
    assert len(drawn) > 5


PARTS: dict[str, Callable[[tuple[str, ...]], bool]] = {
    "update": lambda path: True,
    "parameters": lambda path: "buffers" not in path,
    "statistics": lambda path: "buffers" in path,
}


@pytest.mark.parametrize("on", PARTS)
def test_only_attackers_and_only_the_named_parts_are_forged(on: Any) -> None:
    honest, attacked = run(1)[0], run(1, attack=attack("ipm", 2, on))[0]
    assert honest.updates is not None
    assert attacked.updates is not None
    mean = {
        path: torch.stack([dict(tree.items(u))[path] for c, u in honest.updates.items() if c not in evil]).mean(0)
        for evil in [attacked.plan.attackers()]
        for path, _ in tree.items(honest.updates["0"])
    }
    for client, update in attacked.updates.items():
        before = dict(tree.items(honest.updates[client]))
        for path, leaf in tree.items(update):
            hit = client in attacked.plan.attackers() and PARTS[on](path)
            assert torch.allclose(leaf, -2 * mean[path] if hit else before[path], rtol=0, atol=1e-12)


def test_means_and_variances_of_layers_are_forged_each_as_one_vector() -> None:
    """The line search looks for one factor per vector: all running means together, all running variances together."""
    seen: list[int] = []

    def forge(sight: Any) -> Any:
        seen.append(sight.honest.shape[1])
        return sight.own

    run(1, attack=Attack(2, forge=forge, on="statistics"))
    run(1, attack=Attack(2, forge=forge))
    assert seen == [8, 8, 6 * 8 + 8 + 8 + 8 + 8 * 3 + 3, 8, 8]


@pytest.mark.parametrize("name", ["sign_flip", "ipm", "alie", "mimic", "large_values", "gaussian", "label_flip"])
def test_engines_agree_on_every_attack(name: str) -> None:
    options = {"attack": attack(name, 2), "aggregation": aggregation("median"), "num_classes": 3}
    first = run(engine=Sequential(dtype=torch.float64), **options)[-1]
    second = run(engine=Vectorised(dtype=torch.float64, chunk=2), **options)[-1]
    assert distance(first.weights(), second.weights()) < 1e-10
    assert distance(first.weights(), run(aggregation=aggregation("median"))[-1].weights()) > 1e-6


def test_flipped_labels_are_trained_on_and_by_nobody_else() -> None:
    """The same as a federation in which the attackers' labels are 2 - y from the start."""
    attacked = run(attack=attack("label_flip", 2), num_classes=3)[-1]
    clients = {
        client: Examples(x, 2 - y if client in attacked.plan.attackers() else y)
        for client, (x, y) in ((c, e.tensors()) for c, e in ragged().items())
    }
    recipe, engine = coterie.fedavg(lr=0.1, batch_size=5), Sequential(dtype=torch.float64)
    by_hand = list(coterie.federate(recipe, dense(), clients, rounds=2, engine=engine, rng_seed=3))[-1]
    assert distance(attacked.weights(), by_hand.weights()) == 0


def test_a_robust_rule_undoes_what_ruins_the_mean() -> None:
    """Two of six clients send 1e10; the mean of the others is missed by 1e9 with the mean, and hardly by the median."""
    alone = run(1)[0].weights()
    ruined = run(1, attack=attack("large_values", 2))[0].weights()
    defended = run(1, attack=attack("large_values", 2), aggregation=aggregation("median", num_byzantine=2))[0].weights()
    assert distance(alone, ruined) > 1e8
    assert distance(alone, defended) < 1


def test_a_round_without_attackers_or_without_others_is_as_it_is() -> None:
    """Cohorts of one client: whoever it is, nothing is forged."""
    options = {"cohort": 1, "rounds": 6}
    assert distance(run(attack=attack("sign_flip", 3), **options)[-1].weights(), run(**options)[-1].weights()) == 0


def test_a_resumed_attack_is_the_same_attack() -> None:
    whole = run(4, attack=attack("gaussian", 2), aggregation=aggregation("mean", ["bucketing"], num_byzantine=2))
    second = whole[1]
    rest = run(
        4,
        attack=attack("gaussian", 2),
        aggregation=aggregation("mean", ["bucketing"], num_byzantine=2),
        resume=Resume(2, second.state, second.store),
    )
    assert distance(whole[-1].weights(), rest[-1].weights()) == 0


def test_someone_must_be_honest() -> None:
    with pytest.raises(Mistake, match=r"attack\.num_clients = 6: there are 6 clients, and one must stay honest"):
        run(attack=attack("sign_flip", 6))


def test_an_algorithm_that_sends_no_statistics() -> None:
    model = nn.Sequential(nn.Linear(6, 3)).double()
    rounds = coterie.federate(
        coterie.fedavg(lr=0.1), model, ragged(), rounds=1, engine=Sequential(dtype=torch.float64),
        attack=attack("sign_flip", 1, on="statistics"),
    )  # fmt: skip
    with pytest.raises(Mistake, match=r'attack\.on = "statistics": the updates of this algorithm have no such part'):
        next(rounds)


def test_labels_that_cannot_be_flipped() -> None:
    clients = {str(k): Examples(torch.zeros(2, 1), torch.zeros(2, 2)) for k in range(3)}
    with pytest.raises(Mistake, match="no class labels to flip"):
        quadratics.run(coterie.fedavg(lr=0.1), clients, attack=attack("label_flip", 1))
