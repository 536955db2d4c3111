"""FBN: several clients equal one client; what is sent, saved, measured and refused."""

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import coterie
from coterie import Examples, Mistake
from coterie.engines.sequential import Sequential
from coterie.models.functional import initial_weights
from tests.algorithms.normed import (
    FULL,
    MODELS,
    PAPER,
    batch,
    dense,
    every_engine,
    every_model,
    images,
    one_label_each,
    run,
    together,
)
from tests.federations import distance, ragged


@every_model
@every_engine
@pytest.mark.parametrize("options", [{}, {"server_momentum": 0.9}, {"momentum": 0.9, "keep_momentum": True}])
@pytest.mark.parametrize("warm_start", [0, 1])
def test_many_clients_are_one_client_with_the_pooled_batch(
    model: str, engine: str, options: dict[str, Any], warm_start: int
) -> None:
    """Ten rounds of one step each: weights, M and V agree, with plain SGD and with momentum on either side."""
    make, shape = MODELS[model]
    clients, recipe = one_label_each(shape), coterie.fbn(**PAPER, **options, warm_start=warm_start)
    apart = run(recipe, make(), clients, engine=engine)
    pooled = run(recipe, make(), together(clients), engine=engine)
    assert distance(apart.weights(), pooled.weights()) < 1e-9
    assert distance(apart.weights(), dict(make().state_dict())) > 0.1  # they moved


@every_model
@every_engine
@pytest.mark.parametrize("sizes", [(6, 6, 6), (7, 23, 1)])
def test_with_the_pooled_gradient_too(model: str, engine: str, sizes: tuple[int, ...]) -> None:
    """Cut at a length that is felt; and what is shared for it changes the weights."""
    make, shape = MODELS[model]
    clients, options = ragged(sizes=sizes, shape=shape), {**FULL, "server_momentum": 0.9, "server_clip_norm": 0.1}
    recipe = coterie.fbn(variant="paper", **options, gradient="pooled")
    apart = run(recipe, make(), clients, engine=engine).weights()
    assert distance(apart, run(recipe, make(), together(clients), engine=engine).weights()) < 1e-9
    assert (
        distance(apart, run(coterie.fbn(variant="paper", **options), make(), clients, engine=engine).weights()) > 1e-3
    )


def test_the_pooled_gradient_sends_two_more_numbers_per_channel_each_way() -> None:
    clients, model = ragged(), dense()
    plain, pooled = (run(coterie.fbn(**PAPER, gradient=g), model, clients, rounds=1) for g in ("constant", "pooled"))
    for direction in ("bytes_up", "bytes_down"):
        assert getattr(pooled, direction) - getattr(plain, direction) == len(clients) * 8 * 2 * 14
    assert pooled.weights().keys() == model.state_dict().keys()


def test_the_server_cuts_what_it_applies() -> None:
    """To lr times the number of steps times the norm that is given: 0.05 * 2 * 0.01."""
    for options, steps in [({"batch_size": "full", "local_steps": 2}, 2), ({"batch_size": 9, "local_epochs": 1}, 1)]:
        recipe = coterie.fbn(variant="paper", lr=0.05, **options, server_clip_norm=0.01)
        last, before = (
            run(recipe, dense(), ragged(sizes=(9, 9)), rounds=1).weights(),
            initial_weights(dense())["params"],
        )
        moved = torch.cat([(last[name] - w).flatten() for name, w in before.items()])
        assert float(moved.norm()) == pytest.approx(0.05 * steps * 0.01)


@every_model
def test_clients_of_unequal_size_count_by_their_examples(model: str) -> None:
    make, shape = MODELS[model]
    clients, recipe = ragged(shape=shape), coterie.fbn(**PAPER)
    assert distance(run(recipe, make(), clients).weights(), run(recipe, make(), together(clients)).weights()) < 1e-9


