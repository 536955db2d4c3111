"""What holds for every algorithm on every engine. A new algorithm is one more line in `RECIPES`."""

from collections.abc import Callable, Iterator
from functools import cache
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor, nn

import coterie
from coterie import Faults, Recipe, Round
from coterie.core import tree
from coterie.core.engine import Engine
from coterie.engines.sequential import Sequential
from coterie.engines.vectorised import Vectorised
from coterie.loop.checkpoint import Checkpoints
from tests.common.recipes import RECIPES
from tests.federations import apart, convolutional, dense, distance, ragged, seed_set

ENGINES: dict[str, Callable[[], Engine]] = {
    "sequential": lambda: Sequential(dtype=torch.float64),
    "vectorised": lambda: Vectorised(dtype=torch.float64),
    "vectorised, chunks of 2": lambda: Vectorised(dtype=torch.float64, chunk=2),
}
MODELS = {"dense": (dense, (6,)), "convolutional": (convolutional, (1, 8, 8))}
FAULTS = Faults(drop=0.1, straggle=0.1, corrupt=0.1)

every_algorithm = pytest.mark.parametrize("recipe", RECIPES)
every_engine = pytest.mark.parametrize("engine", ENGINES)


def every_round(
    recipe: Recipe, engine: Engine, model: str = "dense", rounds: int = 4, **options: object
) -> Iterator[Round]:
    make, shape = MODELS[model]
    clients = options.pop("clients", None) or ragged(shape=shape)
    options = {"cohort": 0.7, "faults": FAULTS, "rng_seed": 3, "seed_set": seed_set(shape=shape)} | options
    return coterie.federate(recipe, make(), clients, rounds=rounds, engine=engine, **options)


def run(recipe: Recipe, engine: Engine, model: str = "dense", rounds: int = 4, **options: object) -> list[Round]:
    return list(every_round(recipe, engine, model, rounds, **options))


def all_weights(last: Round) -> dict[str, Tensor]:
    """Every client's model, and the whole server state."""
    found = {f"S/{name}": leaf for name, leaf in tree.flatten(last.state).items()}
    for client in last.plan.ids:
        found |= {f"{client}/{name}": leaf for name, leaf in last.weights(client).items()}
    return found


class Outcome(NamedTuple):
    """What tests compare of a run of four rounds."""

    weights: list[dict[str, Tensor]]  # after each round
    dropped: list[Any]
    bytes_up: list[int]
    train_loss: list[float | None]
    unbatched: dict[str, str]  # of the engine, once the run is over


@cache
def first_outcome(recipe: str, engine: str, model: str = "dense") -> Outcome:
    """Run four rounds of ragged, partially sampled, faulty clients, once for all the tests of a process."""
    used, rounds, weights = ENGINES[engine](), [], []
    for round in every_round(RECIPES[recipe], used, model):
        rounds.append(round)
        weights.append({name: leaf.clone() for name, leaf in all_weights(round).items()})
    unbatched = used.unbatched if isinstance(used, Vectorised) else {}
    return Outcome(
        weights,
        [r.dropped for r in rounds],
        [r.bytes_up for r in rounds],
        [r.train_loss for r in rounds],
        unbatched,
    )


@every_algorithm
@pytest.mark.parametrize("engine", list(ENGINES)[1:])
@pytest.mark.parametrize("model", MODELS)
def test_engines_agree_to_rounding(recipe: str, engine: str, model: str) -> None:
    """Ragged, partially sampled, faulty, stateful clients with BatchNorm and dropout: 1e-10 in float64."""
    reference, batched = first_outcome(recipe, "sequential", model), first_outcome(recipe, engine, model)
    assert batched.unbatched == {}
    assert distance(reference.weights[-1], batched.weights[-1]) < 1e-10
    assert reference.dropped == batched.dropped
    assert reference.bytes_up == batched.bytes_up
    assert reference.train_loss == pytest.approx(batched.train_loss, abs=1e-10)


@every_algorithm
@every_engine
def test_the_same_rng_seed_gives_the_same_weights_bit_for_bit(recipe: str, engine: str) -> None:
    again = run(RECIPES[recipe], ENGINES[engine](), rounds=3)
    assert distance(first_outcome(recipe, engine).weights[2], all_weights(again[-1])) == 0


@every_algorithm
@every_engine
def test_another_rng_seed_gives_other_weights(recipe: str, engine: str) -> None:
    other = run(RECIPES[recipe], ENGINES[engine](), rounds=1, rng_seed=4)[-1]
    if not other.plan.algorithm.traits.pooled:  # one pooled client takes full batches of nobody's choosing
        assert distance(first_outcome(recipe, engine).weights[0], all_weights(other)) > 0


