"""Data sets, loaders and arrays of others train as the same tensors do, and are refused where they would not."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import (
    DataLoader,
    Dataset,
    IterableDataset,
    RandomSampler,
    Subset,
    SubsetRandomSampler,
    TensorDataset,
    WeightedRandomSampler,
)

import coterie
from coterie import Examples, Mistake, TaskOptions
from coterie.data import as_examples
from coterie.engines.sequential import Sequential
from coterie.engines.vectorised import Vectorised
from tests.federations import distance

X = torch.randn(30, 4, generator=torch.Generator().manual_seed(0))
Y = (X[:, 0] > 0).long() + (X[:, 1] > 0).long()
PARTS = [slice(0, 8), slice(8, 19), slice(19, 30)]


class Items(Dataset[Any]):
    """Items made one by one, as files are read; it counts the readings."""

    def __init__(self, x: Tensor, y: Tensor, change: Callable[[Tensor], Any] = lambda x: x) -> None:
        self.x, self.y, self.change, self.reads = x, y, change, 0

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, number: int) -> tuple[Any, int]:
        self.reads += 1
        return self.change(self.x[number]), int(self.y[number])


def train(clients: Any, y: Tensor = Y, **options: Any) -> coterie.Round:
    torch.manual_seed(0)
    options = {"model": nn.Linear(4, 3), "test": (X, y), "rounds": 2, **options}
    *_, last = coterie.federate(coterie.fedavg(lr=0.5, batch_size=4), clients=clients, **options)
    return last


def pairs(form: Callable[[Tensor, Tensor], Any]) -> list[Any]:
    return [form(X[part], Y[part]) for part in PARTS]


def frames(x: Tensor, y: Tensor) -> Any:
    pandas = pytest.importorskip("pandas")
    return pandas.DataFrame(x.numpy()), pandas.Series(y.numpy())


WHOLE = TensorDataset(X, Y)
FORMS: dict[str, list[Any]] = {
    "pairs": pairs(lambda x, y: (x, y)),
    "arrays": pairs(lambda x, y: (x.double().numpy(), y.numpy().astype(np.int32))),
    "labels [n, 1]": pairs(lambda x, y: (x, y[:, None])),
    "bytes": pairs(lambda x, y: (x, y.to(torch.uint8))),
    "tensors": pairs(TensorDataset),
    "items": pairs(Items),
    "arrays of items": pairs(lambda x, y: Items(x, y, Tensor.numpy)),
    "parts of tensors": [Subset(WHOLE, range(part.start, part.stop)) for part in PARTS],
    "parts of items": [Subset(Items(X, Y), list(range(part.start, part.stop))) for part in PARTS],
    "parts of parts": [Subset(Subset(WHOLE, range(30)), range(part.start, part.stop)) for part in PARTS],
    "a mixture": [Examples(X[PARTS[0]], Y[PARTS[0]]), Items(X[PARTS[1]], Y[PARTS[1]]), (X[PARTS[2]], Y[PARTS[2]])],
}


@pytest.mark.parametrize("engine", [Sequential, Vectorised])
@pytest.mark.parametrize("form", FORMS)
def test_what_others_have_trains_as_tensors_do(form: str, engine: Any) -> None:
    expected = train({str(k): Examples(X[part], Y[part]) for k, part in enumerate(PARTS)}, engine=engine())
    given = train(FORMS[form], engine=engine())
    assert distance(given.weights(), expected.weights()) == 0
    assert given.test_accuracy == expected.test_accuracy
    assert given.plan.ids == ("0", "1", "2")


def test_frames_of_pandas_train_as_tensors_do() -> None:
    assert distance(train(pairs(frames)).weights(), train(FORMS["pairs"]).weights()) == 0


def test_a_frame_of_several_types_of_number_is_a_tensor() -> None:
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame({"age": [61, 40], "dose": [0.5, 1.5], "smokes": [True, False]})
    assert as_examples((frame, frame["smokes"])).x.tolist() == [[61, 0.5, 1], [40, 1.5, 0]]
    with pytest.raises(Mistake, match="its x: it holds object, not numbers of one type"):
        as_examples((frame.assign(ward="a"), frame["smokes"]))


def test_items_are_read_once_and_when_their_client_is_asked() -> None:
    """One client of three is asked in each round. The reading of one item is repeated, to see whether it is drawn."""
    clients = [Items(X[part], Y[part]) for part in PARTS]
    plan = coterie.plan(coterie.fedavg(lr=0.5), nn.Linear(4, 3), clients, rounds=1, test=(X, Y))
    assert [each.reads for each in clients] == [0, 0, 0]
    train(clients, cohort=1, rounds=1)
    assert sorted(each.reads for each in clients)[:2] == [0, 0]
    train(clients, rounds=3)
    first = [each.reads for each in clients]
    assert plan.clients["1"] is plan.clients["1"]
    assert [each.reads for each in clients] == [first[0], first[1] + len(clients[1]) + 1, first[2]]
    assert plan.clients.sizes(["0", "2"]) == [8, 11]  # type: ignore[attr-defined]


def test_a_loader_gives_its_data_set_and_says_so() -> None:
    with pytest.warns(UserWarning, match="of a DataLoader the data set is taken; its batch size and shuffling are not"):
        given = train([DataLoader(TensorDataset(X[part], Y[part]), batch_size=5, shuffle=True) for part in PARTS])
    assert distance(given.weights(), train(FORMS["pairs"]).weights()) == 0
    with pytest.warns(UserWarning, match="DataLoader"):
        part = as_examples(DataLoader(WHOLE, sampler=SubsetRandomSampler([4, 2])))
    assert torch.equal(part.tensors()[0], X[[4, 2]])


def test_truth_values_are_classes_or_flags() -> None:
    flags = Y > 0
    classes = train([(X, flags)], y=flags)
    assert distance(classes.weights(), train([(X, flags.long())], y=flags.long()).weights()) == 0
    for y in (flags, flags[:, None], flags.long()[:, None]):
        one = {"model": nn.Linear(4, 1), "task": "binary", "test": None}
        assert train([(X, y)], **one).reached == 1


def test_the_labels_of_several_losses_stay_as_they_are() -> None:
    """[n, 1] means one number for each example to a loss of numbers, and truth values may be all that a loss takes."""

    def own(outputs: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        assert y.dtype == torch.bool
        return torch.where(y[:, 0], outputs[:, 0], -outputs[:, 0]), torch.ones(len(y))

    train([(X, (Y > 0)[:, None])], loss=own, test=None)
    train([(X, X[:, :1])], model=nn.Linear(4, 1), loss=nn.MSELoss(), test=None)


def test_labels_of_a_data_set_are_checked_when_they_are_read() -> None:
    with pytest.raises(Mistake, match=r'^clients\["1"\]: its labels are from 7 to 9, but the model gives 3 outputs'):
        train([Items(X, Y), Items(X, Y + 7)])


def test_balanced_weights_count_the_labels_of_data_sets() -> None:
    task = TaskOptions("classification", class_weights="balanced")
    assert distance(train(FORMS["items"], task=task).weights(), train(FORMS["pairs"], task=task).weights()) == 0


class Stream(IterableDataset[Any]):
    def __iter__(self) -> Iterator[Any]:
        return iter([(X[0], 1)])


class Broken(Items):
    def __getitem__(self, number: int) -> Any:
        raise OSError("the disk is gone")


def noisy(draw: Callable[[], float]) -> Dataset[Any]:
    return Items(X, Y, lambda x: x + draw())


class Picture:
    """As those of Pillow."""


Picture.__module__ = "PIL.Image"
OWN = np.random.default_rng(0)
REFUSED: dict[str, tuple[Any, str]] = {
    "torch draws": (noisy(lambda: float(torch.rand(()))), "its items differ from one reading to the next, .*augment"),
    "python draws": (noisy(random.random), "its items differ from one reading"),
    "numpy draws": (noisy(np.random.random), "its items differ from one reading"),
    "a generator of its own": (noisy(OWN.random), "its items differ from one reading"),
    "no numbers": (Stream(), "Stream has no items by number; give a Dataset with __len__"),
    "broken": (Broken(X, Y), r"its item 0 cannot be read \(the disk is gone\)"),
    "dicts": ([{"x": 1}], "it is of type list; it must be coterie.Examples"),
    "pictures": (Items(X, Y, lambda x: Picture()), r"x of its item 0 is a Picture; .*ToTensor\(\) makes"),
    "three parts": (TensorDataset(X, Y, Y), r"its items have 3 parts; each must be a pair"),
    "other lengths": (Items(X, Y, lambda x: x[: 2 + int(x[0] > 0)]), r"the x of its item \d is float32 of shape"),
    "nothing": (Items(X[:0], Y[:0]), "it has no items"),
    "as many labels": ((X, Y[:3]), "its x has 30 examples but y has 3"),
    "collated": (DataLoader(WHOLE, collate_fn=len), "its collate_fn would not be used"),
    "weighted": (DataLoader(WHOLE, sampler=WeightedRandomSampler([1.0] * 30, 9)), "its WeightedRandomSampler would"),
    "a part": (DataLoader(WHOLE, sampler=RandomSampler(WHOLE, num_samples=9)), "its RandomSampler would not be used"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_would_be_read_wrongly_is_refused_in_a_sentence(case: str) -> None:
    given, sentence = REFUSED[case]
    with pytest.raises(Mistake, match=rf"^test: {sentence}"):
        as_examples(given, "test")


def test_a_mapping_of_one_s_own_makes_examples() -> None:
    class Lazy(Mapping[str, Any]):
        def __getitem__(self, client: str) -> Any:
            return WHOLE

        def __iter__(self) -> Iterator[str]:
            return iter(["a"])

        def __len__(self) -> int:
            return 1

    for test in (None, (X, Y)):
        with pytest.raises(Mistake, match=r"^clients: they make a TensorDataset for a; .*as_examples\(dataset\)"):
            train(Lazy(), test=test)


def test_bytes_of_pictures_are_not_scaled_unasked() -> None:
    """Whoever uses the model later must scale alike, so it is the user's to say. A model that scales takes bytes."""

    class Scaling(nn.Linear):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x.to(self.weight.dtype) / 255)

    pixels = (X.abs() * 50).to(torch.uint8)
    with pytest.raises(Mistake, match=r"of pictures from 0 to 255 give x\.float\(\) / 255"):
        train([(pixels, Y)], test=(pixels, Y))
    assert train([(pixels, Y)], test=(pixels, Y), model=Scaling(4, 3)).reached == 1
