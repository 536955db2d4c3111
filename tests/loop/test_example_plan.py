"""The guarantee for single examples: whole rounds, the noise for a target, and what each client has spent."""

import re
from pathlib import Path

import pytest
import torch
from torch import nn

import coterie
from coterie import Examples, Privacy
from coterie.core.engine import Engine
from coterie.core.errors import Mistake
from coterie.engines.sequential import Sequential
from coterie.engines.vectorised import Vectorised
from coterie.loop.example_plan import list_queries, spent_by_clients
from tests.federations import dense, distance, ragged


def linear() -> nn.Module:
    torch.manual_seed(0)
    return nn.Linear(6, 3).double()


def private(**keys: object) -> Privacy:
    given = {"unit": "example", "clip_norm": 0.5, "noise_multiplier": 1.0, "noise": "rng_seed"} | keys
    return Privacy(**given)  # type: ignore[arg-type]


def test_a_federation_repeats_its_bits_agrees_on_engines_and_tells_no_training_loss() -> None:
    def run(engine: Engine) -> list[coterie.Round]:
        recipe = coterie.fedavg(lr=0.1, batch_size=4)
        return list(
            coterie.federate(recipe, linear(), ragged(), rounds=3, cohort=0.7, engine=engine, privacy=private())
        )

    runs = [run(Sequential(dtype=torch.float64)) for _ in range(2)] + [run(Vectorised(dtype=torch.float64))]
    first, again, batched = (run[-1].weights() for run in runs)
    assert distance(first, again) == 0
    assert distance(first, batched) < 1e-10
    assert all(round.train_loss is None for round in runs[0])


def test_a_secret_is_new_in_each_plan() -> None:
    options = {"rounds": 1, "engine": Sequential(dtype=torch.float64), "privacy": private(noise="secret")}
    a, b = (coterie.plan(coterie.fedavg(lr=0.1), linear(), ragged(), **options) for _ in range(2))  # type: ignore[arg-type]
    assert a.example_secret != b.example_secret
    assert len(a.secret) == 64
    assert a.secret not in repr(a)


def test_fbn_s_statistics_and_weights_stay_finite_over_rounds_of_much_noise() -> None:
    recipe = coterie.fbn(lr=0.1, batch_size=4, local_epochs=1, variant="paper", gradient="constant", warm_start=1)
    engine = Sequential(dtype=torch.float64)
    noisy = private(noise_multiplier=5.0)
    last = list(coterie.federate(recipe, dense(), ragged(), rounds=6, engine=engine, privacy=noisy))[-1]
    weights = last.weights()
    assert all(w.isfinite().all() for w in weights.values())
    assert bool((weights["1.running_var"] > 0).all())


def test_the_noise_for_a_target_spends_no_more_than_it_at_any_client() -> None:
    """And a little less noise would: the calibration is within 0.5 %."""
    pytest.importorskip("dp_accounting")
    clients = {name: Examples(torch.randn(n, 6).double(), torch.zeros(n).long()) for name, n in (("a", 20), ("b", 50))}
    wanted = private(noise_multiplier=None, epsilon=3.0, delta=1e-3)
    plan = coterie.plan(
        coterie.fedavg(lr=0.1, batch_size=5, local_steps=4), linear(), clients, rounds=5, privacy=wanted
    )
    privacy = plan.example_privacy
    assert privacy is not None
    sizes = {"a": 20, "b": 50}
    spent = spent_by_clients(plan.algorithm, privacy, sizes, [(k, ["a", "b"]) for k in range(1, 6)])
    assert 2.9 < spent["a"] <= 3.0
    assert spent["b"] < spent["a"]
    assert spent_by_clients(plan.algorithm, privacy, sizes, [(1, ["b"])])["a"] == 0


