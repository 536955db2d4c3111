"""Federated self-supervised learning: against plain torch, and what travels, what stays and what is not looked at."""

import copy

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import coterie
from coterie import Examples, Mistake, Round
from coterie.algorithms.fedssl import VIEWS_POSITION
from coterie.algorithms.self_supervised import METHODS, PREDICTOR, PROJECTOR
from coterie.core import rng, tree
from coterie.engines.sequential import Sequential
from coterie.models.functional import initial_weights, make_task
from coterie.models.projection_heads import mlp_head, predictor, projector
from coterie.objectives import cross_entropy
from coterie.objectives.views import two_views
from coterie.track.summary import MAX_COLLAPSED_SPREAD
from tests.federations import dense, distance, ragged

LR = 0.1
DOUBLE = Sequential(dtype=torch.float64)
X = torch.rand(6, 3, 8, 8, generator=torch.Generator().manual_seed(3), dtype=torch.float64)


def small() -> nn.Module:
    torch.manual_seed(4)
    encoder = [nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()]
    return nn.Sequential(*encoder, nn.Linear(4, 2)).double()


def one_client(rounds: int = 1, **options: object) -> Round:
    """One client, one full batch a round."""
    recipe = coterie.fedssl(lr=LR, batch_size=6, projection=5, **options)  # type: ignore[arg-type]
    clients = {"a": Examples(X)}
    return list(coterie.federate(recipe, small(), clients, rounds=rounds, engine=DOUBLE, keep_updates=True))[-1]


def views_of(round: int) -> tuple[Tensor, Tensor]:
    """The views that the only step of a round compares: rows in the order of the batch, which is that of the data."""
    key = rng.fold(rng.key(0, round, "a", "private", "step"), torch.arange(1))[0]
    return two_views(X, rng.fold(key, VIEWS_POSITION))


def parts(loss: str, state: dict[str, Tensor], **heads: nn.Module) -> list[nn.Module]:
    """The encoder of `small`, and heads with the weights of a server's state."""
    encoder = nn.Sequential(*list(small().children())[:-1])
    found = [encoder]
    for prefix, head in heads.items():
        own = {n.removeprefix(f"ssl:{prefix}."): x for n, x in state.items() if n.startswith(f"ssl:{prefix}.")}
        head.double().load_state_dict(own)
        found.append(head)
    return found


def heads_at_the_start(loss: str, **options: int) -> dict[str, Tensor]:
    """Parameters and buffers of the server's state before the first round."""
    recipe = coterie.fedssl(lr=LR, batch_size=6, projection=5, loss=loss, **options)  # type: ignore[arg-type]
    plan = coterie.plan(recipe, small(), {"a": Examples(X)}, rounds=1, engine=DOUBLE)
    state = plan.algorithm.server.initial_state(plan.initial["model"], plan.federation())
    return {**state["params"], **state["buffers"]}


def after(modules: list[nn.Module]) -> dict[str, Tensor]:
    """The encoder's parameters after a step of SGD on the gradients that are there."""
    for parameter in (p for module in modules for p in module.parameters()):
        parameter.data.sub_(LR * parameter.grad)
    return dict(modules[0].state_dict())


def test_a_round_of_simsiam_is_a_step_of_plain_torch() -> None:
    """-1/2 (cos(p1, z2) + cos(p2, z1)); each view goes through the encoder by itself, and both move its statistics."""
    start = heads_at_the_start("simsiam", hidden=3)
    encoder, project, predict = parts("simsiam", start, projector=projector(4, 5), predictor=predictor(5, 3))
    z1, z2 = (project(encoder(x)) for x in views_of(1))
    p1, p2 = predict(z1), predict(z2)
    loss = -(F.cosine_similarity(p1, z2.detach()) + F.cosine_similarity(p2, z1.detach())).mean() / 2
    loss.backward()
    expected = after([encoder, project, predict])
    last = one_client(hidden=3)
    found = {name: x for name, x in last.weights().items() if not name.startswith("5.")}
    assert last.train_loss == pytest.approx(float(loss.detach()), rel=1e-9)
    floats = [name for name in found if not name.endswith("num_batches_tracked")]
    assert distance({n: found[n] for n in floats}, {n: expected[n] for n in floats}) < 1e-10


