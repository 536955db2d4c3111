"""Arguments of `coterie.federate` and `coterie.plan` of the wrong kind are refused in one sentence."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, TensorDataset

import coterie
from coterie import Examples, Mistake
from coterie.engines.sequential import Sequential
from coterie.engines.vectorised import Vectorised

X, Y = torch.randn(6, 4), torch.tensor([0, 1, 0, 1, 0, 1])
DATASET = TensorDataset(X, Y)
NAN = float("nan")


class Words(Dataset[tuple[Tensor, str]]):
    def __len__(self) -> int:
        return 6

    def __getitem__(self, number: int) -> tuple[Tensor, str]:
        return X[number], "yes"


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
    "loss": ["mse", nn.MSELoss(), nn.MSELoss, nn.MSELoss(reduction="sum"), nn.TripletMarginLoss(), None, 3],
    "metrics": [["rmse"], "accuracy", [3], lambda outputs, y: outputs, {"own": nn.MSELoss()}, {"own": "auroc"}],
    "test": [(X, Y, Y), Words(), X, "mnist", (X, Y[:3])],
    "own_test": [[1], Examples(X, Y), {"a": (X, None)}],
    "seed_set": [(X, 3), X],
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
        *([[1, 2], [3]], {}, [], 5, "a", DataLoader(DATASET), DATASET, Examples(X, Y), (X, Y)),
        *({1: Examples(X, Y)}, {"a": (X, Y, X)}, {"a": X}, {"a": None}, {"a": [[1.0], [0]]}),
    ],
    ids=range(14),
)
def test_clients_are_a_list_or_a_mapping_from_ids_to_examples(clients: Any) -> None:
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


def test_lists_and_single_numbers_are_no_examples() -> None:
    with pytest.raises(Mistake, match=r"it is of type list; it must be a tensor, such as torch\.as_tensor"):
        Examples([[1.0]])  # type: ignore[arg-type]
    for number in (torch.tensor(1.0), np.float64(3)):
        with pytest.raises(Mistake, match="a row for each example"):
            Examples(number)  # type: ignore[arg-type]


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


OF_THEIR_OWN_SHAPE: dict[str, dict[str, Any]] = {
    'clients["b"]': {"clients": {"a": Examples(X, Y), "b": Examples(X[:, :3], Y)}},
    "test": {"test": Examples(X[:, :3], Y)},
    'own_test["a"]': {"own_test": {"a": Examples(X[:, :3], Y)}},
}


@pytest.mark.parametrize("key", OF_THEIR_OWN_SHAPE)
def test_examples_that_are_narrower_than_others_are_named(key: str) -> None:
    with pytest.raises(Mistake) as caught:
        plan(**OF_THEIR_OWN_SHAPE[key])
    assert str(caught.value).startswith(
        f"{key}: its examples have the shape [3], others [4], and not every model takes"
    )


def test_examples_of_several_lengths_are_taken_by_a_model_that_takes_them() -> None:
    model = nn.Sequential(nn.Embedding(5, 3), nn.Linear(3, 2))
    texts = {name: Examples(torch.ones(2, length).long(), torch.ones(2, length).long()) for name, length in LENGTHS}
    federation = {"model": model, "clients": texts, "test": texts["long"]}
    assert [r.reached for r in coterie.federate(coterie.fedavg(lr=0.1), rounds=1, **federation)] == [2]  # type: ignore[arg-type]


LENGTHS = (("short", 4), ("long", 7))


def test_an_empty_test_set_is_refused() -> None:
    with pytest.raises(Mistake, match="test: it holds no examples to test on"):
        plan(test=Examples(X[:0], Y[:0]))


@pytest.mark.parametrize("engine", [Sequential(), Vectorised()])
def test_options_may_be_numbers_of_numpy_or_torch(engine: Any, recwarn: pytest.WarningsRecorder) -> None:
    """A batch size of NumPy was a traceback in the first round; a learning rate of PyTorch warned at each client."""
    given = coterie.fedavg(lr=torch.tensor(0.5), batch_size=np.int64(4), local_epochs=np.int32(2))  # type: ignore[arg-type]
    plain, ends = coterie.fedavg(lr=0.5, batch_size=4, local_epochs=2), []
    torch.manual_seed(0)
    model = nn.Linear(4, 2)
    for algorithm in (given, plain):
        *_, last = coterie.federate(algorithm, model, {"a": Examples(X, Y)}, rounds=1, engine=engine)
        ends.append(last.weights()["weight"])
    assert torch.equal(*ends)
    assert not recwarn


NO_CLASSES = {
    "labels with a single 1": (
        nn.Linear(4, 2),
        torch.nn.functional.one_hot(Y, 2),
        "each row give y.argmax",
    ),
    "one number for each example": (nn.Sequential(nn.Linear(4, 1), nn.Flatten(0)), Y, "one number for each example"),
}


@pytest.mark.parametrize("case", NO_CLASSES)
def test_what_fits_no_class_says_what_to_give(case: str) -> None:
    model, y, sentence = NO_CLASSES[case]
    with pytest.raises(Mistake, match=sentence):
        plan(model=model, clients={"a": Examples(X, y)})


ROWS = {
    "from 0 to 99": torch.tensor([0, 99]),
    "from -1 to 0": torch.tensor([-1, 0]),
    "float32": torch.tensor([0.0]),
    "bool": Y > 0,
}


@pytest.mark.parametrize("sentence", ROWS)
def test_rows_that_are_not_in_the_pool_are_refused(sentence: str) -> None:
    for where in (
        {"clients": {"a": Examples(X, Y, ROWS[sentence])}},
        {"own_test": {"a": Examples(X, Y, ROWS[sentence])}},
    ):
        with pytest.raises(Mistake, match=f'"a".*its rows are {sentence}'):
            plan(**where)


def test_a_model_wrapped_for_several_gpus_is_refused_with_what_to_give() -> None:
    with pytest.raises(Mistake, match=r"model: it is a torch.nn.DataParallel; give the module inside"):
        plan(model=nn.DataParallel(nn.Linear(4, 2)))


def test_a_flag_that_is_not_sent_is_said(caplog: pytest.LogCaptureFixture) -> None:
    class Flagged(nn.Linear):
        began: Tensor

        def forward(self, x: Tensor) -> Tensor:
            self.began.fill_(True)
            return super().forward(x)

    model = Flagged(4, 2)
    model.register_buffer("began", torch.tensor(False))
    plan(model=model)
    assert "model changes began in its forward, which holds no floats and is not sent" in caplog.text
