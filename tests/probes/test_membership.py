"""Members told from others by their scores."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score
from torch import nn

import coterie
from coterie import Examples
from coterie.core.engine import as_input
from coterie.engines.sequential import Sequential
from coterie.loop import evaluate
from coterie.models.functional import initial_weights
from coterie.probes.membership import judge_membership, log_odds, offline_scores

SCORES = st.lists(st.integers(-5, 5).map(float), min_size=2, max_size=30)


@settings(max_examples=50, deadline=None)
@given(SCORES, SCORES)
def test_the_area_is_scikit_learns(members: list[float], others: list[float]) -> None:
    """Ties included."""
    found = judge_membership(torch.tensor(members), torch.tensor(others))
    labels = [1] * len(members) + [0] * len(others)
    assert found.auc == pytest.approx(roc_auc_score(labels, members + others), abs=1e-12)
    if found.interval is not None:
        assert found.interval[0] <= found.auc <= found.interval[1]


def test_rates_by_hand() -> None:
    """Of 100 others one is above two of four members, and all others are below all members.

    No false alarm: the two members above it. At one false alarm of 100, 1 %: all four. 0.1 % is less than one of 100.
    """
    others = torch.cat([torch.tensor([3.0]), torch.zeros(99)])
    found = judge_membership(torch.tensor([1.0, 2.0, 4.0, 5.0]), others)
    assert found.at_low_rates == {0.001: None, 0.01: 1.0}
    assert found.auc == pytest.approx(1 - 2 / 400)
    assert found.advantage == pytest.approx(0.99)
    assert (found.members, found.others) == (4, 100)


def noise_examples(n: int, seed: int) -> Examples:
    """Random points with random labels: nothing can be learnt, only remembered."""
    g = torch.Generator().manual_seed(seed)
    return Examples(torch.randn(n, 20, generator=g), torch.randint(2, (n,), generator=g))


def test_a_model_that_remembers_gives_its_members_away_and_one_that_was_not_trained_does_not() -> None:
    members, others = noise_examples(60, 0), noise_examples(400, 1)
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(20, 64), nn.ReLU(), nn.Linear(64, 2))
    engine = Sequential()
    recipe = coterie.fedavg(lr=0.5, local_steps=200, batch_size="full")
    plan = coterie.plan(recipe, model, {"a": members}, rounds=1, engine=engine)
    (last,) = coterie.federate(recipe, model, {"a": members}, rounds=1, engine=engine)
    (task,) = plan.tasks.values()
    areas = []
    for weights in (initial_weights(model), last.state):
        each = [evaluate.scores(task, weights, e, engine).each["loss"][0] for e in (members, others)]
        found = judge_membership(-each[0], -each[1])
        x = torch.cat([members.x, others.x])
        y = torch.cat([members.y, others.y])
        with torch.no_grad():
            loss = nn.functional.cross_entropy(
                task.predict(weights["params"], weights["buffers"], as_input(x, engine)), y, reduction="none"
            )
        labels = [1] * len(members) + [0] * len(others)
        assert found.auc == pytest.approx(roc_auc_score(labels, (-loss).numpy()), abs=1e-6)
        areas.append(found)
    untrained, trained = areas
    assert untrained.interval is not None
    assert untrained.interval[0] < 0.5 < untrained.interval[1]
    assert trained.auc > 0.8
    assert trained.advantage > 0.4 > 0.2 > untrained.advantage


def test_log_odds_are_those_of_the_probability() -> None:
    p = torch.tensor([0.1, 0.5, 0.9], dtype=torch.float64)
    assert torch.allclose(log_odds(-p.log()), torch.logit(p))


def test_offline_scores_by_hand() -> None:
    """One example; shadows that do not know it give 1 and 3, one that knows it gives 100, which does not count.

    The mean is 2, the deviation sqrt((1 + 1) / 1) = sqrt(2). An attacked model with 2 + sqrt(2) has the score
    log Phi(1) = log 0.8413.
    """
    phi = torch.tensor([2 + 2**0.5])
    shadows = torch.tensor([[1.0], [3.0], [100.0]])
    out = torch.tensor([[True], [True], [False]])
    score = offline_scores(phi, shadows, out)
    assert float(score) == pytest.approx(torch.log(torch.tensor(0.841344746)).item(), abs=1e-6)


def test_offline_scores_take_off_how_hard_an_example_is() -> None:
    """Members are three deviations above what shadows give; examples differ by far more, which hides it."""
    g = torch.Generator().manual_seed(0)
    hardness = 50 * torch.randn(400, generator=g, dtype=torch.float64)
    shadows = hardness + torch.randn(8, 400, generator=g, dtype=torch.float64)
    phi = hardness + torch.randn(400, generator=g, dtype=torch.float64)
    phi[:200] += 3
    scores = offline_scores(phi, shadows, torch.ones(8, 400).bool())
    assert judge_membership(phi[:200], phi[200:]).auc < 0.6
    assert judge_membership(scores[:200], scores[200:]).auc > 0.95
