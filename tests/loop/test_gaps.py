"""Gaps of a table in a loop: filled by `standardize`, or refused, never a federation that accepts no update."""

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import coterie
from coterie import Examples, Mistake
from coterie.data import Source, deal, load, own_test, standardize


@pytest.fixture
def table(tmp_path: Path) -> Source:
    """Twenty rows, of which two lack a value."""
    rows = [f"{'' if i in (3, 8) else i},{i % 3},{'ab'[i % 2]},{i % 2}" for i in range(20)]
    (tmp_path / "wards.csv").write_text("\n".join(["age,dose,ward,label", *rows]))
    return load("csv", path=tmp_path / "wards.csv", client_column="ward")


def last_round(source: Source, clients: coterie.core.examples.Clients, model: nn.Module, **options: object) -> float:
    algorithm = coterie.fedavg(lr=0.1, batch_size=5)
    *_, last = coterie.federate(algorithm, model, clients, rounds=2, test=source.test, **options)  # type: ignore[arg-type]
    assert last.reached == len(clients)
    assert last.train_loss is not None
    return last.train_loss


def test_two_empty_cells_are_refused_by_the_function_that_fills_them(table: Source) -> None:
    """Every update was NaN and refused, and the federation went on with its first weights."""
    says = r"^client a: \d of \d+ examples hold numbers that are not .*coterie\.data\.standardize\(source, clients\)"
    with pytest.raises(Mistake, match=says):
        last_round(table, deal(table), nn.Linear(3, 2))
    with pytest.raises(Mistake, match=r"^client 0: "):
        last_round(table, deal(table, partition="iid", num_clients=1), nn.Linear(3, 2))


def test_standardize_fills_them(table: Source) -> None:
    ready = standardize(table, deal(table))
    assert last_round(ready.source, ready.clients, nn.Linear(3, 2)) < 2


def test_a_model_that_takes_gaps_is_trained_with_them(table: Source) -> None:
    class Filling(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.last = nn.Linear(3, 2)

        def forward(self, x: Tensor) -> Tensor:
            out: Tensor = self.last(x.nan_to_num(0.0) / 20)
            return out

    assert last_round(table, deal(table), Filling()) < 2


def test_gaps_of_test_examples_are_refused_too(table: Source) -> None:
    ready = standardize(table, deal(table))
    broken = Examples(torch.tensor([[float("inf"), 0.0, 0.0]]), torch.tensor([0]))
    for options, says in (
        ({"test": broken}, "^test: 1 of 1"),
        ({"own_test": {"a": broken}}, "^own_test of client a: 1"),
    ):
        with pytest.raises(Mistake, match=says):
            coterie.plan(coterie.fedavg(lr=0.1), nn.Linear(3, 2), ready.clients, rounds=1, **options)  # type: ignore[arg-type]
    assert own_test(ready.source, ready.clients).keys() == {"a", "b"}
