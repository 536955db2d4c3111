"""Several batches that make one step of the optimiser."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import coterie
from coterie import Mistake
from coterie.engines.sequential import Sequential
from coterie.engines.vectorised import Vectorised
from tests.algorithms.quadratics import clients, run, w
from tests.algorithms.test_local_optimizers import CASES, options, smooth
from tests.federations import distance, ragged

ENGINES = [Sequential(dtype=torch.float64), Vectorised(dtype=torch.float64, chunk=2)]


@pytest.mark.parametrize("case", [case for case in CASES if "all" in case or case == "sgd, momentum"])
@pytest.mark.parametrize("engine", ENGINES, ids=["sequential", "vectorised"])
def test_three_batches_are_one_of_three_times_the_size(case: str, engine: Any) -> None:
    """Clients of 7, 23, 1, 12, 16 and 9 examples in batches of 4 by threes, and in batches of 12. A pass over the data
    ends with a short batch, and the rest of it makes a step of its own. So the steps are the same, in one pass."""
    shared = {"lr": 0.02, "clip_norm": 0.5, "keep_optimizer": True, **options(case)}
    one = coterie.fedavg(batch_size=12, **shared)
    three = coterie.fedavg(batch_size=4, accumulate=3, **shared)
    found = [list(coterie.federate(recipe, smooth(), ragged(), rounds=3, engine=engine))[-1] for recipe in (one, three)]
    assert distance(found[0].weights(), found[1].weights()) < 1e-10
    plain = list(coterie.federate(coterie.fedavg(batch_size=4, **shared), smooth(), ragged(), rounds=3, engine=engine))
    assert distance(plain[-1].weights(), found[1].weights()) > 1e-3


def test_the_rest_makes_a_step_too() -> None:
    """Five local steps by twos are three steps of the optimiser: from 0 towards 4, by half of what is left each."""
    recipe = coterie.fedavg(lr=0.5, local_steps=5, accumulate=2)
    assert w(run(recipe, clients([1], [4], [3]))[-1]) == 3.5


def test_a_schedule_counts_the_optimisers_steps() -> None:
    """Four local steps by twos, linear to 0 over two steps: 1/2, then 1/4. From 0: 2, then 2 + 2/4."""
    recipe = coterie.fedavg(lr=0.5, local_steps=4, accumulate=2, schedule="linear", schedule_over="steps")
    assert w(run(recipe, clients([1], [4], [3]))[-1]) == 2.5


@pytest.mark.parametrize("engine", ENGINES, ids=["sequential", "vectorised"])
def test_scaffold_divides_by_the_optimisers_steps(engine: Any) -> None:
    """Batches of 4 by threes are batches of 12: weights and control variates are the same."""
    one = coterie.scaffold(lr=0.05, batch_size=12)
    three = coterie.scaffold(lr=0.05, batch_size=4, accumulate=3)
    found = [list(coterie.federate(recipe, smooth(), ragged(), rounds=4, engine=engine))[-1] for recipe in (one, three)]
    assert distance(found[0].weights(), found[1].weights()) < 1e-10
    assert distance(found[0].state["control"], found[1].state["control"]) < 1e-10


@pytest.mark.parametrize("algorithm", [coterie.fedprox, coterie.feddyn])
def test_a_pull_to_the_servers_model_counts_once(algorithm: Any) -> None:
    one = algorithm(lr=0.05, batch_size=12, proximal_weight=0.3)
    three = algorithm(lr=0.05, batch_size=4, accumulate=3, proximal_weight=0.3)
    found = [
        list(coterie.federate(recipe, smooth(), ragged(), rounds=4, engine=ENGINES[0]))[-1] for recipe in (one, three)
    ]
    assert distance(found[0].weights(), found[1].weights()) < 1e-10


@pytest.mark.parametrize(
    ("algorithm", "sentence"),
    [
        (coterie.fbn, "accumulate = 2: it must be 1 with fbn, whose server counts a step for each batch"),
        (coterie.fedmd, "accumulate = 2: it must be 1 with fedmd, whose steps on the seed set"),
        (coterie.fedh2l, "accumulate = 2: it must be 1 with fedh2l, whose mutual steps"),
    ],
)
def test_what_cannot_be_done_is_refused(algorithm: Any, sentence: str) -> None:
    with pytest.raises(Mistake) as caught:
        algorithm(lr=0.1, accumulate=2)
    assert sentence in str(caught.value)