def test_two_rounds_of_moco_are_two_steps_of_plain_torch() -> None:
    """The encoder of keys begins each round as the server's, and follows before it is used: after one step of a round
    the keys come from (m + 1 - m) of the same weights. The queue of the second round holds the keys of the first.
    """
    start = heads_at_the_start("moco", queue=8)
    g = {"queue": None}
    encoder, head = parts("moco", start, projector=mlp_head(4, 5))
    recipe = coterie.fedssl(lr=LR, batch_size=6, projection=5, loss="moco", queue=8)
    plan = coterie.plan(recipe, small(), {"a": Examples(X)}, rounds=1, engine=DOUBLE)
    g["queue"] = plan.algorithm.client.initial_state(plan.initial["model"])["own"]["buffers"]["ssl:queue"].clone()
    place, losses = 0, []
    for round in (1, 2):
        x1, x2 = views_of(round)
        with torch.no_grad():
            k = F.normalize(copy.deepcopy(head)(copy.deepcopy(encoder)(x2)), dim=1)
        q = F.normalize(head(encoder(x1)), dim=1)
        logits = torch.cat([(q * k).sum(1, keepdim=True), q @ g["queue"].T], 1) / 0.2
        loss = F.cross_entropy(logits, torch.zeros(6, dtype=torch.int64))
        encoder.zero_grad()
        head.zero_grad()
        loss.backward()
        losses.append(float(loss.detach()))
        expected = after([encoder, head])
        for key in k:
            g["queue"][place] = key
            place = (place + 1) % 8
    last = one_client(2, loss="moco", queue=8)
    found = {name: x for name, x in last.weights().items() if not name.startswith("5.")}
    floats = [name for name in found if not name.endswith("num_batches_tracked")]
    assert last.train_loss == pytest.approx(losses[-1], rel=1e-9)
    assert distance({n: found[n] for n in floats}, {n: expected[n] for n in floats}) < 1e-10


@pytest.mark.parametrize("heads", ["server", "client"])
@pytest.mark.parametrize("loss", METHODS)
def test_what_travels(loss: str, heads: str) -> None:
    """Never the classifier, the queue or the encoder of keys; heads only where they are the server's."""
    last = one_client(loss=loss, heads=heads)
    assert last.updates is not None
    sent = {path[-1] for path, _ in tree.items(last.updates["a"])}
    down = {path[-1] for path, _ in tree.items(last.plan.algorithm.server.broadcast(last.state))}
    assert not any(name.startswith(("5.", "ssl:queue", "ssl:key:")) for name in sent | down)
    assert any(name.startswith("ssl:") for name in sent) == (heads == "server")
    kept = last.plan.client_state(last.store, "a")["algorithm"].get("own", {"params": {}})
    assert any(name.startswith(PROJECTOR) for name in kept["params"]) == (heads == "client")


def test_labels_are_not_looked_at_and_the_classifier_stays_as_it_was() -> None:
    clients = ragged()
    unlabelled = {client: Examples(examples.x, None, examples.rows) for client, examples in clients.items()}
    recipe = coterie.fedssl(lr=0.01, batch_size=8, projection=4, hidden=3, weight_decay=0.1)
    ends = [list(coterie.federate(recipe, dense(), who, rounds=2, num_classes=3))[-1] for who in (clients, unlabelled)]
    assert distance(ends[0].weights(), ends[1].weights()) == 0
    assert ends[0].weights().keys() == dense().state_dict().keys()
    assert torch.equal(ends[0].weights()["4.weight"], dense()[4].weight)
    assert not torch.equal(ends[0].weights()["0.weight"], dense()[0].weight)


def test_nothing_is_measured_that_a_classifier_would_be_needed_for() -> None:
    test = Examples(torch.randn(9, 6).double(), torch.arange(9) % 3)
    recipe = coterie.fedssl(lr=0.01, batch_size=8, projection=4, hidden=3)
    (round,) = coterie.federate(recipe, dense(), ragged(), rounds=1, test=test, evaluate_clients=True)
    assert round.test_accuracy is round.test_loss is None
    assert 0.3 < round.measures["spread"] <= 1