@every_algorithm
@every_engine
def test_a_resumed_run_ends_bit_for_bit_where_an_unbroken_one_does(
    recipe: str, engine: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("checkpoint")
    first = run(RECIPES[recipe], ENGINES[engine](), rounds=2)
    Checkpoints(folder).save(first[-1])
    resume = Checkpoints(folder).load()
    rest = run(RECIPES[recipe], ENGINES[engine](), rounds=4, resume=resume)
    whole = first_outcome(recipe, engine)
    assert [r.round for r in rest] == [3, 4]
    assert distance(whole.weights[-1], all_weights(rest[-1])) == 0
    assert whole.train_loss[2:] == [r.train_loss for r in rest]


@every_algorithm
@every_engine
def test_clients_do_not_touch_one_another(recipe: str, engine: str) -> None:
    """The order in which clients are listed, and whether they share memory, changes rounding at most.

    Parameters that are views into one shared vector, or buffers left in a shared model, would let the client that
    trains first move the start of the next.
    """
    clients = ragged()
    backwards = apart({client: clients[client] for client in reversed(clients)})
    options = {"cohort": None, "faults": None, "rounds": 3}  # the third is the first in which every recipe trains
    forward = run(RECIPES[recipe], ENGINES[engine](), **options)[-1]
    reverse = run(RECIPES[recipe], ENGINES[engine](), clients=backwards, **options)[-1]
    if not forward.plan.algorithm.traits.pooled:  # a pool in another order is another order of batches
        assert distance(all_weights(forward), all_weights(reverse)) < 1e-10


@every_algorithm
@every_engine
def test_what_is_handed_out_is_never_written(recipe: str, engine: str) -> None:
    """S, B and each C_i as a round received them are the same after it."""
    before: list[tuple[dict[str, Tensor], dict[str, Tensor]]] = []
    model, clients = dense(), ragged()
    start = {name: value.clone() for name, value in model.state_dict().items()}
    options = {"rounds": 3, "engine": ENGINES[engine](), "rng_seed": 3, "seed_set": seed_set()}
    for last in coterie.federate(RECIPES[recipe], model, clients, **options):
        for held, copy in before:
            assert distance(held, copy) == 0
        held = all_weights(last)
        before.append((held, {name: leaf.clone() for name, leaf in held.items()}))
    assert distance(start, dict(model.state_dict())) == 0


class Scale(nn.Module):
    """One number, of shape []."""

    def __init__(self) -> None:
        super().__init__()
        self.factor = nn.Parameter(torch.tensor(2.0))

    def forward(self, x: Tensor) -> Tensor:
        return self.factor * x


@every_algorithm
def test_a_parameter_of_no_dimension_keeps_its_type(recipe: str) -> None:
    """In arithmetic with a single number of a larger type it would take that one's, as no other parameter does; and the
    server refuses updates of another type than its model's."""
    model = nn.Sequential(dense().float(), Scale())
    last = list(coterie.federate(RECIPES[recipe], model, ragged(), rounds=3, seed_set=seed_set()))[-1]
    assert last.dropped == []
    assert {name: x.dtype for name, x in last.weights().items()} == {n: x.dtype for n, x in model.state_dict().items()}


@every_algorithm
def test_bytes_are_those_of_the_trees_that_travel(recipe: str) -> None:
    first, last = run(RECIPES[recipe], ENGINES["sequential"](), rounds=2, faults=None, keep_updates=True)
    assert last.updates is not None
    assert last.bytes_up == sum(tree.nbytes(update) for update in last.updates.values())
    assert last.bytes_down == len(last.cohort) * tree.nbytes(last.plan.algorithm.server.broadcast(first.state))


@every_algorithm
@every_engine
def test_a_round_that_reaches_nobody_leaves_the_state_as_it_was(recipe: str, engine: str) -> None:
    one, two = run(RECIPES[recipe], ENGINES[engine](), rounds=2, faults=Faults(corrupt=1.0), keep_updates=True)
    if one.plan.algorithm.traits.pooled:  # where data are in one place nothing is sent that could be corrupt
        assert one.reached == two.reached == 1
        return
    assert one.reached == two.reached == 0
    assert two.train_loss is None
    assert two.updates == {}
    assert {d["client"] for d in two.dropped} == set(two.cohort)
    assert distance(all_weights(one), all_weights(two)) == 0
    start = coterie.plan(RECIPES[recipe], dense(), ragged(), rounds=1, engine=ENGINES[engine]())
    assert distance(one.weights(), {**start.initial["model"]["params"], **start.initial["model"]["buffers"]}) == 0
