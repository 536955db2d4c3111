"""Rounds without a server: what all compute is what one process computes, bit for bit, whoever sees what and when."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest
import torch

import coterie
from coterie import Mistake, Plan, Recipe
from coterie.core.packing import pack
from coterie.engines.sequential import Sequential
from coterie.loop.federate import federate
from coterie.loop.plan import Resume
from coterie.peers.agreed_rounds import take_part
from coterie.peers.letter import Letter
from coterie.peers.message import Unusable
from coterie.peers.pace import Pace
from tests.common.recipes import RECIPES
from tests.federations import dense, distance, ragged, seed_set
from tests.peers.boxes import FAST, Box, Hospital, in_threads, together

IDS = ("a", "b", "c")
CLIENTS = dict(zip(IDS, ragged(sizes=(7, 9, 8)).values(), strict=True))
SEED = seed_set()


def plan(recipe: Recipe, rounds: int = 3, **options: Any) -> Plan:
    torch.manual_seed(3)
    return coterie.plan(
        recipe,
        dense(),
        CLIENTS,
        rounds=rounds,
        rng_seed=1,
        test=SEED,
        engine=Sequential(dtype=torch.float64),
        **options,
    )


NAMES = ["fedavg, all options", "scaffold, option I", "fedbn, all options", "fbn, all options", "fedh2l, successive"]
"""One of every kind of state; `tests/deploy/test_peers.py` has the rest."""


@pytest.mark.parametrize("name", NAMES)
def test_all_compute_what_one_process_computes_bit_for_bit(name: str, tmp_path: Path) -> None:
    require_the_simulation(name, tmp_path)


def require_the_simulation(name: str, folder: Path) -> None:
    """Require that three participants compute what one process does that simulates them."""
    options = {"seed_set": SEED}
    simulated = list(federate(plan(RECIPES[name], **options)))
    apart = together(Hospital(folder, IDS), {each: plan(RECIPES[name], **options) for each in IDS})
    for me, rounds in apart.items():
        assert [r.round for r in rounds] == [1, 2, 3]
        for mine, theirs in zip(rounds, simulated, strict=True):
            assert (list(mine.cohort), mine.reached, mine.dropped) == (list(IDS), 3, [])
            assert pack(mine.state) == pack(theirs.state)
            assert distance(mine.weights(me), theirs.weights(me)) == 0
            if not mine.plan.algorithm.traits.own_models:
                assert mine.test_accuracy == theirs.test_accuracy


def test_a_cohort_is_drawn_alike_everywhere(tmp_path: Path) -> None:
    """Two of three are asked in each round; whoever is not asked follows."""
    recipe = RECIPES["scaffold"]
    simulated = list(federate(plan(recipe, rounds=5, cohort=2)))
    apart = together(Hospital(tmp_path, IDS), {each: plan(recipe, rounds=5, cohort=2) for each in IDS})
    for rounds in apart.values():
        assert [list(r.cohort) for r in rounds] == [list(r.cohort) for r in simulated]
        assert pack(rounds[-1].state) == pack(simulated[-1].state)


class Blind(Box):
    """The mailbox of one that sees a participant's messages late, as through a slow file system."""

    cannot_see = "c"

    def read(self, round: int, sender: str, kind: str, max_bytes: int = 0) -> Letter | Unusable | None:
        hidden = sender == self.cannot_see and kind == "update" and round == 2
        return None if hidden and self.decision(round) is None else super().read(round, sender, kind, max_bytes)


