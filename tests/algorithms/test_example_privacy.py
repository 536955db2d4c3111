"""Example-level privacy: engines agree, sealed batches stay closed, and every algorithm has a verdict."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import coterie
from coterie import Algorithm, Context, Plan, Recipe, Task
from coterie.algorithms.example_privacy import protect_algorithm, protect_task, queries
from coterie.core import tree
from coterie.core.algorithm import Batches, Logs, Stream
from coterie.core.engine import Engine, Job, Reply
from coterie.core.errors import Mistake
from coterie.core.tree import Tree
from coterie.engines import compiled, sequential, vectorised
from coterie.engines.sequential import Sequential
from coterie.engines.vectorised import Vectorised
from tests.common.recipes import RECIPES
from tests.federations import dense, distance, ragged, seed_set

ENGINES: dict[str, Callable[[], Engine]] = {
    "vectorised": lambda: Vectorised(dtype=torch.float64),
}


def grouped() -> nn.Module:
    torch.manual_seed(1)
    layers = nn.Linear(6, 8), nn.GroupNorm(2, 8), nn.ReLU(), nn.Dropout(0.3), nn.Linear(8, 3)
    return nn.Sequential(*layers).double()


def protected(recipe: Recipe, model: nn.Module, engine: Engine, **rule: Any) -> tuple[Plan, Algorithm]:
    """A plan, and its algorithm with example-level privacy."""
    plan = coterie.plan(recipe, model, ragged(), rounds=1, engine=engine, seed_set=seed_set())
    task, weights = next(iter(plan.tasks.values())), next(iter(plan.initial.values()))
    task = protect_task(task, weights, **({"clip_norm": 0.5, "noise_multiplier": 0.8} | rule))
    return plan, protect_algorithm(recipe(task), task)


def replies(plan: Plan, algorithm: Algorithm, secret: str | None = "s", round: int = 1) -> dict[str, Reply]:
    """What every client sends in a round from the initial state."""
    architecture, weights = next(iter(plan.initial.items()))
    now = algorithm.stage(round) if algorithm.stage else algorithm
    broadcast = now.server.broadcast(now.server.initial_state(weights, plan.federation()))
    jobs = []
    for client in plan.ids:
        own = {"private": plan.clients[client], "seed_set": plan.seed_set}
        data = {name: own[stream.source] for name, stream in now.client.streams.items()}
        state = now.client.initial_state(weights)
        jobs.append(Job(client, architecture, state, data, plan.seed_set, round, 0, secret))  # type: ignore[arg-type]
    return {reply.client: reply for reply in plan.engine.run({architecture: now}, broadcast, jobs)}


def test_an_empty_batch_is_a_step_and_weights_tell_nothing_of_what_was_drawn() -> None:
    """One client has a single example; of batches of 1 of 7 some are empty, and every client still takes its steps."""
    recipe = coterie.fedavg(lr=0.1, batch_size=1, local_steps=6)
    plan, algorithm = protected(recipe, grouped(), Sequential(dtype=torch.float64))
    for client, reply in replies(plan, algorithm).items():
        assert reply.weighting == {"examples": len(plan.clients[client]), "processed": 6, "one": 1}
        assert reply.logs == {}
        assert all(leaf.isfinite().all() and leaf.any() for leaf in reply.update["delta"]["params"].values())


COVERED = {
    "fedavg": "fedavg, all options",
    "fedopt": "fedadam",
    "scaffold": "scaffold, option I",
    "feddyn": "feddyn",
    "fedh2l": "fedh2l, all options",
}


@pytest.mark.parametrize("recipe", COVERED.values(), ids=COVERED)
@pytest.mark.parametrize("engine", ENGINES.values(), ids=ENGINES)
def test_engines_agree_to_rounding(recipe: str, engine: Callable[[], Engine]) -> None:
    """The same Poisson batches and the same noise on both: 1e-10 in float64."""
    first = replies(*protected(RECIPES[recipe], grouped(), Sequential(dtype=torch.float64)))
    batched = engine()
    second = replies(*protected(RECIPES[recipe], grouped(), batched))
    assert isinstance(batched, Vectorised)
    assert batched.unbatched == {}
    assert_same(first, second)


@pytest.mark.parametrize("engine", ENGINES.values(), ids=ENGINES)
@pytest.mark.parametrize("round", [1, 2])
def test_engines_agree_on_fbn_s_measuring_and_training(engine: Callable[[], Engine], round: int) -> None:
    """Its first round measures, its second trains and measures."""
    recipe = coterie.fbn(lr=0.1, batch_size=5, local_epochs=2, variant="paper", gradient="constant", warm_start=1)
    first = replies(*protected(recipe, dense(), Sequential(dtype=torch.float64)), round=round)
    second = replies(*protected(recipe, dense(), engine()), round=round)
    assert_same(first, second)
    assert ("delta" in first["0"].update) == (round == 2)


@pytest.mark.parametrize("kind", [Sequential, Vectorised])
def test_what_fills_a_compiled_step_up_changes_nothing(kind: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Poisson batches are filled up to one width, and chunks to a round number (the step is not compiled here)."""
    for module in (sequential, vectorised):
        monkeypatch.setattr(module, "Compiled", lambda step, device: step)
    recipe = RECIPES["fedavg, all options"]
    first = replies(*protected(recipe, grouped(), Sequential(dtype=torch.float64)))
    assert_same(first, replies(*protected(recipe, grouped(), kind(dtype=torch.float64, compile=True))))