def test_in_float32_the_identity_holds_to_its_digits() -> None:
    clients, recipe = one_label_each((6,)), coterie.fbn(**PAPER)
    rounds = [
        list(coterie.federate(recipe, dense().float(), c, rounds=10, engine=Sequential()))[-1]
        for c in (clients, together(clients))
    ]
    apart, pooled = (r.weights() for r in rounds)
    for name in apart:
        assert torch.allclose(apart[name], pooled[name], rtol=1e-5, atol=1e-6)


def test_averaged_batchnorm_is_another_model() -> None:
    """What FBN is for: the same comparison fails for FedAvg, whose clients normalise by batches of their own."""
    clients, recipe = one_label_each((6,)), coterie.fedavg(**FULL)
    assert distance(run(recipe, dense(), clients).weights(), run(recipe, dense(), together(clients)).weights()) > 0.1


@pytest.mark.parametrize("sizes", [(8, 8, 8), (7, 23, 1)])
def test_statistics_move_as_those_of_batchnorm_on_the_pooled_batch(sizes: tuple[int, ...]) -> None:
    """The first layer's input does not depend on (M, V), so PyTorch's own layer gives the statistics after a round."""
    model, clients = dense(), ragged(sizes=sizes)
    last = run(coterie.fbn(**PAPER), model, clients, rounds=1)
    layer = copy.deepcopy(model[1]).train()
    layer(model[0](together(clients)["all"].x))
    for name in ("running_mean", "running_var"):
        assert torch.allclose(last.weights()[f"1.{name}"], getattr(layer, name), rtol=0, atol=1e-12)


