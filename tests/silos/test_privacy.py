"""A guarantee between silos: the coordinator bounds and adds noise as a simulation does."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import coterie
from coterie import Mistake, Privacy
from coterie.experiment.settings import load_settings
from coterie.experiment.silos.judge_run import _bound_epsilon, _read_epsilon
from coterie.experiment.silos.silo_file import SiloFile
from coterie.experiment.silos.silo_settings import settings_at_silo, settings_to_send
from coterie.loop.example_plan import spent_by_clients
from coterie.loop.private_client import noise_key
from coterie.privacy.accountant import Event, spent
from coterie.silos.letters import Start
from coterie.silos.message import Unusable, read_message, write_message
from coterie.silos.silo_noise import with_noise_of
from tests.silos.deployment import Deployment, same_bits, server_state


def deployment(folder: Path, **privacy: Any) -> Deployment:
    given = {"unit": "client", "clip_norm": 0.5, "noise_multiplier": 1.0, "noise": "rng_seed", **privacy}
    return Deployment(coterie.fedavg(lr=0.1, batch_size=5), folder, rounds=2, options={"privacy": Privacy(**given)})


@pytest.mark.parametrize("clip", ["fixed", "adaptive"])
def test_silos_and_simulation_agree_to_the_bit(tmp_path: Path, clip: str) -> None:
    both = deployment(tmp_path, clip=clip)
    simulated, deployed = both.simulate()[-1], both.deploy()[-1]
    assert same_bits(server_state(simulated), server_state(deployed))
    assert deployed.measures["train_loss"] is None


def test_how_many_silos_answered_does_not_decide_whether_the_noise_is_added(tmp_path: Path) -> None:
    """Poisson draws ask nobody in some rounds: the noise alone counts there, as in the simulation."""
    both = deployment(tmp_path, noise_multiplier=1.0)
    both.rounds, both.options["cohort"] = 6, coterie.Cohort(fraction=0.2, sampling="poisson")
    simulated, deployed = both.simulate(), both.deploy()
    assert 0 in [round.reached for round in deployed]
    for ours, theirs in zip(simulated, deployed, strict=True):
        assert same_bits(server_state(ours), server_state(theirs))


@pytest.mark.parametrize(("where", "secure"), [("clients", False), ("clients", True), ("server", True)])
def test_clients_at_silos_bound_and_add_noise_as_in_the_simulation(tmp_path: Path, where: str, secure: bool) -> None:
    """A silo has two of the six clients, and its shares of the noise are those of six."""
    both = deployment(tmp_path, where=where, secure_sum=secure)
    simulated, deployed = both.simulate()[-1], both.deploy()[-1]
    assert deployed.reached == 6
    assert same_bits(server_state(simulated), server_state(deployed))
    assert deployed.measures["train_loss"] is None


def test_a_silos_noise_follows_from_its_secret_and_from_what_updates_follow_from(tmp_path: Path) -> None:
    silos = deployment(tmp_path, where="clients", noise="secret").silos()

    def key(site: str, starts: list[Start], broadcast: bytes, purpose: str = "") -> str:
        request = write_message({"cohort": 6, "purpose": purpose}, [broadcast])
        plan = with_noise_of(silos[site].plan, read_message(request), starts)
        assert plan.all_silos_cohort == 6
        return noise_key(plan, 1, "0")

    first, again = [Start("0", 0)], [Start("0", 1)]
    assert key("north", first, b"w") == key("north", first, b"w")
    others = [key("south", first, b"w"), key("north", again, b"w"), key("north", first, b"v")]
    assert len({key("north", first, b"w"), *others, key("north", first, b"w", "another sum")}) == 5


def test_a_silo_that_is_not_told_among_how_many_the_noise_is_shared_adds_none(tmp_path: Path) -> None:
    silo = deployment(tmp_path, where="clients").silos()["north"]
    with pytest.raises(Unusable, match="cohort"):
        with_noise_of(silo.plan, read_message(write_message({})), [])


@pytest.mark.parametrize(
    ("table", "kept"),
    [
        ({"where": "server"}, None),
        ({"where": "clients", "epsilon": 2.0}, {"where": "clients"}),
        ({"where": "server", "secure_sum": True}, {"where": "server", "secure_sum": True}),
    ],
)
def test_a_silo_has_the_guarantee_to_which_its_clients_add(table: dict[str, Any], kept: dict[str, Any] | None) -> None:
    """Without epsilon: the noise was chosen for it, for the clients of all silos."""
    base = {"unit": "client", "clip_norm": 1.0, "noise_multiplier": 3.0}
    tables = {"rounds": 1, "algorithm": {"name": "fedavg", "lr": 0.1}, "model": {"name": "mlp"}}
    file = SiloFile(Path("silo.toml"), "north", None, "digits", {})
    privacy = settings_at_silo({**tables, "privacy": {**base, **table}}, file).privacy
    assert privacy == (Privacy() if kept is None else Privacy(**base, **kept))


@pytest.mark.parametrize(
    ("table", "epsilon"),
    [
        ({}, None),
        ({"unit": "none", "epsilon": 1.0}, None),  # it protects nobody, whatever it says
        ({"unit": "client", "noise_multiplier": 1.0}, None),
        ({"unit": "client", "epsilon": 3}, 3.0),
        ({"unit": "client", "epsilon": "small"}, None),
    ],
)
def test_a_silo_reads_the_epsilon_that_a_run_states(table: dict[str, Any], epsilon: float | None) -> None:
    assert _read_epsilon(table) == epsilon


@pytest.mark.parametrize(
    ("cohort", "multiplier"),
    [({}, 4.0), ({"size": 3}, 2.0), ({"fraction": 0.5}, 2.0), ({"fraction": 0.5, "sampling": "poisson"}, 4.0)],
)
def test_a_silo_bounds_what_a_run_may_spend_by_its_noise(cohort: dict[str, Any], multiplier: float) -> None:
    """As if every round asked all: 16 releases with z cost what one with z / 4 costs; with z / 2 where n are asked."""
    privacy = {"unit": "client", "noise_multiplier": 4.0, "delta": 1e-4}
    tables = {"rounds": 16, "privacy": privacy, "cohort": cohort}
    assert _bound_epsilon(tables) == spent({Event(multiplier / 4): 1}, 1e-4)
    for lacking in ({**privacy, "delta": None}, {**privacy, "unit": "none"}, {**privacy, "delta": 2.0}, {}):
        assert _bound_epsilon({**tables, "privacy": lacking}) is None


def test_silos_are_told_of_a_guarantee_and_of_none_otherwise(tmp_path: Path) -> None:
    text = 'rounds = 1\n[data]\nsource = "digits"\n[model]\nname = "mlp"\n[algorithm]\nname = "fedavg"\nlr = 0.1\n'
    (tmp_path / "a.toml").write_text(text)
    (tmp_path / "b.toml").write_text(text + '[privacy]\nunit = "client"\nclip_norm = 1.0\nepsilon = 2.0\n')
    assert "privacy" not in settings_to_send(load_settings(tmp_path / "a.toml"))
    assert settings_to_send(load_settings(tmp_path / "b.toml"))["privacy"]["epsilon"] == 2.0


def example_level(folder: Path, **privacy: Any) -> Deployment:
    given = {"unit": "example", "clip_norm": 0.5, "noise_multiplier": 1.0, "noise": "rng_seed", **privacy}
    recipe = coterie.fedavg(lr=0.1, batch_size=5)
    return Deployment(recipe, folder, rounds=2, models=linear(), options={"privacy": Privacy(**given)})


def linear() -> nn.Module:
    torch.manual_seed(0)
    return nn.Linear(6, 3).double()


@pytest.mark.parametrize("secure", [False, True])
def test_silos_that_hide_examples_agree_with_a_simulation_to_the_bit(tmp_path: Path, secure: bool) -> None:
    """With the secret from the rng seed, so that both draw the same batches and noise."""
    both = example_level(tmp_path, secure_sum=secure)
    simulated, deployed = both.simulate()[-1], both.deploy()[-1]
    assert same_bits(server_state(simulated), server_state(deployed))
    assert deployed.measures["train_loss"] is None


def test_a_silo_counts_every_answer_and_never_uses_noise_twice(tmp_path: Path) -> None:
    """One request gets one answer, and is counted once; the same round from another model has other noise."""
    both = example_level(tmp_path, noise="secret", delta=1e-3)
    both.deploy()
    for site, silo in both.silos().items():
        own = [client for client, host in both.hosts.items() if host == site]
        privacy = silo.plan.example_privacy
        assert privacy is not None
        held = {client: len(both.clients[client]) for client in own}
        expected = spent_by_clients(silo.plan.algorithm, privacy, held, [(1, own), (2, own)])
        assert silo.ledger.epsilons() == expected
        assert silo.ledger.enter(own, 2) != silo.ledger.enter(own, 2)
        assert silo.ledger.epsilons()[own[0]] > expected[own[0]]


def test_a_silo_does_not_spend_more_than_the_run_states(tmp_path: Path) -> None:
    """Two rounds are planned, and cost the epsilon of the plan at the client that spends most; a third is refused."""
    both = example_level(tmp_path, noise_multiplier=None, epsilon=2.0, delta=1e-3)
    smallest = min(both.clients, key=lambda client: len(both.clients[client]))
    silo = both.silos()[both.hosts[smallest]]
    silo.ledger.enter([smallest], 1)
    silo.ledger.enter([smallest], 2)
    spent = silo.ledger.epsilons()[smallest]
    assert spent <= 2.0
    with pytest.raises(Mistake, match=rf"client {smallest} has worked in a round before .* epsilon is 2"):
        silo.ledger.enter([smallest], 2)
    assert both.silos()[both.hosts[smallest]].ledger.epsilons()[smallest] == spent
