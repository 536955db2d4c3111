"""Deployment equals simulation: the same rows at the same clients give the same weights, bit for bit."""

from pathlib import Path

import pytest
import torch
from torch import nn

from coterie import Recipe
from coterie.core.codecs.top_k import top_k
from coterie.core.packing import unpack
from coterie.core.transforms import cast
from coterie.loop.spill import Memory
from tests.common.recipes import RECIPES
from tests.federations import dense, ragged, seed_set
from tests.silos.deployment import Deployment, same_bits, server_state

DEPLOYABLE = {name: recipe for name, recipe in RECIPES.items() if name != "centralized"}


@pytest.mark.parametrize("recipe", DEPLOYABLE.values(), ids=DEPLOYABLE)
def test_weights_are_those_of_the_simulation(recipe: Recipe, tmp_path: Path) -> None:
    """Every algorithm; six clients at three silos, of which a round asks four; states stay at the silos."""
    both = Deployment(recipe, tmp_path, options={"cohort": 0.7})
    simulated, deployed = both.simulate(), both.deploy()
    for a, b in zip(simulated, deployed, strict=True):
        assert same_bits(server_state(a), server_state(b))
        assert (a.cohort, a.reached, a.dropped) == (b.cohort, b.reached, b.dropped)
        assert (a.train_loss, a.bytes_up, a.bytes_down) == (b.train_loss, b.bytes_up, b.bytes_down)
        assert a.client_weights == b.client_weights
    models = both.models_at_silos()
    for client in both.clients:
        assert same_bits(unpack(models[client]), simulated[-1].weights(client))
    assert both.said == []


@pytest.mark.parametrize("name", ["fedh2l", "fedh2l, all options", "fedmd, posteriors"])
def test_three_models(name: str, tmp_path: Path) -> None:
    """Clients with models of three kinds; each silo has those of its own clients alone."""
    two_layers = nn.Sequential(nn.Linear(6, 4), nn.ReLU(), nn.Linear(4, 3)).double()
    kinds = [dense(), nn.Linear(6, 3).double(), two_layers]
    models = {client: kinds[int(client) % 3] for client in ragged()}
    both = Deployment(RECIPES[name], tmp_path, models=models)
    simulated, deployed = both.simulate(), both.deploy()
    for a, b in zip(simulated, deployed, strict=True):
        assert same_bits(server_state(a), server_state(b))
    found = both.models_at_silos()
    for client in both.clients:
        assert same_bits(unpack(found[client]), simulated[-1].weights(client))


@pytest.mark.parametrize("name", ["fedavg", "scaffold"])
@pytest.mark.parametrize("codec", ["float16", "top_k"])
def test_a_codec_works_at_the_silo(name: str, codec: str, tmp_path: Path) -> None:
    """Fewer bytes; what top_k has not sent yet is part of the client's state, which stays at the silo."""
    up = top_k(0.1) if codec == "top_k" else cast(torch.float16, torch.float64)
    both = Deployment(RECIPES[name], tmp_path, options={"up": up})
    a, b = both.simulate()[-1], both.deploy()[-1]
    assert same_bits(server_state(a), server_state(b))
    assert (a.bytes_up, a.reached, b.reached) == (b.bytes_up, 6, 6)


def test_measures_are_those_of_all_test_rows(tmp_path: Path) -> None:
    """Each silo has a third of the test rows; their sums and counts make the simulation's loss and accuracy."""
    test = seed_set(20)
    both = Deployment(RECIPES["fedavg"], tmp_path, test=test)
    for a, b in zip(both.simulate(), both.deploy(), strict=True):
        assert b.test_loss == pytest.approx(a.test_loss, rel=1e-12)
        assert b.test_accuracy == a.test_accuracy
        assert b.measures["wire_bytes_up"] > b.bytes_up
        assert b.measures["wire_bytes_down"] > 0
        assert list(b.measures["silos"]) == ["north", "south", "west"]
        for way in ("up", "down"):
            each = [own[f"bytes_{way}"] for own in b.measures["silos"].values()]
            assert min(each) > 0
            assert sum(each) == b.measures[f"wire_bytes_{way}"]
        assert all(own["seconds"] >= 0 for own in b.measures["silos"].values())


def test_measures_of_own_models_are_the_mean_over_the_models(tmp_path: Path) -> None:
    """Where every silo has all test rows, they are the simulation's; so are the clients' own accuracies."""
    test, own = seed_set(20), {client: data.take(torch.arange(1)) for client, data in ragged().items()}
    both = Deployment(RECIPES["fedbn"], tmp_path, hosts=dict.fromkeys("012345", "only"), test=test)
    both.options = {"own_test": own, "evaluate_clients": True}
    a, b = both.simulate()[-1], both.deploy()[-1]
    assert b.test_loss == pytest.approx(a.test_loss, rel=1e-12)
    assert b.test_accuracy == pytest.approx(a.test_accuracy)
    assert b.measures["own_test_accuracy"] == pytest.approx(a.measures["own_test_accuracy"])
    diagonal = [row[k] for k, row in enumerate(a.measures["accuracy_matrix"])]
    assert [each["test_accuracy"] for each in b.measures["own_tests"].values()] == diagonal
    assert list(b.measures["own_tests"]) == list(both.clients)


def test_updates_ahead_of_their_turn_wait_on_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The last silo answers first, and there is no memory for what must wait: the sums are the same."""
    monkeypatch.setattr("coterie.silos.remote_round.WAITING_BYTES", 0)
    written: list[int] = []
    write = Memory._write

    def note(memory: Memory, data: bytes) -> Path:
        written.append(len(data))
        return write(memory, data)

    monkeypatch.setattr(Memory, "_write", note)
    both = Deployment(RECIPES["fedavg"], tmp_path, 2)
    deployed = both.deploy()
    assert len(written) >= 4
    assert same_bits(server_state(both.simulate()[-1]), server_state(deployed[-1]))
