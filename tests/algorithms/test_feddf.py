"""FedDF, held against a plain loop over modules whose batches are all there is."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import coterie
from coterie import Batch, Examples, Mistake, Recipe, Round, RoundInfo
from coterie.algorithms.feddf import seed_batches
from coterie.core import rng
from coterie.engines.sequential import Sequential
from tests.algorithms.mutual import gradient, move
from tests.federations import distance, ragged, seed_set

SEED = seed_set(n=8)
CLIENTS = ragged(sizes=(7, 9, 5))
STEPS, RATE = 6, 0.02


def model() -> nn.Module:
    torch.manual_seed(3)
    return nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 3)).double()


def recipe(**options: object) -> Recipe:
    """Batches of everything, so that a plain loop has the same ones."""
    given = {"lr": 0.3, "batch_size": "full", "local_steps": 3, "distill_steps": STEPS, "distill_lr": RATE} | options
    return coterie.feddf(**given)


def run(chosen: Recipe, rounds: int = 3, **options: object) -> Round:
    options = {"engine": Sequential(dtype=torch.float64), "seed_set": SEED} | options
    return list(coterie.federate(chosen, model(), CLIENTS, rounds=rounds, **options))[-1]


def averaged(models: list[nn.Module], sizes: list[int]) -> nn.Module:
    result = copy.deepcopy(models[0])
    for name, p in result.named_parameters():
        parts = [n * dict(m.named_parameters())[name].detach() for m, n in zip(models, sizes, strict=True)]
        p.data.copy_(sum(parts) / sum(sizes))
    return result


def distill(student: nn.Module, teacher: Tensor) -> None:
    """Adam as its paper has it, but for the bias correction; beta2 is 0.99."""
    m, v = 0.0, 1e-16
    for j in range(STEPS):
        loss = (teacher * (teacher.log() - F.log_softmax(student(SEED.x), -1))).sum(-1).mean()
        g = gradient(student, loss)
        m, v = 0.9 * m + 0.1 * g, 0.99 * v + 0.01 * g * g
        move(student, m / (v.sqrt() + 1e-8), RATE * (1 + math.cos(math.pi * j / STEPS)) / 2)


def by_hand(rounds: int) -> nn.Module:
    server = model()
    for _ in range(rounds):
        trained = []
        for x, y in (examples.tensors() for examples in CLIENTS.values()):
            own = copy.deepcopy(server)
            for _ in range(3):
                move(own, gradient(own, F.cross_entropy(own(x), y)), 0.3)
            trained.append(own)
        server = averaged(trained, [len(examples) for examples in CLIENTS.values()])
        distill(server, F.softmax(torch.stack([own(SEED.x).detach() for own in trained]).mean(0), -1))
    return server


def test_three_rounds_by_a_plain_loop():
    assert distance(run(recipe()).weights(), dict(by_hand(3).state_dict())) < 1e-10


def test_without_a_step_it_is_fedavg_and_with_some_it_is_not():
    """To the last bit: what is sent beside the weights changes nothing."""
    average = run(coterie.fedavg(lr=0.3, batch_size="full", local_steps=3)).weights()
    assert distance(run(recipe(distill_steps=0)).weights(), average) == 0
    assert distance(run(recipe()).weights(), average) > 1e-3


def test_labels_do_not_matter():
    bare = Examples(SEED.x)
    assert distance(run(recipe()).weights(), run(recipe(), seed_set=bare).weights()) == 0


def test_clients_send_their_weights_and_a_table_of_scores():
    last = run(recipe(), keep_updates=True)
    parameters = sum(p.numel() for p in model().parameters())
    assert last.bytes_up == 3 * 8 * (parameters + len(SEED) * 3)
    assert last.bytes_down == 3 * 8 * parameters
    assert last.updates is not None
    assert all(update["scores"].shape == (len(SEED), 3) for update in last.updates.values())


def report(n: int, round: int = 1) -> RoundInfo:
    public = Batch(torch.arange(float(n))[:, None], None, torch.arange(n), None, rng.key("public"))
    return RoundInfo(round, 1, 1, {}, rng.key(0, round, "server"), public)


def test_the_server_s_batches_are_passes_over_the_seed_set():
    """Ten batches of 4 from 10 examples are four passes, each in an order of its own; another round has others."""
    batches = [batch.rows.tolist() for batch in seed_batches(report(10), 10, 4)]
    assert [len(batch) for batch in batches] == [4] * 10
    drawn = [row for batch in batches for row in batch]
    passes = [drawn[k : k + 10] for k in range(0, 40, 10)]
    assert all(sorted(each) == list(range(10)) for each in passes)
    assert len({tuple(each) for each in passes}) == 4
    assert all(batch.x.flatten().tolist() == batch.rows.tolist() for batch in seed_batches(report(10), 3, 4))
    assert [batch.rows.tolist() for batch in seed_batches(report(10, round=2), 10, 4)] != batches
    assert [len(batch.rows) for batch in seed_batches(report(3), 2, 128)] == [3, 3]
    assert list(seed_batches(report(3), 0, 128)) == []


def test_it_needs_a_seed_set_and_one_architecture():
    with pytest.raises(Mistake, match="this algorithm needs a seed set that every client holds"):
        run(recipe(), seed_set=None)
    with pytest.raises(Mistake, match="clients differ in architecture"):
        list(coterie.federate(recipe(), [model(), nn.Linear(6, 3).double()], CLIENTS, rounds=1, seed_set=SEED))


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"distill_steps": -1}, r"distill_steps = -1: it must be 0 or more"),
        ({"distill_lr": 0.0}, r"distill_lr = 0.0: it must be a number above 0"),
        ({"distill_batch_size": 0}, r"distill_batch_size = 0: it must be 1 or more"),
    ],
)
def test_what_it_refuses(options, sentence):
    with pytest.raises(Mistake, match=sentence):
        recipe(**options)
