"""From modules to functions: what a forward changes, what is frozen, and what has two names."""

import torch
from torch import Tensor, nn

import coterie
from coterie.core import rng
from coterie.models.functional import copy_module, initial_weights, make_task, second_names
from coterie.objectives import cross_entropy
from tests.federations import dense, distance, ragged


class Counting(nn.Module):
    """A layer that replaces one buffer and writes into another at every forward."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(6, 3)
        self.register_buffer("replaced", torch.zeros(()))
        self.register_buffer("written", torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        self.replaced = self.replaced + 1
        self.written.add_(1)
        return self.linear(x)


def test_buffers_come_out_changed_and_go_in_untouched() -> None:
    model = Counting()
    task, weights = make_task(model, loss=cross_entropy), initial_weights(model)
    _, after = task.apply(weights["params"], weights["buffers"], torch.zeros(2, 6), None, rng.key(0))
    assert {name: float(value) for name, value in after.items()} == {"replaced": 1, "written": 1}
    task.predict(weights["params"], weights["buffers"], torch.zeros(2, 6))
    assert {name: float(value) for name, value in weights["buffers"].items()} == {"replaced": 0, "written": 0}
    assert float(model.replaced) == float(model.written) == 0


def test_what_is_frozen_is_not_trained() -> None:
    model = dense()
    model[0].weight.requires_grad_(False)
    last = list(coterie.federate(coterie.fedavg(lr=0.1, weight_decay=0.1), model, ragged(), rounds=2))[-1]
    assert torch.equal(last.weights()["0.weight"], model[0].weight.detach())
    assert not torch.equal(last.weights()["0.bias"], model[0].bias.detach())


def test_tied_weights_have_both_their_names() -> None:
    """The rounds' weights load into the model as they are; both names are one tensor there, trained as one."""
    model = nn.Sequential(nn.Linear(6, 6), nn.ReLU(), nn.Linear(6, 6))
    model[2].weight = model[0].weight
    assert second_names(model) == {"2.weight": "0.weight"}
    (round,) = coterie.federate(coterie.fedavg(lr=0.1), model.double(), ragged(), rounds=1)
    assert distance(round.weights(), dict(model.state_dict())) > 0
    model.load_state_dict(round.weights())
    assert torch.equal(model[0].weight, round.weights()["2.weight"].to(model[0].weight.dtype))


def test_so_have_the_statistics_of_a_layer_that_is_used_twice() -> None:
    norm = nn.BatchNorm1d(6)
    model = nn.Sequential(norm, nn.ReLU(), norm, nn.Linear(6, 3)).double()
    (round,) = coterie.federate(coterie.fbn(variant="paper", lr=0.1, local_steps=1), model, ragged(), rounds=1)
    model.load_state_dict(round.weights())
    assert torch.equal(round.weights()["0.running_mean"], round.weights()["2.running_mean"])
    assert (norm.running_mean != 0).all()


def test_a_task_holds_no_second_copy_of_trained_weights_and_does_not_depend_on_the_model_s() -> None:
    """Its modules share the memory of the model's trained parameters, and of no frozen one. Nobody reads what they
    share: after the model's own numbers change, the task gives what it gave."""
    model = nn.Sequential(nn.Linear(6, 4), nn.Linear(4, 3)).double()
    model[0].requires_grad_(False)
    copied = copy_module(model)
    shares = {
        name: p.data_ptr() == dict(model.named_parameters())[name].data_ptr() for name, p in copied.named_parameters()
    }
    assert shares == {"0.weight": False, "0.bias": False, "1.weight": True, "1.bias": True}
    assert [p.requires_grad for p in copied.parameters()] == [False, False, True, True]
    task, weights, x = make_task(model, loss=cross_entropy), initial_weights(model), torch.randn(5, 6).double()
    before = task.predict(weights["params"], weights["buffers"], x)
    with torch.no_grad():
        for p in model.parameters():
            p.fill_(torch.nan)
    assert torch.equal(task.predict(weights["params"], weights["buffers"], x), before)
    outputs, _ = task.apply(weights["params"], weights["buffers"], x, None, rng.key("test"))
    assert torch.equal(outputs, before)