def test_a_constant_encoder_is_seen_to_have_collapsed() -> None:
    model = small()
    nn.init.zeros_(model[0].weight)
    recipe = coterie.fedssl(lr=1e-6, batch_size=6, projection=5)
    (round,) = coterie.federate(recipe, model, {"a": Examples(X)}, rounds=1, engine=DOUBLE)
    assert round.measures["spread"] < 1e-6 < MAX_COLLAPSED_SPREAD
    assert one_client().measures["spread"] > 0.5


def test_what_stands_behind_the_encoder_depends_on_the_rng_seed_even_if_the_encoder_does_not() -> None:
    """The classifier's initial weights do, and pre-trained weights do not replace them."""
    first, other = small(), small()
    nn.init.normal_(other[5].weight, generator=torch.Generator().manual_seed(9))
    recipe = coterie.fedssl(lr=LR, batch_size=6)
    plans = [coterie.plan(recipe, m, {"a": Examples(X)}, rounds=1, engine=DOUBLE) for m in (first, small(), other)]
    states = [p.algorithm.server.initial_state(p.initial["model"], p.federation())["params"] for p in plans]
    name = f"{PREDICTOR}0.weight"
    assert torch.equal(states[0][name], states[1][name])
    assert not torch.equal(states[0][name], states[2][name])
    assert torch.equal(states[0]["0.weight"], states[2]["0.weight"])


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"loss": "byol"}, 'loss = "byol": it must be "simsiam" or "moco"'),
        ({"heads": "nowhere"}, 'heads = "nowhere": it must be "server" or "client"'),
        ({"queue": 64}, 'queue = 64: the loss "simsiam" does not take it'),
        ({"loss": "moco", "hidden": 3}, 'hidden = 3: the loss "moco" does not take it'),
        ({"loss": "moco", "queue": 31}, "queue = 31: a batch must fit into it, and batch_size = 32"),
        ({"loss": "moco", "batch_size": "full"}, "queue = 1024: a batch must fit"),
    ],
)
def test_mistakes(options: dict[str, object], sentence: str) -> None:
    with pytest.raises(Mistake) as caught:
        coterie.fedssl(lr=0.1, **options)  # type: ignore[arg-type]
    assert sentence in str(caught.value)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"projection": 0}, "projection = 0: it must be 1 or more"),
        ({"hidden": 0}, "hidden = 0: it must be 1 or more"),
        ({"loss": "moco", "temperature": 0.0}, "temperature = 0.0: it must be a number above 0"),
        ({"loss": "moco", "key_momentum": 1.5}, "key_momentum = 1.5: it must be from 0 to 1"),
    ],
)
def test_values_out_of_range(options: dict[str, object], sentence: str) -> None:
    with pytest.raises(Mistake) as caught:
        coterie.fedssl(lr=0.1, **options)  # type: ignore[arg-type]
    assert sentence in str(caught.value)


@pytest.mark.parametrize("model", [nn.Linear(6, 3), nn.Sequential(nn.Flatten(), nn.Linear(6, 3)), nn.BatchNorm1d(6)])
def test_a_model_that_is_all_classifier_is_refused(model: nn.Module) -> None:
    with pytest.raises(Mistake, match="nothing to train before its last linear layer"):
        coterie.plan(coterie.fedssl(lr=0.1), model.double(), ragged(), rounds=1)


def test_the_encoder_is_the_model_without_its_classifier() -> None:
    model = small()
    task, weights = make_task(model, loss=cross_entropy), initial_weights(model)
    assert task.encoder is not None
    assert task.encoder.head == {"5.weight", "5.bias"}
    assert task.encoder.width == 4
    features, _ = task.encoder.forward()(weights["params"], weights["buffers"], X, None, rng.key(0))
    outputs, _ = task.apply(weights["params"], weights["buffers"], X, None, rng.key(0))
    assert torch.allclose(features @ model[5].weight.T + model[5].bias, outputs)


def test_a_model_that_ends_in_something_else_is_refused() -> None:
    class Sequences(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.last = nn.Linear(6, 4), nn.Linear(4, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.last(self.first(x)[:, None].expand(-1, 2, -1))

    with pytest.raises(Mistake, match="without its last linear layer its outputs have the shape"):
        list(coterie.federate(coterie.fedssl(lr=0.1), Sequences().double(), ragged(), rounds=1))
