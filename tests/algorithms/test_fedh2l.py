"""FedH2L, reconstructed: held against a plain loop, and against what its docstring promises."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

import coterie
from coterie import Examples, Faults, Mistake, Recipe, Round
from coterie.core import tree
from coterie.core.aggregators import Coordinatewise
from coterie.core.transforms import Transform, cast, eight_bits
from coterie.engines.sequential import Sequential
from coterie.engines.vectorised import Vectorised
from coterie.loop.attack import Attack, Sight
from coterie.loop.checkpoint import Checkpoints
from coterie.models.registry import build
from tests.algorithms.mutual import by_hand
from tests.federations import dense, distance, ragged, seed_set

SEED = seed_set(n=8)
CLIENTS = ragged(sizes=(7, 9, 5))


def models() -> dict[str, nn.Module]:
    """Two architectures, without layers that are random or keep statistics."""
    torch.manual_seed(3)
    small, deep = nn.Linear(6, 3).double(), nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 3)).double()
    return {"0": small, "1": deep, "2": small}


def run(recipe: Recipe, rounds: int = 3, clients: dict[str, Examples] = CLIENTS, **options: object) -> Round:
    options = {"engine": Sequential(dtype=torch.float64), "seed_set": SEED, "model": models()} | options
    model = options.pop("model")
    return list(coterie.federate(recipe, model, clients, rounds=rounds, **options))[-1]


def full(**options: object) -> Recipe:
    """Batches of everything, so that a plain loop has the same ones."""
    return coterie.fedh2l(**{"lr": 0.3, "batch_size": "full", "local_steps": 4} | options)


def assert_same(last: Round, expected: dict[str, nn.Module], within: float = 1e-10) -> None:
    for client in last.plan.ids:
        assert distance(last.weights(client), dict(expected[client].state_dict())) < within


@pytest.mark.parametrize("exchange", ["sum", "tables"])
@pytest.mark.parametrize("order", ["joint", "successive"])
@pytest.mark.parametrize("conflict", ["project_global", "none"])
def test_three_rounds_by_a_plain_loop(exchange, order, conflict):
    recipe = full(exchange=exchange, order=order, conflict=conflict, mutual_weight=2.0, temperature=3.0)
    expected = by_hand(
        models(), CLIENTS, SEED, rounds=3, steps=4, lr=0.3, weight=2.0, temperature=3.0,
        project=conflict == "project_global", successive=order == "successive",
    )  # fmt: skip
    assert_same(run(recipe), expected)


def skill(table: torch.Tensor) -> float:
    """How far the accuracy of a table on the seed set lies above that of guessing one of three classes."""
    right = float((table.argmax(-1) == SEED.y).double().mean())
    return max((right - 1 / 3) / (2 / 3), 0.0)


def test_peers_weighed_by_their_accuracy_by_a_plain_loop():
    """The weighted mean of the peers' divergences, each weight max(a_j - 1/3, 0) / (2/3) for the accuracy a_j on the
    seed set's labels. The weights differ, so an equal mean ends elsewhere."""
    options = {"mutual_weight": 2.0, "exchange": "tables"}
    last = run(full(peer_weights="accuracy", **options))
    assert len({skill(table) for table in last.state["said"]}) > 1
    assert_same(last, by_hand(models(), CLIENTS, SEED, rounds=3, steps=4, lr=0.3, weight=2.0, weigh=skill))
    assert distance(last.weights("1"), run(full(**options)).weights("1")) > 1e-4


def lie(sight: Sight) -> torch.Tensor:
    """Tables that are sure of the class after the right one, on every seed example."""
    wrong = torch.nn.functional.one_hot((SEED.y + 1) % 3, 3).double()
    return wrong.reshape(1, -1).expand_as(sight.own)


@pytest.mark.parametrize("engine", [Sequential(dtype=torch.float64), Vectorised(dtype=torch.float64)])
def test_a_peer_that_is_sure_of_wrong_answers_has_no_say(engine):
    """The two others learn from each other alone, as if the liar were absent; with equal weights they follow it."""
    options = {"attack": Attack(1, lie), "engine": engine}
    weighed = run(full(exchange="tables", peer_weights="accuracy"), **options)
    liars = weighed.plan.attackers()
    heard = {"present": lambda number, client: client not in liars, "weigh": skill}
    without = by_hand(models(), CLIENTS, SEED, rounds=3, steps=4, lr=0.3, **heard)
    misled = run(full(exchange="tables"), **options)
    for client in {"0", "1", "2"} - liars:
        expected = dict(without[client].state_dict())
        assert distance(weighed.weights(client), expected) < 1e-10
        assert distance(misled.weights(client), expected) > 1e-2


