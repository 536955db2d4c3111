"""Silos and coordinators that are stopped and started again, at any round, end where an unbroken run does."""

from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import pytest
import torch

from coterie import Mistake, Round
from coterie.loop.checkpoint import Checkpoints
from coterie.loop.federate import federate
from coterie.loop.plan import Resume
from coterie.silos.coordinate import remote_plan
from coterie.silos.in_process import InProcess
from coterie.silos.states import States
from tests.common.recipes import RECIPES
from tests.silos.deployment import Deployment, same_bits, server_state

STATEFUL = ("scaffold", "feddyn", "fedbn, all options", "fedh2l", "fbn, all options", "fedssl, heads at the client")


def rounds_of(both: Deployment, carrier: InProcess, resume: Resume | None = None) -> Iterator[Round]:
    return federate(remote_plan(both.coordinator(), carrier, hosts=both.hosts, experiment="a file"), resume)


@pytest.mark.parametrize("name", STATEFUL)
def test_a_silo_started_again_and_a_coordinator_that_went_back_a_round(name: str, tmp_path: Path) -> None:
    """The coordinator dies after round 3, and its newest checkpoint is that of round 2. Every silo is a new process."""
    both = Deployment(RECIPES[name], tmp_path / "silos", 4, options={"cohort": 0.7})
    whole = both.simulate()
    for round in islice(rounds_of(both, both.carrier()), 3):
        if round.round == 2:
            Checkpoints(tmp_path / "checkpoint").save(round)
    resume = Checkpoints(tmp_path / "checkpoint").load()
    rest = list(rounds_of(both, both.carrier(), resume))
    assert [r.round for r in rest] == [3, 4]
    for a, b in zip(whole[2:], rest, strict=True):
        assert same_bits(server_state(a), server_state(b))
        assert b.dropped == []


def test_a_checkpoint_holds_a_number_for_each_client_and_no_state(tmp_path: Path) -> None:
    both = Deployment(RECIPES["scaffold"], tmp_path)
    last = both.deploy()[-1]
    states = [last.store.get(client) for client in both.clients]
    assert [int(state["kept"]["at_silo"]) for state in states if state is not None] == [3] * 6
    with pytest.raises(LookupError, match="kept where the client works"):
        last.plan.client_state(last.store, "0")


def test_a_repeated_request_gets_the_same_bytes_without_work(tmp_path: Path) -> None:
    """A request of round 2 that is repeated, also to a silo that was started again."""
    both = Deployment(RECIPES["scaffold"], tmp_path, 2)
    seen: list[tuple[bytes, bytes]] = []
    silos = both.silos()
    north = silos["north"]

    def remember(request: bytes) -> bytes:
        answer = north(request)
        seen.append((request, answer))
        return answer

    both.deploy(InProcess({**silos, "north": remember}), save_models=False)
    request, answer = next(pair for pair in reversed(seen) if b'"kind": "work"' in pair[0])
    again = both.silos()["north"]
    for silo in (again, north):
        object.__setattr__(silo.plan.engine, "run", None)  # whoever works now fails
    assert again(request) == answer == north(request)


def test_states_keep_as_many_rounds_as_a_coordinator_may_go_back(tmp_path: Path) -> None:
    """By hand: after round 6, with go_back = 2, what lies before 5 is dropped except the newest of it, round 4."""
    states = States(tmp_path)
    for round in range(1, 7):
        states.put(round, {"a": {"x": torch.tensor(float(round))}}, {"a": round - 1}, go_back=2)
    assert states.rounds("a") == [4, 5, 6]
    assert States(tmp_path).get("a", 4) == {"x": torch.tensor(4.0)}
    assert States(tmp_path).get("a", 0) is None
    with pytest.raises(Mistake, match=r"no state of client a after round 3 \(it has: 4, 5, 6\)"):
        states.get("a", 3)
    states.put(9, {"a": {"x": torch.tensor(9.0)}}, {"a": 4}, go_back=2)  # rounds 5 and 6 were refused
    assert states.rounds("a") == [4, 6, 9]
    assert len(list((tmp_path / "states").iterdir())) == 3


def test_a_damaged_list_of_states_is_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "states.json").write_text("{}")
    with pytest.raises(Mistake, match=r"states.json is damaged \(its checksum does not match\)"):
        States(tmp_path)
