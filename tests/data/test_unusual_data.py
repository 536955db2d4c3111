"""Remarks on unusual data."""

from __future__ import annotations

import pytest
import torch

from coterie.core.examples import Examples
from coterie.data import Source, deal, load
from coterie.data.standardize import standardize
from coterie.data.unusual_data import remarks_on_data


def source(train, test, groups, names=None):
    x, y = torch.zeros(len(train), 2), torch.tensor(train)
    held_out = Examples(torch.zeros(len(test), 2), torch.tensor(test))
    return Source("toy", Examples(x, y), held_out, 20, groups=groups, label_names=names)


def test_ordinary_data_give_no_remark():
    ordinary = source([0, 1, 0, 1], [0, 1], ["a", "a", "b", "b"])
    assert remarks_on_data(ordinary, deal(ordinary)) == []
    made_on_demand = load("synthetic", num_clients=3, examples_per_client=1)
    assert remarks_on_data(made_on_demand, deal(made_on_demand)) == []


def test_clients_of_one_example():
    several = source([0, 1, 0, 1], [0], ["a", "b", "b", "c"])
    (sentence,) = remarks_on_data(several, deal(several))
    assert sentence.startswith("2 clients, such as a, hold a single example, ")


def test_clients_whose_examples_are_all_of_one_class():
    alike = source([1, 1, 1], [1], ["a", "a", "b"], ["healthy", "diseased"])
    sentences = remarks_on_data(alike, deal(alike))
    assert sentences[1:] == ["all examples of all clients have the class diseased, so there is nothing to tell apart"]


def test_classes_that_no_client_holds():
    """Also where the training examples have them, but examples_per_client takes none to any client."""
    names = [f"kind {k}" for k in range(20)]
    many = source([0, 1], list(range(20)), ["a", "a"], names)
    (sentence,) = remarks_on_data(many, deal(many))
    assert sentence.startswith("classes kind 2, kind 3, kind 4, kind 5, kind 6 and 13 more: in test examples only")
    sequences = Source(
        "toy",
        Examples(torch.zeros(2, 3), torch.zeros(2, 3, dtype=torch.int64)),
        Examples(torch.zeros(1, 3), torch.ones(1, 3, dtype=torch.int64)),
        2,
        groups=["a", "a"],
    )
    assert remarks_on_data(sequences, deal(sequences)) == []


def test_classes_whose_names_differ_in_case_alone():
    alike = source([0, 1, 2, 3], [0, 1], ["a", "a", "b", "b"], ["No", "no", "no ", "yes"])
    (sentence,) = remarks_on_data(alike, deal(alike))
    assert sentence == '"No", "no", "no " are different classes, but differ in case or space alone'


@pytest.mark.parametrize("how", ["federated", "local", "none"])
def test_a_column_without_any_value(tmp_path, how):
    rows = "\n".join(f"{k},,{k % 2}" for k in range(20))
    (tmp_path / "mine.csv").write_text(f"dose,age,label\n{rows}\n")
    table = load("csv", path=tmp_path / "mine.csv")
    ready = standardize(table, deal(table, num_clients=2), how)
    assert remarks_on_data(ready.source, ready.clients) == [
        'column "age": no value in any training row, so there is nothing to learn from'
    ]
