"""A guarantee between silos: the coordinator bounds and adds noise as a simulation does."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import coterie
from coterie import Mistake, Privacy
from coterie.experiment.settings import load_settings
from coterie.experiment.silos.judge_run import _read_epsilon
from coterie.experiment.silos.silo_settings import settings_to_send
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


def test_noise_of_the_clients_is_refused_between_silos(tmp_path: Path) -> None:
    with pytest.raises(Mistake, match=r"silos do not add noise yet; set where = .server."):
        deployment(tmp_path, where="clients").deploy()


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


def test_silos_are_told_of_a_guarantee_and_of_none_otherwise(tmp_path: Path) -> None:
    text = 'rounds = 1\n[data]\nsource = "digits"\n[model]\nname = "mlp"\n[algorithm]\nname = "fedavg"\nlr = 0.1\n'
    (tmp_path / "a.toml").write_text(text)
    (tmp_path / "b.toml").write_text(text + '[privacy]\nunit = "client"\nclip_norm = 1.0\nepsilon = 2.0\n')
    assert "privacy" not in settings_to_send(load_settings(tmp_path / "a.toml"))
    assert settings_to_send(load_settings(tmp_path / "b.toml"))["privacy"]["epsilon"] == 2.0