@pytest.mark.parametrize("options", [{"local_epochs": 2, "batch_size": 4}, {"local_steps": 8, "batch_size": 4}])
def test_several_steps_pool_all_that_passed(options: dict[str, Any]) -> None:
    """With a learning rate of 1e-12 the weights stay, so the first layer's values are those of each example, as often
    as it was seen: here twice, N = 48. Momentum for K = 8 steps is 1 - 0.9^8... of clients with 8, 8 and 8 examples in
    batches of 4 and two epochs K is 4; local_steps sets it to 8, which is four times each, N = 96."""
    model, clients = dense(), ragged(sizes=(8, 8, 8))
    k = options.get("local_steps", 4)
    last = run(coterie.fbn(variant="paper", lr=1e-12, **options), model, clients, rounds=1)
    h = model[0](together(clients)["all"].x).detach().repeat(k // 2, 1)
    share = 1 - 0.9**k
    assert torch.allclose(last.weights()["1.running_mean"], share * h.mean(0), rtol=0, atol=1e-9)
    assert torch.allclose(last.weights()["1.running_var"], 1 - share + share * h.var(0), rtol=0, atol=1e-9)


def test_statistics_are_frozen_within_a_round() -> None:
    """Three local steps are three steps in evaluation mode, by a plain loop."""
    (client,) = together(ragged(sizes=(9,))).values()
    last = run(coterie.fbn(variant="paper", lr=0.1, batch_size="full", local_steps=3), dense(), {"a": client}, rounds=1)
    model = dense().eval()
    descent = torch.optim.SGD(model.parameters(), lr=0.1)
    for _ in range(3):
        descent.zero_grad()
        F.cross_entropy(model(client.x), client.y).backward()
        descent.step()
    for name, value in model.named_parameters():
        assert torch.allclose(last.weights()[name], value, rtol=0, atol=1e-12)


def test_the_mean_of_the_clients_steps_sets_the_momentum() -> None:
    """Clients with 4 and 12 examples in batches of 4 take 1 and 3 steps: K = 16 / (2 * 4) = 2."""
    model, clients = dense(), ragged(sizes=(4, 12))
    last = run(coterie.fbn(variant="paper", lr=1e-12, batch_size=4), model, clients, rounds=1)
    h = model[0](together(clients)["all"].x).detach()
    assert torch.allclose(last.weights()["1.running_mean"], (1 - 0.9**2) * h.mean(0), rtol=0, atol=1e-9)


@every_model
def test_bytes_added_are_two_numbers_per_channel_each_way_and_a_count_per_layer_up(model: str) -> None:
    """Against parameters alone, which have no statistics: 2 C_BN floats down, 2 C_BN + L up, 8 bytes each."""
    make, shape = MODELS[model]
    made, clients = make(), ragged(shape=shape)
    last = run(coterie.fbn(**PAPER), made, clients, rounds=1)
    channels = [b.numel() for name, b in made.named_buffers() if name.endswith("running_mean")]
    params = sum(p.numel() for p in made.parameters())
    assert last.bytes_down == len(clients) * 8 * (params + 2 * sum(channels))
    assert last.bytes_up == len(clients) * 8 * (params + 2 * sum(channels) + len(channels))


@every_model
def test_the_result_loads_into_the_users_own_model(model: str) -> None:
    make, shape = MODELS[model]
    last = run(coterie.fbn(**PAPER), make(), ragged(shape=shape))
    own = make().eval()
    own.load_state_dict(last.weights())
    task = last.plan.tasks["model"]
    weights = last.plan.evaluated_weights(last.state, last.store, "0")
    x = batch(shape)
    assert torch.allclose(own(x), task.predict(weights["params"], weights["buffers"], x), rtol=0, atol=1e-12)


def test_a_warm_start_sets_the_statistics_and_nothing_else() -> None:
    """Layer 1 sees the pooled batch's values; nothing but statistics travels up; parameters stay."""
    model, clients = dense(), ragged()
    last = run(coterie.fbn(**PAPER, warm_start=1, momentum=0.5, keep_momentum=True), model, clients, rounds=1)
    h = model[0](together(clients)["all"].x).detach()
    assert torch.allclose(last.weights()["1.running_mean"], h.mean(0), rtol=0, atol=1e-12)
    assert torch.allclose(last.weights()["1.running_var"], h.var(0), rtol=0, atol=1e-12)
    assert all(torch.equal(last.weights()[name], p) for name, p in model.named_parameters())
    assert last.bytes_up == len(clients) * 8 * (2 * 14 + 2)
    assert last.train_loss is not None


def test_as_many_warm_rounds_as_layers_make_every_layer_right() -> None:
    """Then what each layer sees on the pooled data in evaluation mode has its own (M, V) for statistics."""
    clients = ragged()
    last = run(coterie.fbn(**PAPER, warm_start=2), dense(), clients, rounds=2)
    model = dense().eval()
    model.load_state_dict(last.weights())
    x = together(clients)["all"].x
    for layer in (1, 5):
        h = model[:layer](x).detach()
        assert torch.allclose(model[layer].running_mean, h.mean(0), rtol=0, atol=1e-12)
        assert torch.allclose(model[layer].running_var, h.var(0), rtol=0, atol=1e-12)


def test_shift_and_drift_by_hand() -> None:
    """One layer, one channel, M = 0 and V = 1. Client a has values 2 and 4, mean 3, variance 1: it lies 3 sd away.
    Client b has -1 and 1: its mean is 0, its variance 1, distance 0. By examples the mean shift is 1.5. The union has
    mean 1.5 and unbiased variance (0.25 + 6.25 + 6.25 + 0.25) / 3 = 13 / 3, so M = 0.15, V = 0.9 + 1.3 / 3 = 4 / 3,
    and the drift is sqrt(0.15^2 + (sqrt(4 / 3) - 1)^2)."""
    y = torch.zeros(2, dtype=torch.int64)
    clients = {
        "a": Examples(torch.tensor([[2.0], [4.0]], dtype=torch.float64), y),
        "b": Examples(torch.tensor([[-1.0], [1.0]], dtype=torch.float64), y),
    }
    model = nn.Sequential(nn.BatchNorm1d(1), nn.Linear(1, 2)).double()
    measures = run(coterie.fbn(**PAPER), model, clients, rounds=1).measures
    assert measures["shift.0"] == pytest.approx(1.5, abs=1e-4)  # 1e-5 is added to variances
    assert measures["drift.0"] == pytest.approx((0.15**2 + ((4 / 3) ** 0.5 - 1) ** 2) ** 0.5, abs=1e-4)


class Sometimes(nn.Module):
    """Its first layer sees the examples whose first number is above 0, and its last one none."""

    def __init__(self) -> None:
        super().__init__()
        self.some, self.none, self.head = nn.BatchNorm1d(6), nn.BatchNorm1d(6), nn.Linear(6, 3)
        for layer in (self.some, self.none):
            layer.running_mean.fill_(0.5)
            layer.running_var.fill_(2.0)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.some(x) if bool(x[0, 0] > 0) else x)  # type: ignore[no-any-return]