def test_peers_that_only_lie_teach_nothing():
    """The one honest client hears two liars: it trains as with mutual_weight = 0."""
    options = {"attack": Attack(2, lie)}
    weighed = run(full(exchange="tables", peer_weights="accuracy"), **options)
    alone = run(full(exchange="tables", mutual_weight=0.0), **options)
    (honest,) = {"0", "1", "2"} - weighed.plan.attackers()
    assert distance(weighed.weights(honest), alone.weights(honest)) < 1e-10


def test_peers_cannot_be_weighed_without_labels():
    with pytest.raises(Mistake, match='peer_weights = "accuracy": peers are weighed by the labels of the seed set'):
        run(full(exchange="tables", peer_weights="accuracy"), seed_set=Examples(SEED.x))


def test_gradients_conflict_in_that_run_so_that_projecting_matters():
    projected, not_projected = run(full()), run(full(conflict="none"))
    assert 0 < projected.measures["conflict"] <= 1
    assert distance(projected.weights("1"), not_projected.weights("1")) > 1e-4


@pytest.mark.parametrize("exchange", ["sum", "tables"])
def test_a_client_that_misses_a_round_is_left_out_of_it_and_comes_back(exchange):
    """Client 2 is absent in round 2: in round 3 the others hear each other alone, and it hears both of them, without
    taking a share away that it did not send."""
    there = [lambda number, client: (number, client) != (2, "2"), lambda number, client: True]
    expected = by_hand(models(), CLIENTS, SEED, rounds=4, steps=4, lr=0.3, present=there[0])
    assert_same(run(full(exchange=exchange), rounds=4, available=there[0]), expected)
    otherwise = by_hand(models(), CLIENTS, SEED, rounds=4, steps=4, lr=0.3)
    assert distance(dict(expected["0"].state_dict()), dict(otherwise["0"].state_dict())) > 1e-4


@pytest.mark.parametrize(
    ("steps", "wanted", "due"), [(4, 1, [3]), (5, 2, [2, 4]), (4, 4, [0, 1, 2, 3]), (3, 9, [0, 1, 2])]
)
@pytest.mark.parametrize("order", ["joint", "successive"])
def test_fewer_mutual_steps_are_spread_over_the_local_ones(steps, wanted, due, order):
    """The m mutual steps of K follow the steps k at which floor((k + 1) m / K) rises."""
    recipe = full(local_steps=steps, mutual_steps=wanted, order=order)
    expected = by_hand(
        models(), CLIENTS, SEED, rounds=2, steps=steps, lr=0.3, due=lambda k: k in due, successive=order == "successive"
    )
    assert_same(run(recipe, rounds=2), expected)


def test_without_labels_the_seed_set_only_distils():
    bare = Examples(SEED.x)
    assert_same(run(full(), seed_set=bare), by_hand(models(), CLIENTS, bare, rounds=3, steps=4, lr=0.3))
    ignored = run(full(seed_weight=0.0))
    assert_same(ignored, by_hand(models(), CLIENTS, bare, rounds=3, steps=4, lr=0.3))


def test_one_participant_trains_locally():
    """With the labels of the seed set, if there are any; without, to the last bit as a client of `independent`."""
    alone, model = {"0": CLIENTS["0"]}, models()["1"]
    assert_same(run(full(), clients=alone, model=model), by_hand({"0": model}, alone, SEED, rounds=3, steps=4, lr=0.3))
    settings = {"lr": 0.1, "batch_size": 3, "momentum": 0.5}
    bare = run(coterie.fedh2l(**settings), clients=alone, model=model, seed_set=Examples(SEED.x))
    independent = run(coterie.independent(**settings), clients=alone, model=model, seed_set=None)
    assert distance(bare.weights("0"), independent.weights("0")) == 0


def test_peers_that_agree_have_nothing_to_teach():
    """Equal data, equal models: in every round's first step all posteriors are equal, and the peers' weight changes
    nothing."""
    same, model = dict.fromkeys("abc", CLIENTS["1"]), models()["1"]
    ends = [run(full(mutual_weight=w, local_steps=1), clients=same, model=model).weights("a") for w in (0.0, 10.0)]
    assert distance(*ends) < 1e-12
    unlike = [run(full(mutual_weight=w, local_steps=1), model=model).weights("0") for w in (0.0, 10.0)]
    assert distance(*unlike) > 1e-3


