"""What a silo says of its clients' own test rows is judged before it counts."""

from pathlib import Path
from typing import Any

import pytest

from coterie.silos.merge_measures import merge_measures, read_measures
from coterie.silos.message import Unusable, read_message, write_message
from tests.common.recipes import RECIPES
from tests.federations import ragged
from tests.silos.deployment import Deployment


def answer(own_tests: Any) -> Any:
    fields = {"sums": {}, "totals": {}, "broken": 0, "own": {}, "own_tests": own_tests}
    data = write_message(fields)
    return read_message(data, len(data))


def test_each_hospital_s_own_measures_are_merged_in_the_order_of_the_clients(tmp_path: Path) -> None:
    """The mean of 0.5 and 1 is 0.75; a worst domain of 0.5. A silo of an earlier version says nothing."""
    plan = Deployment(RECIPES["fedavg"], tmp_path).coordinator()
    later = read_measures(answer({"1": [4, {"loss": 0.1, "accuracy": 1.0}, {}]}), plan, ["1"])
    first = read_measures(answer({"0": [2, {"loss": 0.2, "accuracy": 0.5}, {}]}), plan, ["0"])
    old = read_measures(answer({}), plan, ["2"])
    merged = merge_measures([later, first, old], plan)
    assert merged["accuracy_matrix"] == [[0.5, 1.0, *[None] * (len(ragged()) - 2)]]
    assert (merged["domain_test_accuracy"], merged["domain_test_accuracy_worst"]) == (0.75, 0.5)


@pytest.mark.parametrize(
    "hostile",
    [
        [],
        {"9": [1, {}, {}]},
        {"0": 3},
        {"0": [1, {}]},
        {"0": [0, {}, {}]},
        {"0": [True, {}, {}]},
        {"0": [1, {"auroc": 0.5}, {}]},
        {"0": [1, {"loss": "low"}, {}]},
        {"0": [1, {"loss": 0.5}, {"loss": [0, 1]}]},
    ],
)
def test_other_forms_are_refused(hostile: Any, tmp_path: Path) -> None:
    plan = Deployment(RECIPES["fedavg"], tmp_path).coordinator()
    with pytest.raises(Unusable):
        read_measures(answer(hostile), plan, ["0"])