@pytest.mark.parametrize("recipe", [coterie.fbn(**PAPER), coterie.fbn(**FULL, warm_start=2), coterie.hbn(**FULL)])
def test_a_layer_that_a_forward_leaves_out_stays_as_it_is(recipe: coterie.Recipe) -> None:
    """Where no client's values pass it, to the bit. A client that leaves it out says (M, V): with the other's values in
    the mean, M lies between 0.5 and their mean, and V does not fall towards 0."""
    one = torch.ones(4, 6, dtype=torch.float64)
    clients = {name: Examples(sign * one, torch.zeros(4, dtype=torch.int64)) for name, sign in (("a", 1), ("b", -1))}
    model = Sometimes().double()
    last = run(recipe, model, clients, rounds=2).weights()
    for name in ("running_mean", "running_var", "num_batches_tracked"):
        assert torch.equal(last[f"none.{name}"], model.state_dict()[f"none.{name}"])
    assert ((last["some.running_mean"] > 0.5) & (last["some.running_mean"] < 1)).all()
    assert (last["some.running_var"] > 0.9).all()


def test_every_layer_is_in_the_record() -> None:
    record = run(coterie.fbn(**PAPER), images(), ragged(shape=(1, 8, 8)), rounds=1).record()
    layers = ["0.1", "0.3.main.1", "0.3.downsample.1"]
    assert [key for key in record if key.startswith("shift.")] == [f"shift.{layer}" for layer in layers]
    assert [key for key in record if key.startswith("drift.")] == [f"drift.{layer}" for layer in layers]


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"gradient": "exact"}, r'gradient = "exact": it must be "constant", "renorm" or "pooled"'),
    ({"server_clip_norm": 0.0}, r"server_clip_norm = 0\.0"),
    ({"statistics_momentum": 0.0}, r"statistics_momentum = 0\.0"),
    ({"warm_start": -1}, r"warm_start = -1"),
    ({"max_r": 2.0}, r'max_r = 2\.0: it must be 1 or more, with gradient "renorm"'),
    ({"gradient": "renorm", "max_r": 0.5}, r"max_r = 0\.5"),
    ({"gradient": "renorm", "max_d": -1.0}, r"max_d = -1\.0"),
    ({"sends": "moved"}, r'sends = "moved": it must be "batch", or, with local_steps, "moved"'),
    ({"robust": "parameters"}, r'robust = "parameters"'),
    ({"server_lr": 0.0}, r"server_lr = 0\.0"),
]


@pytest.mark.parametrize(("options", "sentence"), WRONG, ids=[s for _, s in WRONG])
def test_options_that_cannot_be_used(options: dict[str, Any], sentence: str) -> None:
    with pytest.raises(Mistake, match=sentence):
        coterie.fbn(variant="paper", lr=0.1, **options)


def test_models_that_cannot_be_used() -> None:
    class Own(nn.BatchNorm1d):
        def forward(self, x: Tensor) -> Tensor:
            return x

    layers: list[tuple[nn.Module, str]] = [
        (nn.ReLU(), "it has no BatchNorm layer"),
        (nn.BatchNorm1d(6).requires_grad_(False), "its BatchNorm layers are all frozen"),
        (nn.BatchNorm1d(6, track_running_stats=False), "the BatchNorm layer 0 cannot be given running statistics"),
        (Own(6), "the BatchNorm layer 0 cannot be given running statistics"),
    ]
    for layer, sentence in layers:
        with pytest.raises(Mistake, match=sentence):
            coterie.plan(
                coterie.fbn(variant="paper", lr=0.1), nn.Sequential(layer, nn.Linear(6, 3)), ragged(), rounds=1
            )
