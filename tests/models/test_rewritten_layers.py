"""Parametrisations are trained as PyTorch trains them, or refused; so are layers prepared for quantisation."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.ao import quantization
from torch.nn.utils import parametrizations, parametrize, prune

import coterie
from coterie import Examples, Mistake
from coterie.engines.sequential import Sequential
from coterie.engines.vectorised import Vectorised
from coterie.models.usable_model import require_usable_model


class Normed(nn.Module):
    """The weight divided by its largest singular value, without a buffer."""

    def forward(self, weight: Tensor) -> Tensor:
        return weight / torch.linalg.matrix_norm(weight, 2)


def three_layers() -> Any:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(5, 6), nn.Tanh(), nn.Linear(6, 3)).double()


def rewrite(change: Callable[[nn.Module], Any]) -> nn.Module:
    model = three_layers()
    change(model[0])
    return model


def normed(layer: nn.Module) -> None:
    parametrize.register_parametrization(layer, "weight", Normed())


TRAINED = {"weight_norm": parametrizations.weight_norm, "orthogonal": parametrizations.orthogonal, "own": normed}


@pytest.mark.parametrize("change", TRAINED)
@pytest.mark.parametrize("engine", [Sequential, Vectorised])
def test_a_parametrisation_takes_the_steps_of_plain_pytorch(change: str, engine: Any) -> None:
    model, draw = rewrite(TRAINED[change]), torch.Generator().manual_seed(1)
    x, y = torch.randn(24, 5, generator=draw, dtype=torch.float64), torch.randint(3, (24,), generator=draw)
    expected = copy.deepcopy(model)
    optimizer = torch.optim.SGD(expected.parameters(), 0.3)
    for _ in range(4):
        optimizer.zero_grad()
        nn.functional.cross_entropy(expected(x), y).backward()
        optimizer.step()
    recipe = coterie.fedavg(lr=0.3, batch_size="full", local_steps=2)
    chosen = engine(dtype=torch.float64)
    *_, last = coterie.federate(recipe, model, {"a": Examples(x, y)}, rounds=2, engine=chosen)
    weights = last.weights()
    assert weights.keys() == expected.state_dict().keys()
    for name, weight in expected.state_dict().items():
        assert torch.allclose(weights[name], weight, rtol=0, atol=1e-12), name
    assert getattr(chosen, "unbatched", {}) == {}


def test_the_norm_stays_what_it_should_be_where_clients_differ() -> None:
    """What the refusal of spectral_norm advises. The mean of spectral_norm's vectors would give a norm of about 5."""
    model, draw = rewrite(normed), torch.Generator().manual_seed(1)
    clients = {
        str(k): Examples(torch.randn(24, 5, generator=draw, dtype=torch.float64), torch.full((24,), k))
        for k in range(3)
    }
    *_, last = coterie.federate(
        coterie.fedavg(lr=0.5, local_epochs=5), model, clients, rounds=3, engine=Sequential(dtype=torch.float64)
    )
    model.load_state_dict(last.weights())
    weight: Any = model[0].weight  # type: ignore[index]
    assert float(torch.linalg.matrix_norm(weight.detach(), 2)) == pytest.approx(1, abs=1e-12)


def prepared(prepare: Callable[[nn.Module], nn.Module], config: Any) -> nn.Module:
    model: Any = nn.Sequential(quantization.QuantStub(), nn.Linear(4, 3), quantization.DeQuantStub()).train()
    model.qconfig = config
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return prepare(model)


def quantised_in_training() -> nn.Module:
    return prepared(quantization.prepare_qat, quantization.get_default_qat_qconfig("fbgemm"))


def quantised_later() -> nn.Module:
    return prepared(quantization.prepare, quantization.get_default_qconfig("fbgemm"))


def quantised() -> nn.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return quantization.quantize_dynamic(three_layers().float())  # type: ignore[no-any-return]


def parametrised_batchnorm() -> nn.Module:
    model = nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3))
    normed_bias: Any = nn.Identity()
    parametrize.register_parametrization(model[1], "bias", normed_bias)
    return model


def pruned() -> nn.Module:
    return rewrite(lambda layer: prune.l1_unstructured(layer, "weight", 0.5))


REFUSED = {
    "spectral_norm": (
        lambda: rewrite(parametrizations.spectral_norm),
        r"^model: its layer 0 has a spectral_norm, .* torch.linalg.matrix_norm",
    ),
    "old spectral_norm": (lambda: rewrite(nn.utils.spectral_norm), "^model: its layer 0 has a spectral_norm"),
    "observed in training": (quantised_in_training, r"its layer 0\.activation_post_process observes .* quantise the"),
    "observed": (quantised_later, r"its layer 0\.activation_post_process observes values for quantisation"),
    "quantised": (quantised, "its layer 0 is quantised and cannot be trained; give the model as it was before"),
    "a BatchNorm": (parametrised_batchnorm, "its layer 1 is a BatchNorm with a parametrisation; leave that out"),
    "pruned": (pruned, r"its attribute 0\.weight is computed .* torch\.nn\.utils\.prune\.remove"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_no_mean_over_clients_is_right_for_is_refused(case: str) -> None:
    make, sentence = REFUSED[case]
    with pytest.raises(Mistake, match=sentence):
        require_usable_model(make(), "model")


def test_stubs_and_an_ended_pruning_are_trained() -> None:
    require_usable_model(nn.Sequential(quantization.QuantStub(), nn.Linear(4, 3)), "model")
    model = pruned()
    prune.remove(model[0], "weight")  # type: ignore[index]
    require_usable_model(model, "model")
