"""What goes wrong between a silo and the coordinator costs that silo's clients the round, and nobody anything else."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest
import torch

from coterie import Mistake, Round
from coterie.core import tree
from coterie.core.packing import pack, unpack
from coterie.loop.federate import federate
from coterie.silos.carrier import Answer, Failure
from coterie.silos.coordinate import remote_plan
from coterie.silos.in_process import Fault, InProcess, late_answer
from coterie.silos.letters import Run, answer_failed
from coterie.silos.message import read_message, write_message
from coterie.silos.remote import TRIES, RemoteWork
from tests.common.recipes import RECIPES
from tests.federations import seed_set
from tests.silos.deployment import Deployment, same_bits, server_state

TEST = seed_set(12)
SELDOM = {"evaluate_every": 100}
"""Options of runs in which nothing is asked between the work of two rounds."""


def change(alter: Callable[[dict, list[bytes]], object]) -> Fault:  # type: ignore[type-arg]
    """A fault that alters what an answer says; `alter` writes into its fields and parts."""

    def fault(answer: bytes) -> Sequence[bytes | Failure]:
        message = read_message(answer)
        fields, parts = dict(message.fields), list(message.parts)
        alter(fields, parts)
        return [write_message(fields, parts)]

    return fault


def change_leaves(f: Callable[[torch.Tensor], torch.Tensor]) -> Fault:
    """A fault that alters every payload."""

    def alter(fields: dict[str, object], parts: list[bytes]) -> None:
        parts[:] = [pack(tree.map(f, unpack(part))) for part in parts]

    return change(alter)


def rename(fields: dict, parts: list[bytes]) -> None:  # type: ignore[type-arg]
    fields["replies"][0]["client"] = "3"


def weigh(fields: dict, parts: list[bytes]) -> None:  # type: ignore[type-arg]
    for reply in fields["replies"]:
        reply["weighting"]["examples"] = 1e9


FAULTS: dict[str, tuple[Fault, str]] = {
    "silent": (lambda answer: [], "gave no answer within 600 seconds"),
    "late": (late_answer, "gave no answer within 600 seconds"),
    "killed": (lambda answer: [Failure("the process was killed")], "south: the process was killed"),
    "wrong shape": (change_leaves(lambda x: torch.cat([x.reshape(-1)] * 2)), "has shape"),
    "wrong type": (change_leaves(lambda x: x.float()), "is torch.float32, not torch.float64"),
    "NaN": (change_leaves(lambda x: x * float("nan")), "holds numbers that are not finite"),
    "oversized": (lambda answer: [answer + bytes(10**6)], "and an honest message"),
    "another's name": (change(rename), "answers for 3"),
    "greedy": (change(weigh), "says that it has 1e+09 examples"),
    "garbage": (lambda answer: [b"\x00\xff" * 100], "has no first line"),
    "a line that is no JSON": (lambda answer: [b"{" * 5000 + b"\n"], "cannot be read"),
    "cut": (lambda answer: [answer[:-1]], "is not as long as it says"),
    "parts in disorder": (change(lambda fields, parts: parts.pop()), "holds fewer payloads"),
    "a payload that cannot be read": (change(lambda f, parts: parts.__setitem__(0, b"x" * 9)), "cannot be read"),
    "another run's": (change(lambda fields, parts: fields.update(run="other")), "is of another run"),
    "another experiment's": (change(lambda fields, parts: fields.update(experiment="")), "is of another experiment"),
    "another version's": (lambda answer: [answer.replace(b'"version": 1', b'"version": 2', 1)], "is of version 2"),
}


@cache
def simulate_without(lost: tuple[str, ...]) -> list[Round]:
    """A simulation of SCAFFOLD in which some clients drop out in round 2."""
    return Deployment(RECIPES["scaffold"], Path(), test=TEST).simulate([(2, client) for client in lost])


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_costs_the_silo_s_clients_the_round(name: str, tmp_path: Path) -> None:
    """The weights are those of a simulation in which the clients of silo south dropped out in round 2; their states
    stay at those of round 1, so SCAFFOLD's round 3 would show any other."""
    fault, why = FAULTS[name]
    both = Deployment(RECIPES["scaffold"], tmp_path, test=TEST, faults={(2, "south"): fault})
    first_is_enough = name in ("a payload that cannot be read", "another's name")
    lost = ["2"] if name == "a payload that cannot be read" else ["2", "4"]
    simulated, deployed = simulate_without(tuple(lost)), both.deploy()
    for a, b in zip(simulated, deployed, strict=True):
        assert same_bits(server_state(a), server_state(b))
        assert a.reached == b.reached
    assert [d["client"] for d in deployed[1].dropped] == lost
    assert all(why in d["why"] for d in deployed[1].dropped[:1] if first_is_enough)
    assert first_is_enough or all(why in d["why"] for d in deployed[1].dropped)
    assert [r.dropped for k, r in enumerate(deployed) if k != 1] == [[], []]


