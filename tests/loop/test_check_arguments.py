"""Arguments of `coterie.federate` and `coterie.plan` of the wrong kind are refused in one sentence."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import coterie
from coterie import Examples, Mistake

X, Y = torch.randn(6, 4), torch.tensor([0, 1, 0, 1, 0, 1])
DATASET = TensorDataset(X, Y)
NAN = float("nan")


def plan(algorithm: Any = None, model: Any = None, clients: Any = None, **options: Any) -> Any:
    return coterie.plan(
        coterie.fedavg(lr=0.1) if algorithm is None else algorithm,
        nn.Linear(4, 2) if model is None else model,
        {"a": Examples(X, Y)} if clients is None else clients,
        **{"rounds": 1, **options},
    )


WRONG: dict[str, list[Any]] = {
    "rounds": ["3", 0, -1, 2.5, NAN, True, None, [1], torch.tensor(1.5)],
    "cohort": ["3", 0, -1, 1.5, NAN, True, [1], {}],
    "rng_seed": ["3", 0.5, NAN, True, None, [1]],
    "evaluate_every": ["3", 0, -1, 2.5, NAN, True, None],
    "evaluate_clients": [1, "yes", None],
    "num_classes": ["3", 0, -1, 2.5, NAN, True, [1]],
    "loss": ["mse", nn.MSELoss(), nn.MSELoss, nn.CrossEntropyLoss(), None, 3],
    "metrics": [["accuracy"], "accuracy", lambda outputs, y: outputs, {"own": nn.MSELoss()}, {"own": "auroc"}],
    "test": [(X, Y), DATASET, DataLoader(DATASET), X, "mnist"],
    "own_test": [[1], Examples(X, Y), {"a": (X, Y)}],
    "seed_set": [(X, Y), DATASET, X],
    "augment": ["crop_flip", 1],
    "available": [3, "a"],
    "aggregation": ["median", 3, torch.mean],
    "up": ["quantise", 3],
    "faults": [{"drop": 0.1}, 0.1],
    "attack": ["sign_flip", 3],
    "probe": ["drift", 3],
    "lr_scale": [[1], 0.1, "0"],
    "engine": ["vectorised", 3],
}


@pytest.mark.parametrize("name", WRONG)
def test_arguments_of_the_wrong_kind_are_refused_by_name(name: str) -> None:
    for value in WRONG[name]:
        with pytest.raises(Mistake) as caught:
            plan(**{name: value})
        assert str(caught.value).startswith(name), value
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "clients",
    [
        *([Examples(X, Y)], [[1, 2], [3]], {}, 5, "a", DataLoader(DATASET), Examples(X, Y)),
        *({1: Examples(X, Y)}, {"a": (X, Y)}, {"a": DATASET}, {"a": None}, {"a": DataLoader(DATASET)}),
    ],
    ids=range(12),
)
def test_clients_are_a_mapping_from_ids_to_examples(clients: Any) -> None:
    with pytest.raises(Mistake, match=r"^clients.*it must be .*coterie\.Examples\(x, y\)"):
        plan(clients=clients)


@pytest.mark.parametrize(
    "model", [nn.Linear, "cnn", 3, lambda: nn.Linear(4, 2), [nn.Linear], [None], [], {}], ids=range(8)
)
def test_a_model_is_a_module(model: Any) -> None:
    with pytest.raises(Mistake, match="model"):
        plan(model=model)


@pytest.mark.parametrize("algorithm", [coterie.fedavg, "fedavg", 3, nn.Linear, lambda task: task], ids=range(5))
def test_an_algorithm_has_its_options(algorithm: Any) -> None:
    with pytest.raises(Mistake, match=r"^algorithm: "):
        plan(algorithm)


def test_arrays_of_numpy_are_no_examples() -> None:
    for x, y in ((X.numpy(), Y), (X, Y.numpy()), ([[1.0]], None), (np.float64(3), None)):
        with pytest.raises(Mistake, match=r"it is of type .*; it must be a tensor, such as torch\.as_tensor"):
            Examples(x, y)  # type: ignore[arg-type]
    with pytest.raises(Mistake, match="a row for each example"):
        Examples(torch.tensor(1.0))


def test_an_argument_that_does_not_exist_is_refused_with_a_hint() -> None:
    clients = {"a": Examples(X, Y)}
    with pytest.raises(Mistake, match=r"optimizer: .*; how clients train belongs to the algorithm"):
        coterie.federate(coterie.fedavg(lr=0.1), nn.Linear(4, 2), clients, rounds=1, optimizer=torch.optim.SGD)  # type: ignore[call-arg]
    with pytest.raises(Mistake, match=r"round: there is no such argument; did you mean rounds"):
        coterie.federate(coterie.fedavg(lr=0.1), nn.Linear(4, 2), clients, round=1)  # type: ignore[call-arg]
    with pytest.raises(Mistake, match=r"rounds: it is missing"):
        coterie.federate(coterie.fedavg(lr=0.1), nn.Linear(4, 2), clients)  # type: ignore[call-arg]
    with pytest.raises(Mistake, match=r"resume = "):
        coterie.federate(coterie.fedavg(lr=0.1), nn.Linear(4, 2), clients, rounds=1, resume="runs/a")  # type: ignore[arg-type]