@pytest.mark.skipif(compiled.cpp_compiler() is None, reason="needs a C++ compiler")
@pytest.mark.long
@pytest.mark.parametrize("kind", [Sequential, Vectorised])
def test_compiled_steps_agree_to_rounding(kind: Any, caplog: pytest.LogCaptureFixture) -> None:
    model = nn.Linear(6, 3).double()
    recipe = coterie.fedavg(lr=0.1, batch_size=5, local_epochs=1)
    first = replies(*protected(recipe, model, Sequential(dtype=torch.float64)))
    assert_same(first, replies(*protected(recipe, model, kind(dtype=torch.float64, compile=True))))
    assert "uncompiled" not in caplog.text


def assert_same(first: dict[str, Reply], second: dict[str, Reply]) -> None:
    assert first.keys() == second.keys()
    for client, reply in first.items():
        other = second[client]
        for ours, theirs in ((reply.update, other.update), (reply.state, other.state)):
            assert distance(tree.flatten(ours), tree.flatten(theirs)) < 1e-10 if tree.flatten(ours) else not theirs
        assert reply.weighting == other.weighting


def test_noise_and_batches_follow_from_the_secret_alone() -> None:
    """The same secret repeats the bits; another one changes them; without one nothing is drawn."""
    plan, algorithm = protected(coterie.fedavg(lr=0.1, batch_size=5), grouped(), Sequential(dtype=torch.float64))
    once, again, other = (replies(plan, algorithm, secret)["1"].update for secret in ("a", "a", "b"))
    assert distance(tree.flatten(once), tree.flatten(again)) == 0
    assert distance(tree.flatten(once), tree.flatten(other)) > 1e-3
    with pytest.raises(RuntimeError, match="needs a secret"):
        replies(plan, algorithm, None)


def test_a_step_without_clipping_and_almost_without_noise_is_the_plain_one() -> None:
    """With full batches a Poisson batch is the whole of a client's data."""
    model = nn.Linear(6, 3).double()
    engine = Sequential(dtype=torch.float64)
    plan, algorithm = protected(coterie.fedsgd(lr=0.1), model, engine, clip_norm=1e6, noise_multiplier=1e-16)
    plain = coterie.fedsgd(lr=0.1)(next(iter(plan.tasks.values())))
    first, second = replies(plan, algorithm), replies(plan, plain)
    for client in plan.ids:
        a, b = (tree.flatten(each[client].update) for each in (first, second))
        assert distance(a, b) < 1e-8


LOOKS: dict[str, Callable[[Task, Batches], Tensor]] = {
    "adds them up": lambda task, batches: batches["private"].x.sum(),
    "computes with them": lambda task, batches: torch.exp(batches["private"].x),
    "indexes": lambda task, batches: batches["private"].x[0],
    "looks at the noise": lambda task, batches: batches["private"].noise.sum(),  # type: ignore[union-attr]
    "looks at which they are": lambda task, batches: batches["private"].rows.sum(),
    "takes a gradient of its own": lambda task, batches: task.loss(batches["private"].x, batches["private"].y)[0].sum(),
}