def test_one_sum_teaches_as_every_table_does():
    options = {"cohort": 0.7, "faults": Faults(drop=0.2, corrupt=0.1), "rng_seed": 1, "clients": ragged(), "rounds": 6}
    kinds = [{"model": [dense(), models()["1"]], "exchange": kind} for kind in ("sum", "tables")]
    ends = [
        run(coterie.fedh2l(lr=0.1, batch_size=5, exchange=k.pop("exchange"), temperature=2.0), **options, **k)
        for k in kinds
    ]
    for client in ends[0].plan.ids:
        assert distance(ends[0].weights(client), ends[1].weights(client)) < 1e-10


@pytest.mark.parametrize("options", [{}, {"exchange": "tables", "momentum": 0.5}, {"order": "successive"}])
@pytest.mark.parametrize("engine", [None, 2])
def test_engines_agree_with_two_architectures(options, engine):
    """Ragged, partly sampled, faulty clients, dealt a model with BatchNorm and dropout and one without in turn."""
    recipe = coterie.fedh2l(lr=0.1, batch_size=5, mutual_batch_size=3, conflict="project_global", **options)
    given = {"cohort": 0.7, "faults": Faults(drop=0.1, corrupt=0.1), "rng_seed": 1, "clients": ragged(), "rounds": 4}
    batched = Vectorised(dtype=torch.float64, chunk=engine)
    ends = [
        run(recipe, engine=e, model=[dense(), models()["1"]], **given)
        for e in (Sequential(dtype=torch.float64), batched)
    ]
    assert batched.unbatched == {}
    for client in ends[0].plan.ids:
        assert distance(ends[0].weights(client), ends[1].weights(client)) < 1e-10
    assert distance(ends[0].state, ends[1].state) < 1e-10


def test_every_table_survives_a_resume(tmp_path):
    recipe, options = full(exchange="tables"), {"faults": Faults(drop=0.3), "rng_seed": 5}
    whole = run(recipe, rounds=5, **options)
    Checkpoints(tmp_path).save(run(recipe, rounds=2, **options))
    rest = run(recipe, rounds=5, resume=Checkpoints(tmp_path).load(), **options)
    for client in whole.plan.ids:
        assert distance(whole.weights(client), rest.weights(client)) == 0


def test_posteriors_are_all_that_travels():
    """Up 4 S C a client in float32; down 4 S C with two numbers, or n times 4 S C; nothing down before anyone spoke."""
    float32 = [copy.deepcopy(m).float() for m in models().values()]
    size = 4 * len(SEED) * 3
    for exchange, down in (("sum", size), ("tables", 3 * size)):
        options = {"engine": Sequential(), "model": float32, "keep_updates": True}
        rounds = [run(full(exchange=exchange), rounds=n, **options) for n in (1, 2)]
        assert [r.bytes_up for r in rounds] == [3 * size, 3 * size]
        assert [r.bytes_down for r in rounds] == [3 * 8, 3 * (down + 8)]
        for update in rounds[-1].updates.values():
            assert set(tree.flatten(update)) == {"posteriors"}
            assert torch.allclose(update["posteriors"].sum(-1), torch.ones(len(SEED)))


@pytest.mark.parametrize(("send_as", "up", "each"), [("float16", cast(torch.float16), 2), ("uint8", eight_bits(), 1)])
def test_posteriors_can_be_rounded(send_as, up, each):
    """Two bytes or one for each number; the same as the transform given by hand."""
    given = {"engine": Sequential(), "model": [copy.deepcopy(m).float() for m in models().values()]}
    exact, rounded, by_hand = run(full(), **given), run(full(send_as=send_as), **given), run(full(), up=up, **given)
    assert exact.bytes_up == 3 * 4 * len(SEED) * 3
    assert rounded.bytes_up == 3 * each * len(SEED) * 3
    assert 0 < distance(exact.weights("1"), rounded.weights("1")) < 0.02
    assert distance(by_hand.weights("1"), rounded.weights("1")) == 0


