"""Between silos a secure sum is that of the simulation, bit for bit, and no update leaves a silo in the clear."""

import json
from dataclasses import replace

import pytest
import torch

import coterie
from coterie.core.packing import unpack
from coterie.privacy.table import Privacy
from coterie.silos.carrier import Failure
from coterie.silos.in_process import InProcess
from coterie.silos.message import read_message, write_message
from tests.silos.deployment import Deployment, same_bits, server_state

SECURE = {"privacy": Privacy(secure_sum=True, secure_threshold=0.5), "evaluate_every": 9}


class Listening(InProcess):
    """A carrier that keeps what it takes, and whose silos can be silent at a step."""

    def __init__(self, silos, silent=()):
        super().__init__(silos)
        self.silent, self.answers = set(silent), []

    def ask(self, messages, deadline):
        for site, answer in super().ask(messages, deadline):
            fields = json.loads(messages[site].partition(b"\n")[0])
            if (fields["round"], fields["kind"], site) in self.silent:
                answer = Failure("has fallen silent")
            else:
                self.answers.append((site, fields["kind"], answer))
            yield site, answer


def far(a, b):
    return max(float((x - y).abs().max()) for x, y in zip(a.values(), b.values(), strict=True))


@pytest.mark.parametrize("recipe", [coterie.fedavg(lr=0.1), coterie.scaffold(lr=0.1)], ids=["fedavg", "scaffold"])
def test_the_rounds_are_those_of_the_simulation(recipe, tmp_path):
    deployment = Deployment(recipe, tmp_path, options=SECURE)
    simulated, deployed = deployment.simulate(), deployment.deploy()
    assert same_bits(server_state(simulated[-1]), server_state(deployed[-1]))
    for a, b in zip(simulated, deployed, strict=True):
        assert (a.reached, a.dropped, a.train_loss) == (b.reached, b.dropped, b.train_loss)
    clear = replace(deployment, options={"evaluate_every": 9}).simulate()
    assert far(server_state(clear[-1]), server_state(deployed[-1])) < 1e-6


def test_nothing_but_masked_numbers_and_keys_leaves_a_silo(tmp_path):
    """Every payload is bytes as even as chance; no answer has a weighting, a loss or a leaf of the model."""
    deployment = Deployment(coterie.fedavg(lr=0.1), tmp_path, rounds=2, options=SECURE)
    carrier = Listening(deployment.silos())
    deployment.deploy(carrier)
    kinds = [kind for _, kind, _ in carrier.answers]
    assert {"sum-keys", "sum-shares", "sum-work", "sum-unmask"} <= set(kinds)
    assert "work" not in kinds
    low = []
    for _, kind, answer in carrier.answers:
        message = read_message(answer)
        for part in message.parts if kind == "sum-work" else ():
            packed = unpack(part)
            assert list(packed) == ["masked"]
            low.append(packed["masked"].reshape(-1))
        for reply in message.fields.get("replies", ()):
            assert reply["weighting"] == {}
            assert not any(reply["logs"].values())
    numbers = torch.cat(low)
    expected = len(numbers) / 256
    counts = torch.bincount(numbers.int(), minlength=256).double()
    assert float(((counts - expected) ** 2 / expected).sum()) < 255 + 6 * 22.6


@pytest.mark.parametrize(("kind", "reached"), [("sum-keys", 4), ("sum-shares", 4), ("sum-work", 4), ("sum-unmask", 6)])
def test_a_silo_that_falls_silent_at_a_step_costs_its_clients_alone(kind, reached, tmp_path):
    deployment = Deployment(coterie.fedavg(lr=0.1), tmp_path, rounds=1, options=SECURE)
    carrier = Listening(deployment.silos(), {(1, kind, "north")})
    (round,) = deployment.deploy(carrier)
    dropping = [] if reached == 6 else [(1, "0"), (1, "1")]
    assert round.reached == reached
    assert {entry["client"] for entry in round.dropped} == {client for _, client in dropping}
    assert all("fallen silent" in entry["why"] for entry in round.dropped)
    assert far(server_state(round), server_state(deployment.simulate(dropping)[0])) < 1e-6  # the steps may differ


def test_with_too_few_left_the_round_changes_nothing_and_the_next_one_counts(tmp_path):
    deployment = Deployment(coterie.fedavg(lr=0.1), tmp_path, rounds=2, options=SECURE)
    silent = {(1, "sum-unmask", "north"), (1, "sum-unmask", "south")}
    first, second = deployment.deploy(Listening(deployment.silos(), silent))
    assert (first.reached, second.reached) == (0, 6)
    assert "opened their shares, and a secure sum needs 4" in json.dumps(first.dropped)
    assert same_bits(server_state(first), server_state(replace(first, state=first.before)))


def test_a_silo_started_again_within_a_round_is_gone_from_it(tmp_path):
    deployment = Deployment(coterie.fedavg(lr=0.1), tmp_path, rounds=1, options=SECURE)
    silos = deployment.silos()
    fresh = deployment.silos()["north"]
    north, seen = silos["north"], []

    def restarts(request):
        seen.append(json.loads(request.partition(b"\n")[0])["kind"])
        return (fresh if "sum-work" in seen else north)(request)

    (round,) = deployment.deploy(InProcess({**silos, "north": restarts}))
    assert round.reached == 4
    assert all("started again" in entry["why"] for entry in round.dropped)


def test_a_silo_answers_no_request_for_an_update_in_the_clear(tmp_path):
    secure = Deployment(coterie.fedavg(lr=0.1), tmp_path / "a", rounds=1, options=SECURE)
    clear = replace(secure, options={"evaluate_every": 9}, folder=tmp_path / "b")
    for deployment, kind, words in ((secure, "work", "in the clear"), (clear, "sum-keys", "this run has none")):
        silo = deployment.silos()["north"]
        answer = read_message(silo(write_message(silo.run.fields(kind, 1))))
        assert answer.fields["kind"] == "failed"
        assert words in answer.text("why")