@pytest.mark.parametrize("look", LOOKS.values(), ids=LOOKS)
def test_an_algorithm_that_looks_at_examples_is_refused(look: Callable[[Task, Batches], Tensor]) -> None:
    def nosy(task: Task) -> Algorithm:
        base = coterie.fedavg(lr=0.1, batch_size=5)(task)

        def step(carry: Tree, batches: Batches, ctx: Context) -> tuple[Tree, Logs]:
            carry, logs = base.client.step(carry, batches, ctx)
            return {**carry, "seen": look(task, batches)}, logs

        return replace(base, client=replace(base.client, step=step))

    with pytest.raises(Mistake, match="looks at clients' examples themselves"):
        replies(*protected(nosy, grouped(), Vectorised(dtype=torch.float64)))


def test_a_second_gradient_of_one_batch_is_refused() -> None:
    """Both would have the same noise, so their difference had none."""

    def twice(task: Task) -> Algorithm:
        base = coterie.fedavg(lr=0.1, batch_size=5)(task)

        def step(carry: Tree, batches: Batches, ctx: Context) -> tuple[Tree, Logs]:
            here, there = carry["params"], tree.map(torch.zeros_like, carry["params"])
            first, second = (task.gradient(p, carry["buffers"], batches["private"])[0] for p in (here, there))
            return {**carry, "params": tree.map(torch.sub, first, second)}, {}

        return replace(base, client=replace(base.client, step=step))

    with pytest.raises(Mistake, match="takes two gradients of one batch"):
        replies(*protected(twice, grouped(), Sequential(dtype=torch.float64)))


@pytest.mark.parametrize("name", [name for name in RECIPES if name != "fbn, the paper's"])
def test_every_algorithm_is_covered_or_refused_on_a_model_with_batchnorm(name: str) -> None:
    """All are refused there, except FBN by given statistics; the sentence says what to do."""
    words = "compares views" if "fedssl" in name else "BatchNorm mixes the examples"
    with pytest.raises(Mistake, match=words):
        protected(RECIPES[name], dense(), Sequential(dtype=torch.float64))


@pytest.mark.parametrize("name", [name for name in RECIPES if not any(x in name for x in ("fedssl", "bn"))])
def test_every_algorithm_without_a_norm_of_its_own_runs_on_groupnorm(name: str) -> None:
    plan, algorithm = protected(RECIPES[name], grouped(), Sequential(dtype=torch.float64))
    found = replies(plan, algorithm)
    assert len(found) == len(plan.ids)
    assert all(not reply.logs for reply in found.values())


def test_fixbn_by_constants_from_the_start_and_fbn_by_given_statistics_take_batchnorm() -> None:
    paper = coterie.fbn(lr=0.1, batch_size=5, variant="paper", gradient="constant")
    for recipe in (coterie.fixbn(lr=0.1, batch_size=5, freeze_after=0), paper):
        assert len(replies(*protected(recipe, dense(), Sequential(dtype=torch.float64)))) == 6


def test_models_that_mix_examples_or_send_what_they_saw_are_refused() -> None:
    class Averaging(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer, self.seen = nn.Linear(6, 3), nn.Buffer(torch.zeros(6))

        def forward(self, x: Tensor) -> Tensor:
            if self.training:
                self.seen = self.seen + x.mean(0)
            return self.layer(x)  # type: ignore[no-any-return]

    with pytest.raises(Mistake, match="mixes the examples"):
        protected(coterie.fedavg(lr=0.1), Averaging().double(), Sequential(dtype=torch.float64))


def test_the_queries_of_a_round_by_hand() -> None:
    """20 examples in batches of 8: 3 steps a pass, two passes; and one pass over all of them at once."""
    own, all_at_once = Stream(8, 2), Stream("full", once=True)
    assert queries({"private": own, "seed": Stream(4, source="seed_set")}, 20) == {0.4: 6}
    assert queries({"private": own, "all": all_at_once}, 20) == {0.4: 6, 1.0: 1}
    assert queries({"private": own}, 5) == {1.0: 2}