def test_an_answer_that_comes_twice_counts_once(tmp_path: Path) -> None:
    both = Deployment(RECIPES["scaffold"], tmp_path, faults={(2, "south"): lambda answer: [answer, answer]})
    a, b = both.simulate()[-1], both.deploy()[-1]
    assert same_bits(server_state(a), server_state(b))
    assert both.said == ["round 2: south has answered twice; its first answer counts"]


def test_a_late_answer_is_named_and_left_out(tmp_path: Path) -> None:
    both = Deployment(RECIPES["fedavg"], tmp_path, test=TEST, faults={(2, "south"): late_answer})
    both.deploy()
    assert any("south has answered an earlier request, too late" in sentence for sentence in both.said)


def test_a_silo_that_missed_is_left_out_until_it_is_back(tmp_path: Path) -> None:
    """Gone in rounds 2 and 3: it misses round 2, is asked for nothing in round 3, and works again in round 4."""
    both = Deployment(RECIPES["scaffold"], tmp_path, 4, options=SELDOM)
    carrier = both.carrier()
    rounds = []
    plan = remote_plan(both.coordinator(), carrier, hosts=both.hosts, experiment="a file")
    for round in federate(plan):
        rounds.append(round)
        carrier.gone = {"south"} if round.round in (1, 2) else set()
    simulated = both.simulate([(n, client) for n in (2, 3) for client in ("2", "4")])
    assert [r.dropped for r in rounds[1:3]] == [[{"client": c, "why": "south is not connected"} for c in "24"]] * 2
    assert same_bits(server_state(simulated[-1]), server_state(rounds[-1]))
    assert [kind for site, kind in carrier.requests if site == "south"] == ["work", "work", "measure"]


def test_a_record_says_how_many_silos_gave_no_measures(tmp_path: Path) -> None:
    """South is gone after the work of round 1: the accuracy of round 2 is that of the test rows of the others."""
    both = Deployment(RECIPES["fedavg"], tmp_path, 2, test=TEST)
    carrier = both.carrier()
    rounds = []
    for round in federate(remote_plan(both.coordinator(), carrier, hosts=both.hosts, experiment="a file")):
        rounds.append(round)
        carrier.gone = {"south"}
    assert [r.measures.get("silos_not_measured") for r in rounds] == [None, 1]
    assert rounds[1].test_accuracy is not None


def test_a_silent_silo_costs_one_deadline(tmp_path: Path) -> None:
    """It is pinged beside the next round's requests, and works in the round after."""
    both = Deployment(RECIPES["fedavg"], tmp_path, 4, options=SELDOM, faults={(1, "south"): lambda answer: []})
    carrier = both.carrier()
    rounds = both.deploy(carrier)
    simulated = both.simulate([(n, client) for n in (1, 2) for client in ("2", "4")])
    assert [len(r.dropped) for r in rounds] == [2, 2, 0, 0]
    assert "is left out until it is back" in rounds[1].dropped[0]["why"]
    assert "round 2: south is back" in both.said
    assert [kind for site, kind in carrier.requests if site == "south"][:3] == ["work", "ping", "work"]
    assert same_bits(server_state(simulated[-1]), server_state(rounds[-1]))


def test_a_round_with_too_few_replies_asks_again(tmp_path: Path) -> None:
    """Two silos fail in round 2 at first: it has two sound replies, four are needed, so both are asked again."""
    failures = {"south": 1, "west": 2}

    def failing(site: str) -> Fault:
        def fault(answer: bytes) -> Sequence[bytes | Failure]:
            failures[site] -= 1
            return [answer] if failures[site] < 0 else [Failure("the line is down")]

        return fault

    faults = {(2, site): failing(site) for site in failures}
    both = Deployment(RECIPES["scaffold"], tmp_path, options=SELDOM, faults=faults)
    plan = remote_plan(
        both.coordinator(), both.carrier(), hosts=both.hosts, experiment="a file", min_clients=4, say=both.said.append
    )
    pauses: list[float] = []
    assert isinstance(plan.workplace, RemoteWork)
    plan.workplace.pause = pauses.append
    rounds = list(federate(plan))
    simulated = both.simulate([(2, "3"), (2, "5")])
    assert [r.reached for r in rounds] == [6, 4, 4]
    assert pauses == [1.0]
    assert "2 sound replies so far, and 4 are needed" in both.said[0]
    assert same_bits(server_state(simulated[1]), server_state(rounds[1]))


def test_a_round_with_too_few_replies_goes_on_as_soon_as_a_silo_connects(tmp_path: Path) -> None:
    """South comes back after 11 seconds, in the pause of 8 seconds that follows those of 1, 2 and 4."""
    both = Deployment(RECIPES["fedavg"], tmp_path, 1, options=SELDOM)
    carrier, pauses = both.carrier(), list[float]()
    plan = remote_plan(
        both.coordinator(), carrier, hosts=both.hosts, experiment="a file", min_clients=6, say=both.said.append
    )

    def wait(seconds: float) -> None:
        pauses.append(seconds)
        if sum(pauses) >= 10:
            carrier.gone.clear()

    assert isinstance(plan.workplace, RemoteWork)
    plan.workplace.pause = wait
    carrier.gone.add("south")
    (only,) = list(federate(plan))
    assert only.reached == 6
    assert pauses == [1.0, 2.0, 2.0, 2.0, 2.0, 2.0]
    (said,) = both.said  # once, however often it asks
    assert "4 sound replies so far, and 6 are needed (2: south is not connected; 4: south is not connected)" in said


