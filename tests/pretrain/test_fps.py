"""FPS: its step against plain torch, its settings, and how it continues after a stop."""

import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from coterie import Mistake
from coterie.core import tree
from coterie.core.packing import pack, unpack
from coterie.engines.compiled import cpp_compiler
from coterie.models.projection_heads import predictor, projector
from coterie.models.registry import build
from coterie.pretrain.fps import FPS, Trainer
from coterie.pretrain.pair_batches import PairBatches

QUICK = {"batch_size": 8, "image_size": 8, "num_systems": 40, "points": 60, "cached_systems": 24, "projection": 6}


def small() -> nn.Module:
    torch.manual_seed(0)
    encoder = [nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()]
    return nn.Sequential(*encoder, nn.Linear(4, 2))


def trainer(steps: int = 6, **options: object) -> Trainer:
    return Trainer(FPS(steps=steps, **QUICK | options), small(), rng_seed=0)  # type: ignore[arg-type]


def test_steps_are_those_of_torch_s_sgd_on_simsiam() -> None:
    """Momentum 0.9, weight decay 1e-4; the learning rate falls along a cosine, except the predictor's."""
    ours = trainer(hidden=3)
    start = ours.state()["weights"]
    both = {**start["params"], **start["buffers"]}
    encoder = nn.Sequential(*list(small().children())[:-1])
    project, predict = projector(4, 6), predictor(6, 3)
    for name, module in (("projector", project), ("predictor", predict)):
        module.load_state_dict({n.split(".", 1)[1]: x for n, x in both.items() if n.startswith(f"ssl:{name}.")})
    base = 0.05 * 8 / 256
    groups = [{"params": [*encoder.parameters(), *project.parameters()]}, {"params": list(predict.parameters())}]
    optimizer = torch.optim.SGD(groups, lr=base, momentum=0.9, weight_decay=1e-4)
    batches = PairBatches(ours.settings.sizes, 0)
    for step in range(4):
        optimizer.param_groups[0]["lr"] = base * (1 + math.cos(math.pi * step / 6)) / 2
        x = batches.views(step)
        z1, z2 = (project(encoder(x[:, k])) for k in (0, 1))
        p1, p2 = predict(z1), predict(z2)
        loss = -(F.cosine_similarity(p1, z2.detach()) + F.cosine_similarity(p2, z1.detach())).mean() / 2
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        logs = ours.advance()
        assert float(logs["loss"] / logs["count"]) == pytest.approx(float(loss.detach()), abs=1e-5)
        assert logs["count"] == 8
    found = ours.encoder_weights()
    assert found.keys() == {name for name in small().state_dict() if not name.startswith("5.")}
    assert all(torch.allclose(found[n].float(), x.float(), atol=1e-5) for n, x in encoder.state_dict().items())


@pytest.mark.parametrize("options", [{}, {"loss": "moco", "queue": 20}], ids=["simsiam", "moco"])
def test_it_continues_bit_for_bit_from_a_saved_state(options: dict[str, object]) -> None:
    whole = trainer(**options)
    losses = [float(whole.advance()["loss"]) for _ in range(6)]
    stopped = trainer(**options)
    for _ in range(4):
        stopped.advance()
    resumed = trainer(**options)
    resumed.restore(4, unpack(pack(stopped.state())))
    assert [float(resumed.advance()["loss"]) for _ in range(2)] == losses[4:]
    assert pack(resumed.state()) == pack(whole.state())


