"""Options of the wrong type are refused in one sentence, by every algorithm."""

import inspect
from collections.abc import Iterator
from typing import Any

import pytest
import torch

import coterie
from coterie import Mistake
from coterie.algorithms import ALGORITHMS

WRONG = ["x", [0.1], {}, lambda round: 0.1, torch.optim.SGD, float("nan"), True, object()]


def options() -> Iterator[tuple[str, str]]:
    for name in ALGORITHMS:
        parameters = inspect.signature(ALGORITHMS[name]).parameters.values()
        for parameter in parameters:
            if parameter.kind is not parameter.VAR_KEYWORD and "bool" not in str(parameter.annotation):
                yield name, parameter.name


@pytest.mark.parametrize(("algorithm", "option"), list(options()))
def test_wrong_types_of_options_are_refused(algorithm: str, option: str) -> None:
    required = {"lr": 0.1, "proximal_weight": 0.1}
    takes = inspect.signature(ALGORITHMS[algorithm]).parameters
    given = {name: value for name, value in required.items() if name in takes or name == "lr"}
    for value in WRONG:
        with pytest.raises(Mistake):
            ALGORITHMS[algorithm](**{**given, option: value})


@pytest.mark.parametrize("value", ["0.1", -1, 0, float("nan"), float("inf"), True, None, [0.1], lambda round: 0.1])
def test_wrong_learning_rates_are_refused(value: Any) -> None:
    with pytest.raises(Mistake, match=r"lr = .*: it must be a number above 0"):
        coterie.fedavg(lr=value)


def test_a_missing_option_is_named() -> None:
    with pytest.raises(Mistake, match="proximal_weight: it is missing; it must be a number, 0 or more"):
        coterie.fedprox(lr=0.1)  # type: ignore[call-arg]
    with pytest.raises(Mistake, match=r"lr: it is missing; it must be a number above 0"):
        coterie.fedavg()  # type: ignore[call-arg]
    with pytest.raises(Mistake, match=r"fedavg takes its arguments by name, such as lr=0.1"):
        coterie.fedavg(0.1)  # type: ignore[misc]


def test_an_optimiser_of_torch_is_refused() -> None:
    with pytest.raises(Mistake, match=r'optimizer = .*: it must be "sgd", "adam", '):
        coterie.fedavg(lr=0.1, optimizer=torch.optim.SGD)  # type: ignore[arg-type]
