"""FedMD, held against a plain loop over modules whose batches are all there is."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import coterie
from coterie import Examples, Mistake, Round
from coterie.core.aggregators import Coordinatewise
from coterie.core.transforms import cast
from coterie.engines.sequential import Sequential
from tests.algorithms.mutual import gradient, move
from tests.federations import distance, ragged, seed_set

SEED = seed_set(n=8)
CLIENTS = ragged(sizes=(7, 9, 5))


def models() -> dict[str, nn.Module]:
    torch.manual_seed(3)
    small, deep = nn.Linear(6, 3).double(), nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 3)).double()
    return {"0": small, "1": deep, "2": small}


def run(rounds: int, seed_set: Examples = SEED, **options: object) -> Round:
    federation = {name: options.pop(name) for name in ("available", "aggregation", "up") if name in options}
    settings = {"lr": 0.2, "batch_size": "full", "local_steps": 3, "digest_batch_size": 8} | options
    engine = Sequential(dtype=torch.float64)
    return list(
        coterie.federate(
            coterie.fedmd(**settings), models(), CLIENTS, rounds=rounds, seed_set=seed_set, engine=engine, **federation
        )
    )[-1]


def by_hand(
    rounds: int,
    approach: Callable[[Tensor, Tensor], Tensor] = lambda outputs, target: (outputs - target).abs().mean(),
    says: Callable[[Tensor], Tensor] = lambda outputs: outputs,
    transfer: int = 1,
    digest: int = 1,
    digest_lr: float = 0.2,
    present: Callable[[int, str], bool] = lambda round, client: True,
    consensus_of: Callable[[Tensor], Tensor] = lambda scores: scores.mean(0),
) -> dict[str, nn.Module]:
    """Transfer, then digest and revisit, three private steps in each round."""
    mine = {client: copy.deepcopy(model) for client, model in models().items()}
    consensus, began = None, set()
    for number in range(1, rounds + 1):
        scores = []
        for client in (c for c in CLIENTS if present(number, c)):
            model, (x, y) = mine[client], CLIENTS[client].tensors()
            for _ in range(transfer if consensus is None else digest):
                learn = consensus is None or client not in began
                outputs = model(SEED.x)
                loss = F.cross_entropy(outputs, SEED.y) if learn else approach(outputs, consensus)
                move(model, gradient(model, loss), digest_lr)
            for _ in range(3):
                move(model, gradient(model, F.cross_entropy(model(x), y)), 0.2)
            began.add(client)
            scores.append(says(model(SEED.x)).detach())
        consensus = consensus_of(torch.stack(scores))
    return mine


def assert_same(last: Round, expected: dict[str, nn.Module]) -> None:
    for client in CLIENTS:
        assert distance(last.weights(client), dict(expected[client].state_dict())) < 1e-10


def test_three_rounds_by_a_plain_loop():
    assert_same(run(3), by_hand(3))


def test_more_passes_at_a_rate_of_their_own():
    assert_same(
        run(3, transfer_epochs=4, digest_epochs=2, digest_lr=0.05), by_hand(3, transfer=4, digest=2, digest_lr=0.05)
    )


def test_posteriors_instead_of_logits():
    """T^2 KL(consensus || softmax(outputs / T)), with T = 2."""

    def approach(outputs: Tensor, target: Tensor) -> Tensor:
        return 4 * (target * (target.log() - F.log_softmax(outputs / 2, -1))).sum(-1).mean()

    expected = by_hand(3, approach, lambda outputs: F.softmax(outputs / 2, -1))
    assert_same(run(3, match="posteriors", temperature=2.0), expected)


def test_a_client_that_comes_late_learns_the_labels_first():
    late = lambda number, client: (number, client) != (1, "1")  # noqa: E731
    assert_same(run(3, available=late), by_hand(3, present=late))


def test_the_consensus_may_be_a_median():
    median = Coordinatewise(lambda matrix: matrix.median(0).values)
    assert_same(run(3, aggregation=median), by_hand(3, consensus_of=lambda scores: scores.median(0).values))


def test_minibatches_cover_the_seed_set_once_in_a_fresh_order():
    """Three passes in batches of 3 are not three passes in one batch, nor does another round draw the same order."""
    small, whole = run(2, digest_batch_size=3), run(2)
    assert distance(small.weights("0"), whole.weights("0")) > 1e-6


def test_without_labels_there_is_no_transfer():
    bare = Examples(SEED.x)
    assert_same(run(1, seed_set=bare), by_hand(1, transfer=0))
    assert_same(run(2, seed_set=bare), by_hand(2, transfer=0))


def test_scores_are_all_that_travels():
    size = 8 * len(SEED) * 3
    first, second = run(1), run(2)
    assert (first.bytes_up, first.bytes_down) == (3 * size, 0)
    assert (second.bytes_up, second.bytes_down) == (3 * size, 3 * size)
    assert run(2, up=cast(torch.float32, back=torch.float64)).bytes_up == 3 * size // 2
    assert run(2, send_as="float16").bytes_up == 3 * size // 4
    assert run(2, send_as="uint8", match="posteriors").bytes_up == 3 * size // 8


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"digest_epochs": 0}, r"digest_epochs = 0: it must be 1 or more"),
        ({"transfer_epochs": -1}, r"transfer_epochs = -1: it must be 0 or more"),
        ({"digest_batch_size": 0}, r"digest_batch_size = 0: it must be 1 or more"),
        ({"digest_lr": 0.0}, r"digest_lr = 0.0: it must be a number above 0"),
        ({"match": "scores"}, r'match = "scores": it must be "logits" or "posteriors"'),
        ({"send_as": "uint8"}, r'send_as = "uint8": it must be "float32" or "float16" where match = "logits"'),
        ({"temperature": 0.0}, r"temperature = 0.0: it must be a number above 0"),
    ],
)
def test_what_it_refuses(options, sentence):
    with pytest.raises(Mistake, match=sentence):
        coterie.fedmd(lr=0.1, **options)