@pytest.mark.skipif(cpp_compiler() is None, reason="compiling needs a C++ compiler")
@pytest.mark.long
def test_compiled_steps_are_the_same_to_rounding_and_continue_bit_for_bit() -> None:
    """A state is a copy, since the next step writes over the weights; the model's own weights stay as they were."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(192, 4), nn.BatchNorm1d(4), nn.ReLU(), nn.Linear(4, 2))
    before = tree.clone(dict(model.state_dict()))
    plain, whole = (
        Trainer(FPS(steps=6, hidden=3, lr=1.0, **QUICK), model, 0, compile=compile)  # type: ignore[arg-type]
        for compile in (False, True)
    )
    for _ in range(3):
        plain.advance(), whole.advance()
    kept = pack(whole.state())
    state = whole.state()
    log, expected = whole.advance(), plain.advance()
    assert {name: float(x) for name, x in log.items()} == pytest.approx(
        {name: float(x) for name, x in expected.items()}, abs=1e-4
    )
    for name, x in plain.encoder_weights().items():
        assert torch.allclose(whole.encoder_weights()[name], x, atol=1e-5), name
    assert pack(state) == kept
    after = pack(whole.state())
    whole.restore(3, unpack(kept))
    whole.advance()
    assert pack(whole.state()) == after
    assert all(torch.equal(x, before[name]) for name, x in model.state_dict().items())


def test_the_rng_seed_decides_everything() -> None:
    first, same = trainer(), trainer()
    other = Trainer(FPS(steps=6, **QUICK), small(), rng_seed=1)  # type: ignore[arg-type]
    for each in (first, same, other):
        each.advance()
    assert pack(first.state()) == pack(same.state())
    name = "0.weight"
    assert not torch.equal(first.encoder_weights()[name], other.encoder_weights()[name])


def test_it_learns_and_does_not_collapse() -> None:
    """Forty systems, again and again: the views of a pair become more alike than at the start."""
    ours = trainer(80, lr=2.0, batch_size=20, num_systems=40, cached_systems=40)
    logs = [{name: float(x) for name, x in ours.advance().items()} for _ in range(80)]
    losses = [log["loss"] / log["count"] for log in logs]
    assert sum(losses[-10:]) / 10 < losses[0] - 0.2
    assert min(log["spread"] / log["count"] for log in logs) > 0.2


def test_defaults_follow_the_image_size() -> None:
    """The two sets of numbers that the authors give."""
    small, large = FPS(steps=1).sizes, FPS(steps=1, image_size=224).sizes
    assert (small.points, small.render_size, small.max_objects, small.cached_renderings) == (1000, 32, 2, 32)
    assert (large.points, large.render_size, large.max_objects, large.cached_renderings) == (100_000, 112, 5, 4)
    assert FPS(steps=1).first_lr == 0.05
    assert FPS(steps=1, loss="moco", batch_size=128).first_lr == 0.015


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"steps": None}, "steps: it must be given unless minutes is"),
        ({"steps": 0}, "steps = 0: it must be 1 or more"),
        ({"minutes": 0.0}, "minutes = 0.0: it must be above 0"),
        ({"batch_size": 1}, "batch_size = 1: it must be 2 or more"),
        ({"lr": -1.0}, "lr = -1.0: it must be above 0"),
        ({"momentum": 1.0}, "momentum = 1.0: it must be from 0 to below 1"),
        ({"loss": "byol"}, 'loss = "byol": it must be "simsiam" or "moco"'),
        ({"queue": 512}, 'queue = 512: the loss "simsiam" does not take it'),
        ({"loss": "moco", "queue": 100}, "queue = 100: it must be batch_size or more"),
        ({"projection": 0}, "projection = 0: it must be 1 or more"),
        ({"loss": "moco", "temperature": 0.0}, "temperature = 0.0: it must be a number above 0"),
        ({"image_size": 4}, "image_size = 4: it must be 8 or more"),
        ({"max_objects": 1}, "max_objects = 1: it must be 2 or more"),
        ({"num_systems": 1}, "num_systems = 1: it must be 2 or more"),
        ({"cached_systems": 100}, "cached_systems = 100: it must be 512 or more"),
    ],
)
def test_settings_out_of_range_are_refused(options: dict[str, object], sentence: str) -> None:
    with pytest.raises(Mistake) as caught:
        FPS(**{"steps": 1} | options)  # type: ignore[arg-type]
    assert str(caught.value).startswith(sentence)


def test_a_model_without_a_part_to_train_is_refused() -> None:
    with pytest.raises(Mistake, match="nothing to train before its last linear layer"):
        Trainer(FPS(steps=1), build("logistic", [3, 32, 32], 10, 0), 0)


def test_states_are_trees_of_tensors() -> None:
    assert all(isinstance(leaf, torch.Tensor) for leaf in tree.leaves(trainer().state()))