@pytest.mark.parametrize("first", ["a", "b"])
def test_two_that_see_different_messages_end_with_the_same_model(first: str, tmp_path: Path) -> None:
    """In round 2, "a" does not see the update of "c", and gives up on it at its deadline; "b" and "c" see it. Whoever
    decides first, all take the same updates into account.
    """
    hospital, recipe = Hospital(tmp_path, IDS), RECIPES["fedadam"]
    hasty, patient = Pace(deadline=0.1, start_deadline=20, turn=0.01), Pace(deadline=20, start_deadline=20, turn=1.5)
    plans = {each: plan(recipe, rounds=4) for each in IDS}
    boxes = {each: hospital.box(each) for each in IDS}
    boxes["a"].__class__ = Blind
    pace = {each: hasty if each == first else patient for each in IDS}
    apart = in_threads({each: lambda e=each: list(take_part(plans[e], boxes[e], pace[e])) for each in IDS})
    assert len({pack(rounds[-1].state) for rounds in apart.values()}) == 1
    for number in range(4):
        assert len({(rounds[number].reached, str(rounds[number].dropped)) for rounds in apart.values()}) == 1


def test_one_that_dies_costs_one_deadline_and_comes_back(tmp_path: Path) -> None:
    """ "c" stops after round 2, and the others wait for it once. When it continues, it takes the state of the others,
    follows what it has missed, and is waited for again.
    """
    hospital, recipe = Hospital(tmp_path, IDS), RECIPES["scaffold"]
    pace = Pace(deadline=1.0, start_deadline=20, turn=0.05)
    plans = {each: plan(recipe, rounds=12) for each in IDS}
    boxes = {each: hospital.box(each) for each in IDS}
    began = time.monotonic()

    def dies_and_returns() -> list[Any]:
        rounds = []
        for round in take_part(plans["c"], boxes["c"], pace):
            rounds.append(round)
            if round.round == 2:
                break
        while boxes["a"].decision(6) is None:
            boxes["c"].pause(0.01)
        saved = Resume(2, rounds[-1].state, rounds[-1].store)
        for round in take_part(plan(recipe, rounds=12), hospital.box("c"), pace, saved):
            rounds.append(round)
        return rounds

    work: dict[str, Any] = {each: lambda e=each: list(take_part(plans[e], boxes[e], pace)) for each in "ab"}
    apart = in_threads(work | {"c": dies_and_returns})
    reached = [round.reached for round in apart["a"]]
    assert reached[:3] == [3, 3, 2]
    assert reached[-1] == 3
    assert [round.round for round in apart["c"]] == list(range(1, 13))
    assert [round.reached for round in apart["c"]] == reached
    assert apart["c"][2].dropped == [{"client": "c", "why": "did not answer in time"}]
    assert len({pack(rounds[-1].state) for rounds in apart.values()}) == 1
    assert time.monotonic() - began < 30


def test_a_round_done_and_not_saved_is_done_again(tmp_path: Path) -> None:
    """A process is killed between a decision and its checkpoint: its own state of that round is made again."""
    hospital, recipe = Hospital(tmp_path, IDS), RECIPES["scaffold"]
    apart = together(hospital, {each: plan(recipe) for each in IDS})
    last = {each: rounds[-1] for each, rounds in apart.items()}
    before = apart["b"][0]
    again = list(take_part(plan(recipe), hospital.box("b"), FAST, Resume(1, before.state, before.store)))
    assert [round.round for round in again] == [2, 3]
    assert pack(again[-1].state) == pack(last["b"].state)
    assert pack(again[-1].store.get("b") or {}) == pack(last["b"].store.get("b") or {})


def test_what_needs_a_server_is_refused(tmp_path: Path) -> None:
    hospital = Hospital(tmp_path, IDS)
    with pytest.raises(Mistake, match="faults belongs to a simulation"):
        next(take_part(plan(RECIPES["fedavg"], faults=coterie.Faults(drop=0.1)), hospital.box("a")))
    with pytest.raises(Mistake, match="pools all data in one place"):
        next(take_part(plan(RECIPES["centralized"]), hospital.box("a")))
    other = Hospital(tmp_path / "other", ("a", "b"))
    with pytest.raises(Mistake, match="the plan and the roster have other participants: c"):
        next(take_part(plan(RECIPES["fedavg"]), other.box("a")))
