"""Adapters: the start is the model, only they and the head are trained, and what averaging them does."""

import copy

import pytest
import torch
from torch import nn

import coterie
from coterie import Examples, Mistake
from coterie.models import build
from coterie.models.functional import initial_weights
from coterie.models.lora import add_adapters, find_adapters, merge_adapters, merge_values
from tests.algorithms.normed import ENGINES
from tests.common.recipes import RECIPES
from tests.federations import dense, distance, ragged


def body() -> nn.Module:
    torch.manual_seed(1)
    return nn.Sequential(nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 3)).double()


def numbers(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters() if p.requires_grad)


@pytest.mark.parametrize("aggregate", ["factors", "exact"])
@pytest.mark.parametrize("name", ["cnn", "mlp", "resnet20", "2nn"])
def test_the_start_is_the_model_bit_for_bit(name: str, aggregate: str) -> None:
    model = build(name, [3, 28, 28], 10, rng_seed=0).eval()
    adapted = add_adapters(copy.deepcopy(model), rank=3, aggregate=aggregate)
    x = torch.rand(2, 3, 28, 28)
    assert torch.equal(adapted(x), model(x))
    merged = merge_values(adapted, adapted.state_dict())
    assert all(torch.equal(merged[name], value) for name, value in model.state_dict().items())
    assert merged.keys() == model.state_dict().keys()
    with_both = add_adapters(copy.deepcopy(model), rank=3)
    assert numbers(adapted) < numbers(with_both) or aggregate == "factors"


def test_the_random_factors_follow_from_the_seed_and_the_name() -> None:
    one, same, other = (add_adapters(body(), rng_seed=seed)[0].lora_A for seed in (1, 1, 2))
    assert torch.equal(one, same)
    assert not torch.equal(one, other)


def test_the_usual_layers_and_named_ones() -> None:
    cnn, resnet = build("cnn", [1, 28, 28], 10, rng_seed=0), build("resnet20", [3, 32, 32], 10, rng_seed=0)
    linear = [n for n, m in cnn.named_modules() if isinstance(m, nn.Linear)]
    assert list(find_adapters(add_adapters(cnn))) == linear[:-1]
    convolutions = [n for n, m in resnet.named_modules() if isinstance(m, nn.Conv2d)]
    assert list(find_adapters(add_adapters(copy.deepcopy(resnet)))) == convolutions
    some = list(find_adapters(add_adapters(resnet, targets=["stage1.*conv2"])))
    assert some
    assert all(name.startswith("stage1.") and name.endswith("conv2") for name in some)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"targets": ["nought"]}, 'no layer "nought"; there are 0, 2'),
        ({"targets": ["1"]}, "1 is a ReLU; adapters are for linear layers"),
        ({"targets": []}, "at least one layer"),
        ({"targets": "0"}, "a list"),
        ({"rank": 0}, "rank"),
        ({"alpha": -1.0}, "alpha"),
        ({"aggregate": "mean"}, '"factors" or "exact"'),
    ],
)
def test_a_mistake_is_one_sentence(options: dict, sentence: str) -> None:
    with pytest.raises(Mistake, match=sentence):
        add_adapters(body(), **options)


def test_what_cannot_have_an_adapter_says_so() -> None:
    with pytest.raises(Mistake, match="no layer of the model can have an adapter"):
        add_adapters(nn.Sequential(nn.Linear(3, 2)))
    with pytest.raises(Mistake, match="a model without adapters"):
        add_adapters(add_adapters(body()))
    tied = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 2))
    tied[1].weight = tied[0].weight
    with pytest.raises(Mistake, match="shares its weight"):
        add_adapters(tied, targets=["0"])
    with pytest.raises(Mistake, match="convolutions without groups"):
        add_adapters(nn.Sequential(nn.Conv2d(4, 4, 3, groups=2), nn.Linear(4, 2)), targets=["0"])