def test_a_transform_of_the_user_s_own_comes_before_the_rounding():
    """Every number is halved on its way and doubled after it, so that the bytes are of halves."""
    halves = Transform(lambda message, state, key: (tree.scale(message, 0.5), state), lambda wire: tree.scale(wire, 2))
    plan = coterie.plan(full(send_as="uint8"), models(), CLIENTS, rounds=1, seed_set=SEED, up=halves)
    wire, _ = plan.codec.encode({"posteriors": torch.tensor([1.0])}, {}, torch.tensor(0))
    assert (wire["posteriors"].dtype, wire["posteriors"].item()) == (torch.uint8, 128)  # 255 / 2, rounded to even
    assert plan.codec.decode(wire)["posteriors"].item() == pytest.approx(256 / 255)


def test_momentum_belongs_to_the_client():
    """Four rounds of one step are one round of four, where nobody has anything to say."""
    settings = {"lr": 0.1, "batch_size": "full", "momentum": 0.9, "mutual_weight": 0.0}
    ends = [
        run(coterie.fedh2l(local_steps=steps, **settings), rounds=rounds).weights("0")
        for steps, rounds in ((1, 4), (4, 1))
    ]
    assert distance(*ends) < 1e-12


def test_without_a_seed_set_it_says_what_is_missing():
    for recipe in (full(), coterie.fedmd(lr=0.1)):
        with pytest.raises(Mistake, match="this algorithm needs a seed set that every client holds"):
            run(recipe, seed_set=None)


def test_a_median_of_posteriors_is_refused():
    median = Coordinatewise(lambda matrix: matrix.median(0).values)
    for exchange in ("sum", "tables"):
        with pytest.raises(Mistake, match=r"aggregation\.name: clients subtract their own table"):
            run(full(exchange=exchange), aggregation=median)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"temperature": 0}, "temperature = 0: it must be a number above 0"),
        ({"mutual_weight": -1}, "mutual_weight = -1: it must be 0 or more"),
        ({"mutual_steps": 0}, "mutual_steps = 0: it must be a whole number, 1 or more"),
        ({"mutual_batch_size": 0}, 'mutual_batch_size = 0: it must be a whole number, 1 or more, or "full"'),
        ({"mutual_batch_size": -1}, "mutual_batch_size = -1: it must be"),
        ({"mutual_lr": 0.0}, "mutual_lr = 0.0: it must be a number above 0"),
        ({"exchange": "peers"}, 'exchange = "peers": it must be "sum" or "tables"'),
        ({"send_as": "int4"}, 'send_as = "int4": it must be "float32", "float16" or "uint8"'),
        ({"peer_weights": "accuracy"}, 'peer_weights = "accuracy": it must be "equal" where exchange = "sum"'),
        ({"peer_weights": "loss"}, 'peer_weights = "loss": it must be "equal" or "accuracy"'),
        ({"order": "both"}, 'order = "both": it must be "joint" or "successive"'),
        ({"conflict": "agem"}, 'conflict = "agem": it must be one of project_global'),
        (
            {"order": "successive", "conflict": "gem"},
            'conflict = "gem": it must be "project_global" or "none" where order = "successive"',
        ),
    ],
)
def test_what_it_refuses(options, sentence):
    with pytest.raises(Mistake, match=sentence):
        full(**options)


def test_a_round_weighs_less_than_a_hundredth_of_fedavg_s():
    """600 seed examples of 10 classes, up and down, beside the CNN of McMahan et al. with its 1,663,370 parameters."""
    clients = {name: Examples(torch.rand(2, 1, 28, 28), torch.tensor([0, 9])) for name in "ab"}
    seed = Examples(torch.rand(600, 1, 28, 28), torch.arange(600) % 10)
    cnn, small = (build(name, [1, 28, 28], 10, rng_seed=0) for name in ("cnn", "logistic"))
    options = {"local_steps": 1, "lr": 0.1, "batch_size": 2}
    fedavg = next(coterie.federate(coterie.fedavg(**options), cnn, clients, rounds=1))
    last = list(coterie.federate(coterie.fedh2l(**options), small, clients, rounds=2, seed_set=seed))[-1]
    assert fedavg.bytes_up == fedavg.bytes_down == 2 * 4 * 1_663_370
    assert (last.bytes_up, last.bytes_down) == (2 * 24_000, 2 * 24_008)
    assert last.bytes_up < 0.01 * fedavg.bytes_up
    assert last.bytes_down < 0.01 * fedavg.bytes_down
