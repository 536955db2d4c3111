"""A round in numbers: what counts, and what is only counted."""

import torch

from coterie.core.engine import Reply
from coterie.loop.tally import Tally
from coterie.processes.team import ALONE


def answer(client: str, examples: float, state: bool = False, **logs: float) -> Reply:
    kept = {"algorithm": {"c": torch.ones(1)} if state else {}, "up": {}}
    return Reply(client, {}, kept, {"examples": examples, "one": 1.0}, logs)


def test_only_accepted_answers_count_but_all_of_them_weigh() -> None:
    """Losses 6 and 2 over 3 and 1 examples, a log 9 over the same; the refused answer's bytes arrived all the same."""
    tally = Tally(cohort=["a", "b", "c", "d"], silent=[{"client": "d", "why": "dropped out"}])
    tally.count(answer("a", 3.0, loss=6.0, count=3.0, pull=8.0), 10, None)
    tally.count(
        answer("b", 50.0, loss=float("nan"), count=50.0, pull=1.0), 7, "delta holds numbers that are not finite"
    )
    tally.count(answer("c", 1.0, loss=2.0, count=1.0, pull=1.0), 10, None)
    assert tally.reached == 2
    assert tally.bytes_up == 27
    assert tally.weighting() == {"examples": 4, "one": 2}
    assert tally.measures() == {"train_loss": 2, "pull": 9 / 4}
    assert tally.dropped == [
        {"client": "d", "why": "dropped out"},
        {"client": "b", "why": "delta holds numbers that are not finite"},
    ]


def test_nothing_came() -> None:
    assert (Tally().reached, Tally().bytes_up, Tally().weighting()) == (0, 0, {})
    assert Tally().measures() == {"train_loss": None}


def test_sums_are_taken_in_the_cohort_s_order() -> None:
    """0.1, 1e16 and -1e16 sum to 0 in this order, and to 0.1 in no other that ends with 0.1: whoever counted first."""
    numbers = {"a": 0.1, "b": 1e16, "c": -1e16}
    totals = []
    for order in ("abc", "cba", "bca"):
        tally = Tally(cohort=list("abc"))
        for client in order:
            tally.count(answer(client, numbers[client]), 1, None)
        tally.merge(ALONE)
        totals.append(tally.weighting()["examples"])
    assert totals == [0.1 + 1e16 - 1e16] * 3


def test_a_state_is_worth_keeping_if_there_is_one_and_it_was_accepted() -> None:
    tally = Tally(cohort=list("abc"))
    tally.count(answer("a", 1.0, state=True), 1, None)
    tally.count(answer("b", 1.0, state=True), 1, "refused")
    tally.count(answer("c", 1.0), 1, None)
    assert [a.stateful for a in tally.answers] == [True, False, False]