def test_a_layer_whose_weight_others_read_has_its_adapter_there_too() -> None:
    """nn.MultiheadAttention reads its output layer's weight, and a TransformerEncoderLayer in evaluation mode those of
    its linear layers, without calling them."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.TransformerEncoderLayer(8, 2, 16, batch_first=True, dropout=0.0), nn.Linear(8, 2))
    adapted = add_adapters(copy.deepcopy(model), rank=2, targets=["out_proj", "linear1", "linear2"])
    for layer in find_adapters(adapted).values():
        nn.init.normal_(layer.lora_B)
    x = torch.randn(3, 5, 8)
    with torch.no_grad():
        in_training, in_evaluation = adapted.train()(x), adapted.eval()(x)
        merged = merge_adapters(copy.deepcopy(adapted))(x)
    assert (in_training - model(x)).abs().max() > 0.1
    torch.testing.assert_close(in_training, in_evaluation)
    torch.testing.assert_close(in_evaluation, merged)


def test_a_layer_with_a_forward_of_its_own_keeps_it() -> None:
    class Doubled(nn.Linear):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return 2 * super().forward(x)

    model = add_adapters(nn.Sequential(Doubled(3, 3), nn.Linear(3, 2)), targets=["0"])
    nn.init.normal_(model[0].lora_B)
    x = torch.randn(2, 3)
    expected = 2 * (x @ model[0].weight.T + model[0].bias)
    torch.testing.assert_close(model[0](x), expected)
    assert not torch.equal(model[0].weight, model[0]._parameters["weight"])


def test_the_error_of_averaging_factors_on_a_closed_form() -> None:
    """Two clients, rank 1, W [1, 1]. A_1 = 1, B_1 = 2 and A_2 = 3, B_2 = 6, weights 1/2 each.

    mean(B_i A_i) = (2 + 18) / 2 = 10; mean(B) mean(A) = 4 * 2 = 8. They part by mean((B_i - 4) (A_i - 2)) =
    ((-2) (-1) + 2 * 1) / 2 = 2. With the same A = 2 at both, mean(B_i A) = (4 + 12) / 2 = 8 = mean(B) A.
    """
    model = add_adapters(nn.Sequential(nn.Linear(1, 1, bias=False), nn.Linear(1, 2)), rank=1, alpha=1.0, targets=["0"])
    base = torch.zeros(1, 1)

    def product(a: float, b: float) -> float:
        held = model.state_dict() | {"0.weight": base, "0.lora_A": base + a, "0.lora_B": base + b}
        return float(merge_values(model, held)["0.weight"])

    mean_of_products = (product(1, 2) + product(3, 6)) / 2
    assert (mean_of_products, product(2, 4)) == (10, 8)
    assert (product(2, 2) + product(2, 6)) / 2 == product(2, 4)


def one_round(aggregate: str, engine: str = "sequential") -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    """The weights after a round from factors that are not 0: of the federation, and the mean of the clients' own."""
    start = add_adapters(body(), rank=2, aggregate=aggregate, targets=["0"])
    torch.manual_seed(2)
    nn.init.normal_(start[0].lora_B)
    clients, recipe = dict(list(ragged().items())[:3]), coterie.fedavg(lr=0.3, local_epochs=3)

    def train(some: dict[str, Examples]) -> dict[str, torch.Tensor]:
        (last,) = coterie.federate(recipe, start, some, rounds=1, engine=ENGINES[engine](dtype=torch.float64))
        return merge_values(start, last.weights())

    alone = {client: train({client: examples}) for client, examples in clients.items()}
    total = sum(len(examples) for examples in clients.values())
    mean = {n: sum(alone[c][n] * len(e) / total for c, e in clients.items()) for n in next(iter(alone.values()))}
    return train(clients), mean


@pytest.mark.parametrize("engine", ENGINES)
def test_exact_averages_the_clients_weights_and_factors_do_not(engine: str) -> None:
    """The draws depend on the client, not on who else takes part, so a client alone trains as it does among others."""
    after, mean = one_round("exact", engine)
    assert distance(after, mean) < 1e-12
    after, mean = one_round("factors", engine)
    assert distance(after, mean) > 1e-4


AVERAGES = ("fedavg, Adam by a schedule", "fedprox", "scaffold", "scaffold, option I", "feddyn", "fedadam", "fedmuon")


@pytest.mark.parametrize("recipe", AVERAGES)
def test_algorithms_send_adapters_and_head_alone(recipe: str) -> None:
    """Both engines agree, and what travels shrinks with what is trained; nothing else travels here, as the model has no
    buffers."""
    start, last = add_adapters(body(), rank=1), {}
    for name, make in ENGINES.items():
        engine = make(dtype=torch.float64)
        *_, last[name] = coterie.federate(RECIPES[recipe], start, ragged(), rounds=2, engine=engine)
    one, other = last.values()
    assert distance(one.weights(), other.weights()) < 1e-9
    assert set(initial_weights(start)["params"]) == {"0.lora_A", "0.lora_B", "2.weight", "2.bias"}
    *_, whole = coterie.federate(RECIPES[recipe], body(), ragged(), rounds=2, engine=engine)
    assert one.bytes_up * numbers(body()) == whole.bytes_up * numbers(start)
    assert torch.equal(one.weights()["0.weight"], start.state_dict()["0.weight"])
    assert not torch.equal(one.weights()["0.lora_B"], start.state_dict()["0.lora_B"])


def test_a_codec_rounds_factors_too() -> None:
    up = coterie.Communication(codec="uint8")
    rounds = [
        list(coterie.federate(coterie.fedavg(lr=0.1), add_adapters(body()), ragged(), rounds=2, up=codec))[-1]
        for codec in (up, None)
    ]
    assert rounds[0].bytes_up < rounds[1].bytes_up


@pytest.mark.parametrize("recipe", ["fbn", "fixbn", "hbn", "fedbn"])
def test_algorithms_about_batchnorm_say_that_all_of_it_is_frozen(recipe: str) -> None:
    with pytest.raises(Mistake, match=r"frozen|no BatchNorm|no normalisation"):
        list(coterie.federate(RECIPES[recipe], add_adapters(dense()), ragged(), rounds=1))
