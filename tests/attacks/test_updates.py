"""What attackers send: by the formulas, and as ByzFL has it."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from coterie.aggregation import aggregation
from coterie.attacks import ATTACKS, attack
from coterie.attacks.search import find_strongest
from coterie.core import rng
from coterie.core.aggregators import Aggregator, Sum
from coterie.loop.attack import Sight
from tests.aggregation.byzfl import oracle


def sight(h: int = 6, f: int = 2, d: int = 5, rule: Aggregator | None = None, key: int = 0) -> Sight:
    """h honest updates around (1, 1, ...), before f attackers."""
    g = torch.Generator().manual_seed(key)
    honest, own = (torch.randn(n, d, generator=g, dtype=torch.float64) + 1 for n in (h, f))

    def outcome(sent: Tensor) -> Tensor:
        return (rule or Sum()).reduce(torch.cat([honest, sent]), [1.0] * (h + f))

    return Sight(honest, own, outcome, rng.key(key))


def sent(name: str, seen: Sight, **parameters: Any) -> Tensor:
    forge = attack(name, num_clients=1, **parameters).forge
    assert forge is not None
    return forge(seen)


FORMULAS = {
    "sign_flip": ({}, lambda x: -x.mean(0), ("SignFlipping", {})),
    "ipm": ({"factor": 3.0}, lambda x: -3 * x.mean(0), ("InnerProductManipulation", {"tau": 3.0})),
    "alie": ({"factor": 1.5}, lambda x: x.mean(0) + 1.5 * x.std(0, ddof=1), ("ALittleIsEnough", {"tau": 1.5})),
    "mimic": ({"client": 2}, lambda x: x[2], ("Mimic", {"epsilon": 2})),
}


@pytest.mark.parametrize("name", FORMULAS)
@pytest.mark.parametrize("h", [3, 4, 9])
def test_all_attackers_send_the_formula_and_so_does_byzfl(name: str, h: int) -> None:
    parameters, formula, (class_name, arguments) = FORMULAS[name]
    seen = sight(h)
    result = sent(name, seen, **parameters)
    assert result.shape == seen.own.shape
    theirs = getattr(oracle("attacks"), class_name)(**arguments)(seen.honest.numpy())
    for row in result.numpy():
        np.testing.assert_allclose(row, formula(seen.honest.numpy()), rtol=0, atol=1e-12)
        np.testing.assert_allclose(row, theirs, rtol=0, atol=1e-12)


def test_one_honest_client_has_no_deviation() -> None:
    seen = sight(h=1)
    assert torch.equal(sent("alie", seen), seen.honest.expand(2, -1))


def test_mimicking_a_client_that_is_not_there_takes_the_last() -> None:
    seen = sight(h=3)
    assert torch.equal(sent("mimic", seen, client=7)[0], seen.honest[2])


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64])
def test_large_values_are_finite_in_every_type(dtype: torch.dtype) -> None:
    seen = sight()._replace(own=torch.zeros(2, 5, dtype=dtype))
    result = sent("large_values", seen, size=-1e300)
    assert result.isfinite().all()
    assert (result == max(-1e300, -torch.finfo(dtype).max)).all()


def test_noise_is_normal_and_a_function_of_the_key() -> None:
    """Mean and standard deviation of 20,000 numbers lie within five standard errors (sd / 141 and sd / 200); a tenth
    of a per cent of them within 0.001254 sd of the mean; and 4.55 % beyond two."""
    seen = sight(d=10_000)
    x = sent("gaussian", seen, sd=3.0, mean=-2.0)
    assert torch.equal(x, sent("gaussian", seen, sd=3.0, mean=-2.0))
    assert not torch.equal(x, sent("gaussian", seen._replace(key=rng.key(1)), sd=3.0, mean=-2.0))
    assert abs(float(x.mean()) + 2) < 5 * 3 / 141
    assert abs(float(x.std()) - 3) < 5 * 3 / 200
    assert abs(float(((x + 2).abs() > 6).double().mean()) - 0.0455) < 0.01
    assert abs(float(torch.corrcoef(x)[0, 1])) < 0.05  # each attacker draws its own


@pytest.mark.parametrize("peak", [0.0, 0.4, 3.0, 77.0])
def test_the_search_finds_a_peak(peak: float) -> None:
    """To within 0.03 by 60 tries, and within 1 by 16."""

    def harm(x: float) -> float:
        return 1 / (1 + (x - peak) ** 2)

    assert abs(find_strongest(harm, tries=60) - peak) < 0.03
    assert abs(find_strongest(harm) - peak) < 1


def test_the_search_asks_no_more_than_it_may_and_never_below_zero() -> None:
    asked: list[float] = []

    def harm(x: float) -> float:
        asked.append(x)
        return -x

    assert find_strongest(harm, tries=16) == 0.0
    assert len(asked) == 16
    assert min(asked) == 0.0


def test_the_search_goes_on_doubling_while_harm_grows() -> None:
    """0, 1, 3, 7, 15, ...: after sixteen tries 2^15 - 1."""
    assert find_strongest(lambda x: x) == 2**15 - 1


@pytest.mark.parametrize("name", ["ipm", "alie"])
@pytest.mark.parametrize("rule", ["median", "trimmed_mean", "krum", "geometric_median"])
def test_a_searched_factor_harms_at_least_as_much_as_most_of_a_grid(name: str, rule: str) -> None:
    """What the server makes of it is farther from the honest mean than for nine in ten of the factors 0, 0.5, ..., 20;
    harm need not have one peak, so the largest may be missed."""
    kind = aggregation(rule, num_byzantine=2)
    seen = sight(h=8, rule=kind)
    mean = seen.honest.mean(0)

    def harm(x: Tensor) -> float:
        return float((seen.outcome(x) - mean).norm())

    grid = sorted(harm(sent(name, seen, factor=x / 2)) for x in range(41))
    assert harm(sent(name, seen, line_search=True)) >= grid[36] - 1e-9


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"name": "sign_flp", "num_clients": 1}, 'did you mean "sign_flip"'),
    ({"name": "sign_flip", "num_clients": 0}, "num_clients = 0: it must be 1 or more"),
    (
        {"name": "sign_flip", "num_clients": 1, "factor": 2.0},
        "factor = 2.0: sign_flip does not take it; it takes nothing",
    ),
    ({"name": "ipm", "num_clients": 1, "facto": 2.0}, "it takes factor, line_search"),
    ({"name": "ipm", "num_clients": 1, "factor": float("nan")}, "factor = nan"),
    ({"name": "alie", "num_clients": 1, "on": "gradients"}, 'on = "gradients": it must be'),
    ({"name": "mimic", "num_clients": 1, "client": -1}, "client = -1"),
    ({"name": "large_values", "num_clients": 1, "size": float("inf")}, "size = inf"),
    ({"name": "gaussian", "num_clients": 1, "sd": -1.0}, "sd = -1.0"),
    ({"name": "label_flip", "num_clients": 1, "on": "statistics"}, "label_flip changes data"),
]


@pytest.mark.parametrize(("table", "sentence"), WRONG, ids=[s for _, s in WRONG])
def test_a_table_that_cannot_be_used(table: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence) as error:
        attack(**table)
    assert "\n" not in str(error.value)


def test_every_attack_on_updates_has_a_formula_here() -> None:
    assert FORMULAS.keys() | {"large_values", "gaussian", "label_flip"} == ATTACKS.keys()
