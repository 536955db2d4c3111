"""The contract, proven before anything is built on it: a plain loop and a batched one agree to 1e-10 in float64.

FedAvg and SCAFFOLD, with BatchNorm, dropout and short last batches, are proven in `tests/common`; here is what strains
the contract more: two architectures with a second data stream, and a rule that aggregates in three stages.
"""

import pytest
import torch
from torch import nn

import coterie
from coterie import Examples, Faults, Round
from coterie.core.aggregators import Coordinatewise
from coterie.core.engine import Engine
from coterie.engines.sequential import Sequential
from coterie.engines.vectorised import Vectorised
from tests.contract.sketches import mutual, statistics
from tests.federations import dense, distance, ragged

ENGINES: list[Vectorised] = [Vectorised(dtype=torch.float64), Vectorised(dtype=torch.float64, chunk=2)]


def seed_set(n: int = 10) -> Examples:
    g = torch.Generator().manual_seed(9)
    return Examples(torch.randn(n, 6, generator=g, dtype=torch.float64), torch.randint(3, (n,), generator=g))


def run_mutual(engine: Engine, rounds: int = 4) -> Round:
    """Two architectures, dealt in turn; one of them has BatchNorm and dropout."""
    torch.manual_seed(4)
    models = [dense(), nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 3)).double()]
    options = {"cohort": 0.7, "faults": Faults(drop=0.2), "rng_seed": 1, "seed_set": seed_set()}
    return list(coterie.federate(mutual(10, 3), models, ragged(), rounds=rounds, engine=engine, **options))[-1]


@pytest.mark.parametrize("engine", ENGINES, ids=["one chunk", "chunks of 2"])
def test_two_architectures_and_a_second_stream_agree(engine: Vectorised) -> None:
    reference, other = run_mutual(Sequential(dtype=torch.float64)), run_mutual(engine)
    for client in reference.plan.ids:
        assert distance(reference.weights(client), other.weights(client)) < 1e-10
    assert engine.unbatched == {}
    assert distance(reference.state, other.state) < 1e-10


def test_only_posteriors_travel() -> None:
    """Up: one [S, C] table of 8-byte numbers per client. Down: the sum, its count and its round."""
    last = run_mutual(Sequential(dtype=torch.float64), rounds=1)
    assert last.bytes_up == last.reached * 10 * 3 * 8
    assert last.bytes_down == len(last.cohort) * (10 * 3 * 8 + 8 + 8)


def test_architectures_differ_and_every_client_keeps_its_own() -> None:
    last = run_mutual(Sequential(dtype=torch.float64))
    shapes = [{name: tuple(w.shape) for name, w in last.weights(client).items()} for client in last.plan.ids]
    assert shapes[0] != shapes[1]
    assert shapes[0] == shapes[2]
    assert distance(last.weights("0"), last.weights("2")) > 1e-3


@pytest.mark.parametrize(
    "engine", [Sequential(dtype=torch.float64), *ENGINES], ids=["sequential", "one", "chunks of 2"]
)
def test_three_stages_give_the_pooled_statistics(engine: Engine) -> None:
    """M and V after one round are what BatchNorm's running statistics are after one batch that pools all clients.

    Clients hold equally many examples here, since the rule's last stage weighs each client's distance to the mean.
    """
    clients = ragged(sizes=(8, 8, 8))
    last = next(coterie.federate(statistics(), dense(), clients, rounds=1, engine=engine))
    pooled = nn.BatchNorm1d(6).double()
    pooled(torch.cat([examples.tensors()[0] for examples in clients.values()]))
    assert torch.allclose(last.state["M"], pooled.running_mean, rtol=0, atol=1e-12)
    assert torch.allclose(last.state["V"], pooled.running_var, rtol=0, atol=1e-12)


@pytest.mark.parametrize("engine", ENGINES, ids=["one chunk", "chunks of 2"])
def test_three_stages_over_a_robust_rule_agree(engine: Engine) -> None:
    """Ragged clients, so that padding is masked, and the coordinate-wise median inside every stage."""
    median = Coordinatewise(lambda matrix: matrix.median(0).values)
    rounds = [
        list(coterie.federate(statistics(), dense(), ragged(), rounds=3, engine=e, aggregation=median))[-1]
        for e in (Sequential(dtype=torch.float64), engine)
    ]
    for name in ("M", "V"):
        assert torch.allclose(rounds[0].state[name], rounds[1].state[name], rtol=0, atol=1e-10)
    assert (rounds[0].state["V"] > 0).all()