def test_a_round_below_min_clients_whose_silos_answered_changes_nothing(tmp_path: Path) -> None:
    """Asking again would bring the same garbage, so the next round is next."""
    nan, _ = FAULTS["NaN"]
    both = Deployment(RECIPES["fedavg"], tmp_path, 2, faults={(2, site): nan for site in ("south", "west")})
    first, second = both.deploy(min_clients=3)
    assert same_bits(server_state(first), server_state(second))
    assert second.reached == 0
    assert "only 2 updates counted, and a round needs 3" in {d["why"] for d in second.dropped}


@pytest.mark.parametrize("tries", [2, 9])
def test_silos_that_cannot_work_are_asked_a_few_times_before_the_run_stops(tmp_path: Path, tries: int) -> None:
    """Two of three silos lack their data in round 2, at the first two tries or always; no round counts without them."""
    both, silos = Deployment(RECIPES["fedavg"], tmp_path, 2), dict[str, Answer]()
    asked = dict.fromkeys(["south", "west"], 0)
    carrier = both.carrier()
    for site, answer in carrier.silos.items():

        def work(request: bytes, site: str = site, answer: Answer = answer) -> bytes:
            fields = read_message(request, len(request)).fields
            if site in asked and (fields["kind"], fields["round"]) == ("work", 2):
                asked[site] += 1
                if asked[site] <= tries:
                    return answer_failed(Run(fields["run"], fields["experiment"]), request, "the data are gone")
            return answer(request)

        silos[site] = work
    plan = remote_plan(
        both.coordinator(), InProcess(silos), hosts=both.hosts, experiment="a file", min_clients=4, say=both.said.append
    )
    assert isinstance(plan.workplace, RemoteWork)
    plan.workplace.pause = lambda seconds: None
    rounds = federate(plan)
    assert next(rounds).reached == 6
    if tries == 2:
        assert next(rounds).reached == 6
    else:
        with pytest.raises(
            Mistake, match=r"and 4 are needed .*the data are gone.*; mend that, and continue with --resume"
        ):
            next(rounds)
    assert asked == dict.fromkeys(asked, min(tries + 1, TRIES))


def test_silos_with_another_experiment_say_so(tmp_path: Path) -> None:
    both = Deployment(RECIPES["fedavg"], tmp_path, 1)
    with pytest.warns(RuntimeWarning, match="no client's update was accepted"):
        (only,) = both.deploy(experiment="another file")
    assert only.reached == 0
    assert all("is of another experiment" in d["why"] for d in only.dropped)


def test_data_that_fail_at_a_silo_are_one_dropped_answer(tmp_path: Path) -> None:
    class Gone(dict):  # type: ignore[type-arg]
        """Clients whose file is gone after the first look."""

        def __getitem__(self, client: str) -> object:
            raise FileNotFoundError(2, "No such file or directory")

    both = Deployment(RECIPES["fedavg"], tmp_path, 1)
    silos = both.silos()
    silos["west"].plan = replace(silos["west"].plan, clients=Gone())
    (only,) = both.deploy(InProcess(silos))
    why = "west: a file cannot be read or written at the silo (No such file or directory)"
    assert only.dropped == [{"client": c, "why": why} for c in "35"]


def test_what_silos_cannot_do_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Mistake, match="needs all data in one place"):
        Deployment(RECIPES["centralized"], tmp_path).deploy(hosts={"pooled": "a"})
    both = Deployment(RECIPES["fedavg"], tmp_path)
    with pytest.raises(Mistake, match="no silo hosts 1, 2"):
        both.deploy(hosts={"0": "north"})
    with pytest.raises(Mistake, match="min_clients = 7: it must be from 1 to 6"):
        both.deploy(min_clients=7)
    with pytest.raises(LookupError, match="are at its silo"):
        both.coordinator().clients["0"]


def test_a_silo_s_state_that_is_gone_is_a_reason(tmp_path: Path) -> None:
    both = Deployment(RECIPES["scaffold"], tmp_path, 2)
    carrier = both.carrier()
    plan = remote_plan(both.coordinator(), carrier, hosts=both.hosts, experiment="a file")
    for round in federate(plan):
        if round.round == 1:
            for path in (tmp_path / "north" / "states").iterdir():
                path.write_bytes(b"damaged")
    assert [d["client"] for d in round.dropped] == ["0", "1"]
    assert "is damaged on the silo's disk" in round.dropped[0]["why"]