def test_epsilon_is_dp_accounting_s_for_the_same_events() -> None:
    """20 examples in batches of 5, two passes of 4 steps in each of 3 rounds: 24 Poisson samples of a quarter."""
    library = pytest.importorskip("dp_accounting")
    from dp_accounting import pld

    clients = {"a": Examples(torch.randn(20, 6).double(), torch.zeros(20).long())}
    recipe = coterie.fedavg(lr=0.1, batch_size=5, local_epochs=2)
    plan = coterie.plan(recipe, linear(), clients, rounds=3, privacy=private(noise_multiplier=1.5, delta=1e-3))
    assert plan.example_privacy is not None
    ours = spent_by_clients(plan.algorithm, plan.example_privacy, {"a": 20}, [(k, ["a"]) for k in (1, 2, 3)])["a"]
    accountant = pld.PLDAccountant()
    accountant.compose(library.PoissonSampledDpEvent(0.25, library.GaussianDpEvent(1.5)), 24)
    assert ours == pytest.approx(accountant.get_epsilon(1e-3), rel=1e-4)


def test_option_i_of_scaffold_costs_one_more_query_of_everything_each_round() -> None:
    recipe = coterie.scaffold(lr=0.1, batch_size=5, control="gradient")
    plan = coterie.plan(recipe, linear(), ragged(), rounds=3, privacy=private())
    assert list_queries(plan.algorithm, 20, range(1, 4)) == ((0.25, 12), (1.0, 3))


def test_more_rounds_than_a_target_allows_are_refused() -> None:
    pytest.importorskip("dp_accounting")
    with pytest.raises(Mistake, match=r"spend .* at one client; run fewer rounds"):
        coterie.plan(coterie.fedavg(lr=0.1), linear(), ragged(), rounds=50, privacy=private(epsilon=0.5))


def test_what_would_escape_the_guarantee_is_refused() -> None:
    def refuse(words: str, recipe: object = None, model: nn.Module | None = None, **options: object) -> None:
        with pytest.raises(Mistake, match=words):
            coterie.plan(
                recipe or coterie.fedavg(lr=0.1),  # type: ignore[arg-type]
                model or linear(),
                ragged(),
                rounds=1,
                privacy=private(),
                **options,  # type: ignore[arg-type]
            )

    refuse("BatchNorm mixes the examples", model=dense())
    refuse("weighted by their labels", evaluate_clients=True, test=ragged()["1"])
    refuse("class weights", task=coterie.TaskOptions("classification", class_weights="balanced"))


@pytest.mark.parametrize("unit", ["client", "example"])
def test_a_federation_that_goes_on_must_be_given_the_noise_that_it_began_with(unit: str) -> None:
    """Otherwise the noise would be chosen again, as if the rounds before had cost nothing."""
    pytest.importorskip("dp_accounting")
    given = private(unit=unit, noise_multiplier=None, epsilon=4.0)
    options = {"rounds": 2, "engine": Sequential(dtype=torch.float64)}
    recipe = coterie.fedavg(lr=0.1, batch_size=4)
    last = next(coterie.federate(recipe, linear(), ragged(), privacy=given, **options))  # type: ignore[arg-type]
    resume = coterie.Resume(last.round, last.state, last.store)
    with pytest.raises(Mistake, match="must keep the noise that it began with; give noise_multiplier and delta"):
        coterie.federate(recipe, linear(), ragged(), resume=resume, privacy=given, **options)  # type: ignore[arg-type]
    complete = last.plan.either_guarantee
    again = list(
        coterie.federate(recipe, linear(), ragged(), resume=resume, privacy=complete, **options)  # type: ignore[arg-type]
    )
    assert [round.round for round in again] == [2]
    assert again[0].plan.either_guarantee == complete


def test_keys_of_the_other_unit_are_refused() -> None:
    for keys in ({"clip": "adaptive"}, {"where": "clients"}, {"clip_norms": {"delta": 1.0}, "clip_norm": None}):
        with pytest.raises(Mistake, match="left out"):
            private(**keys)
    with pytest.raises(Mistake, match="left out"):
        private(unit="client", statistics_share=0.1)


def test_the_example_on_the_page_runs() -> None:
    page = (Path(__file__).parents[2] / "docs" / "privacy-examples.md").read_text()
    (code,) = re.findall(r"```python\n(.*?)```", page, flags=re.S)
    exec(compile(code, "docs/privacy-examples.md", "exec"), {"__name__": "example"})
