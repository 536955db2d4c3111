"""FixBN and the stages it is made of."""

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import coterie
from coterie import Mistake, Recipe, plan
from coterie.algorithms.stages import stages
from coterie.loop.checkpoint import Checkpoints
from tests.algorithms import quadratics
from tests.algorithms.normed import FULL, PAPER, dense, every_engine, one_label_each, run
from tests.federations import distance, ragged

OPTIONS = {"lr": 0.1, "batch_size": "full", "local_steps": 2}


@every_engine
def test_the_first_stage_is_fedavg(engine: str) -> None:
    clients = ragged()
    fixed = run(coterie.fixbn(**OPTIONS, freeze_after=3), dense(), clients, rounds=3, engine=engine)
    average = run(coterie.fedavg(**OPTIONS), dense(), clients, rounds=3, engine=engine)
    assert distance(fixed.weights(), average.weights()) == 0


@every_engine
def test_the_second_stage_by_a_plain_loop(engine: str) -> None:
    """Clients train in evaluation mode, from the weights of the last round of the first stage."""
    clients = ragged(sizes=(7, 12, 9))
    last = run(coterie.fixbn(**OPTIONS, freeze_after=1), dense(), clients, rounds=3, engine=engine)
    weights = run(coterie.fedavg(**OPTIONS), dense(), clients, rounds=1, engine=engine).weights()
    for _ in range(2):
        ends = []
        for examples in clients.values():
            x, y = examples.tensors()
            model = dense().eval()
            model.load_state_dict(weights)
            descent = torch.optim.SGD(model.parameters(), lr=0.1)
            for _ in range(2):
                descent.zero_grad()
                F.cross_entropy(model(x), y).backward()
                descent.step()
            ends.append({name: len(examples) / 28 * p.detach() for name, p in model.named_parameters()})
        weights = weights | {name: sum(end[name] for end in ends) for name in ends[0]}
    assert distance(last.weights(), weights) < 1e-10


def test_statistics_stand_still_after_the_switch() -> None:
    clients = one_label_each((6,))
    at, later = (run(coterie.fixbn(**OPTIONS, freeze_after=2), dense(), clients, rounds=r).weights() for r in (2, 5))
    for name, value in at.items():
        assert torch.equal(value, later[name]) == ("running" in name or "tracked" in name)


def test_frozen_from_the_start_is_the_models_own_statistics() -> None:
    """A pre-trained model's statistics are used as they are."""
    model = dense()
    model[1].running_mean.fill_(0.3)
    last = run(coterie.fixbn(**OPTIONS, freeze_after=0), copy.deepcopy(model), ragged(), rounds=2)
    assert (last.weights()["1.running_mean"] == 0.3).all()


def test_a_stage_after_another_by_hand() -> None:
    """On a / 2 (w - b)^2 of one client with a = 2, b = 5, from w = 0: with lr 0.5 a step ends at 5; with 0.1 it goes a
    fifth of the way. Two rounds of 0.1 end at 1 and at 1.8, and one of 0.5 at 5."""
    slow, fast = coterie.fedavg(lr=0.1, batch_size="full"), coterie.fedavg(lr=0.5, batch_size="full")
    one = quadratics.clients([2], [5], [1])
    rounds = quadratics.run(stages([(slow, 2), (fast, None)]), one, rounds=3)
    assert [quadratics.w(r) for r in rounds] == pytest.approx([1, 1.8, 5])


def test_stages_over_algorithms_with_other_states_resume_bit_for_bit(tmp_path) -> None:
    """Momentum at the server survives a stage that has none."""
    kinds = (coterie.fedavgm, 2), (coterie.scaffold, 2), (coterie.fedavg, None)
    recipe = stages([(kind(**OPTIONS), rounds) for kind, rounds in kinds])
    options = {"model": dense(), "clients": ragged()}
    whole = run(recipe, **options, rounds=6)
    assert {"server", "control"} <= whole.state.keys()
    first = run(recipe, **options, rounds=3)
    Checkpoints(tmp_path).save(first)
    rest = run(recipe, **options, rounds=6, resume=Checkpoints(tmp_path).load())
    assert distance(whole.weights(), rest.weights()) == 0


@pytest.mark.parametrize(
    "recipe",
    [
        coterie.fbn(**PAPER, warm_start=2),
        coterie.hbn(**FULL),
        coterie.fixbn(**OPTIONS, freeze_after=2),
    ],
)
def test_the_only_stage_is_the_algorithm_itself(recipe: Recipe) -> None:
    """Its own stages included: a warm start, rounds of two kinds in turn, statistics that freeze."""
    options = {"model": dense(), "clients": ragged(), "rounds": 4}
    alone, staged = run(recipe, **options), run(stages([(recipe, None)]), **options)
    assert distance(alone.weights(), staged.weights()) == 0


def test_a_later_stage_counts_its_rounds_from_its_own_first() -> None:
    """FBN's warm start after two rounds of FedAvg: the third round measures, so parameters stay; the fourth trains."""
    recipe = stages([(coterie.fedavg(**OPTIONS), 2), (coterie.fbn(**OPTIONS | {"local_steps": 1}, warm_start=1), None)])
    weights = {k: run(recipe, dense(), ragged(), rounds=k).weights() for k in (2, 3, 4)}
    moved = {k: {name for name in weights[2] if not torch.equal(weights[2][name], weights[k][name])} for k in (3, 4)}
    assert moved[3] == {name for name in weights[2] if "running" in name or "tracked" in name}
    assert moved[4] == weights[2].keys()
    assert plan(recipe, dense(), ragged(), rounds=3).algorithm.warnings(3)[0].endswith("measures and none trains")
    assert not plan(recipe, dense(), ragged(), rounds=4).algorithm.warnings(4)


@pytest.mark.parametrize("parts", [[], [("a", 3)], [("a", None), ("b", None)], [("a", -1), ("b", None)]])
def test_stages_without_their_rounds(parts) -> None:
    with pytest.raises(Mistake, match="every stage except the last needs a number of rounds"):
        stages(parts)


def test_what_cannot_be_used() -> None:
    with pytest.raises(Mistake, match=r"freeze_after = -1: it must be 0 or more"):
        coterie.fixbn(lr=0.1, freeze_after=-1)
    with pytest.raises(Mistake, match="it has no BatchNorm layer"):
        coterie.plan(coterie.fixbn(lr=0.1, freeze_after=1), nn.Linear(6, 3), ragged(), rounds=1)
