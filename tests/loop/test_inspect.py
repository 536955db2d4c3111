"""Posteriors that are no probabilities are refused at the server, whichever way they got there."""

import pytest
import torch
from torch import Tensor

import coterie
from coterie import Recipe, Round
from coterie.algorithms.posteriors import table_problem
from coterie.attacks import attack
from coterie.core.transforms import Transform, cast, chain, clip, eight_bits, identity
from coterie.core.tree import Tree
from coterie.loop.attack import Attack, Sight
from coterie.loop.check_update import part_problem
from tests.federations import dense, distance, ragged, seed_set


def uniform(rows: int = 4, classes: int = 3) -> Tensor:
    return torch.full((rows, classes), 1 / classes)


@pytest.mark.parametrize("classes", [1, 2, 10, 1000])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("codec", [identity(), cast(torch.float16), cast(torch.bfloat16), eight_bits()])
def test_honest_tables_pass_in_every_type_and_through_every_codec(
    classes: int, dtype: torch.dtype, codec: Transform
) -> None:
    outputs = torch.randn(50, 2, classes, generator=torch.Generator().manual_seed(classes)) * 5
    payload, _ = codec.encode({"posteriors": outputs.to(dtype).softmax(-1)}, {}, torch.tensor(0))
    table = codec.decode(payload)["posteriors"]
    assert codec.rounding is not None
    assert table_problem(table, codec.rounding) is None


@pytest.mark.parametrize(
    ("table", "words"),
    [
        (uniform() * 1e30, "outside 0 to 1"),
        (-uniform(), "outside 0 to 1"),
        (torch.tensor([[1.5, -0.5, 0.0]]), "outside 0 to 1"),
        (uniform() * 0, "do not sum to 1"),
        (uniform() * 1.001, "do not sum to 1"),
        (torch.tensor([[1.0, 1.0, 1.0]]), "do not sum to 1"),
    ],
)
def test_tables_of_no_probabilities_are_named(table: Tensor, words: str) -> None:
    assert words in str(table_problem(table, 0.0))


def test_a_codec_of_unknown_rounding_leaves_only_the_form_to_check() -> None:
    assert chain(cast(torch.float16), eight_bits()).rounding == pytest.approx(2**-10 + 1 / 500)
    assert chain(clip(1.0), identity()).rounding is None
    server = coterie.plan(coterie.fedh2l(lr=0.1), dense(), ragged(), rounds=1, seed_set=seed_set()).algorithm.server
    broken: Tree = {"posteriors": uniform() * 5}
    assert part_problem(server, broken, None) is None
    assert part_problem(server, broken, 0.0) == ("posteriors hold numbers outside 0 to 1, so they are no probabilities")


def run(recipe: Recipe, attack: Attack) -> list[Round]:
    clients, seed = ragged((7, 9, 5, 8)), seed_set()
    return list(
        coterie.federate(
            recipe, dense().float(), {c: e.__class__(e.x.float(), e.y, e.rows) for c, e in clients.items()}, rounds=2,
            rng_seed=1, seed_set=coterie.Examples(seed.x.float(), seed.y), attack=attack,
        )
    )  # fmt: skip


def huge(sight: Sight) -> Tensor:
    return torch.full_like(sight.own, 1e30)


@pytest.mark.parametrize(
    "recipe",
    [coterie.fedh2l(lr=0.1), coterie.fedh2l(lr=0.1, send_as="uint8"), coterie.fedmd(lr=0.1, match="posteriors")],
)
def test_an_attacker_that_sends_rows_of_1e30_in_a_simulation_is_refused(recipe: Recipe) -> None:
    for last in run(recipe, Attack(1, huge)):
        (evil,) = last.plan.attackers()
        assert last.reached == 3
        (entry,) = last.dropped
        assert entry["client"] == evil
        assert entry["why"].endswith("hold numbers outside 0 to 1, so they are no probabilities")


def test_attacks_on_weights_and_logits_are_forged_as_their_papers_say() -> None:
    """Of these nothing can be said beyond their form, so every forgery counts."""
    for recipe in (coterie.fedavg(lr=0.1), coterie.fedmd(lr=0.1)):
        rounds = run(recipe, attack("sign_flip", 1))
        assert [(r.reached, r.dropped) for r in rounds] == [(4, [])] * 2
    assert distance(rounds[-1].weights("0"), run(recipe, Attack(1, lambda sight: sight.own))[-1].weights("0")) > 0
