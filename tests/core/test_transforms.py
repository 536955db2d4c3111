"""Transforms of a message: order, inverse, keys and state, alone and in a federation."""

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import coterie
from coterie import Mistake, Round
from coterie.core import rng, tree
from coterie.core.transforms import Transform, cast, chain, clip, eight_bits, identity
from coterie.core.tree import Tree
from coterie.loop.checkpoint import Checkpoints
from tests.federations import dense, distance, ragged

KEY = rng.key("transform")


def times(factor: float) -> Transform:
    return Transform(lambda m, state, key: (tree.scale(m, factor), state), lambda wire: tree.scale(wire, 1 / factor))


def plus(amount: float) -> Transform:
    return Transform(
        lambda m, state, key: (tree.map(lambda x: x + amount, m), state),
        lambda wire: tree.map(lambda x: x - amount, wire),
    )


def whole_numbers_with_error_feedback() -> Transform:
    """Send the message rounded to whole hundredths, and what rounding lost with the next one (Seide et al. 2014)."""

    def encode(message: Tree, state: Tree, key: Tensor) -> tuple[Tree, Tree]:
        wanted = tree.add(message, state["lost"])
        sent = tree.map(lambda x: (x * 100).round() / 100, wanted)
        return sent, {"lost": tree.sub(wanted, sent)}

    return Transform(encode, init=lambda message: {"lost": tree.zeros_like(message)})


def one(value: float = 1.0) -> Tree:
    return {"a": torch.full((2,), value), "b": {"c": torch.tensor(value)}}


def sent(transform: Transform, message: Tree, state: Tree | None = None) -> tuple[Tree, Tree]:
    return transform.encode(message, transform.init(message) if state is None else state, KEY)


def test_a_chain_applies_left_to_right_and_undoes_right_to_left() -> None:
    """(3 * 2) + 5 = 11 on the wire; (11 - 5) / 2 = 3 after it."""
    both = chain(times(2.0), plus(5.0))
    wire, state = sent(both, one(3.0))
    assert wire["b"]["c"] == 11
    assert state == {}
    assert both.decode(wire)["b"]["c"] == 3


def test_the_empty_chain_and_identity_change_nothing() -> None:
    message = one(3.0)
    for transform in (identity(), chain(), chain(identity(), identity())):
        wire, state = sent(transform, message)
        assert wire is message
        assert state == {}
        assert transform.decode(wire) is message


def test_every_link_has_a_key_of_its_own_however_chains_are_nested() -> None:
    keys: list[int] = []

    def listen(message: Tree, state: Tree, key: Tensor) -> tuple[Tree, Tree]:
        keys.append(int(key))
        return message, state

    link = Transform(listen)
    sent(chain(chain(link, link), chain(chain(link), link), link), one())
    assert len(keys) == len(set(keys)) == 5


def test_state_is_kept_link_by_link() -> None:
    """0.004 rounds to 0.00 and 0.004 is owed; then 0.008 rounds to 0.01 and -0.002 is owed."""
    feedback = chain(times(1.0), whole_numbers_with_error_feedback())
    wire, state = sent(feedback, one(0.004))
    assert wire["b"]["c"] == 0
    assert list(state) == ["0", "1"]
    wire, state = feedback.encode(one(0.004), state, KEY)
    assert float(wire["b"]["c"]) == pytest.approx(0.01)
    assert float(state["1"]["lost"]["b"]["c"]) == pytest.approx(-0.002)


def test_a_link_s_state_fits_what_the_links_before_it_send() -> None:
    """The second link sees numbers of 16 bits, and what it owes has 16 bits too."""
    _, state = sent(chain(cast(torch.float16), whole_numbers_with_error_feedback()), one())
    assert state["1"]["lost"]["a"].dtype == torch.float16


def test_clip_bounds_the_norm_over_all_leaves() -> None:
    """The norm of (3, 3), 3 is sqrt(27) = 5.196: above 1 it becomes 1, in the same direction; below 6 it stays."""
    wire, _ = sent(clip(1.0), one(3.0))
    assert float(tree.norm(wire)) == pytest.approx(1.0)
    assert torch.allclose(wire["a"], torch.full((2,), 3 / 27**0.5))
    wire, _ = sent(clip(6.0), one(3.0))
    assert torch.equal(wire["a"], torch.full((2,), 3.0))


def test_clip_leaves_zeros_and_empty_messages_alone() -> None:
    assert torch.equal(sent(clip(1.0), one(0.0))[0]["a"], torch.zeros(2))
    assert sent(clip(1.0), {})[0] == {}


@pytest.mark.parametrize("limit", [0.0, -1.0, float("nan"), float("inf")])
def test_clip_needs_a_number_above_zero(limit: float) -> None:
    with pytest.raises(Mistake, match=f"limit = {limit}: it must be a number above 0"):
        clip(limit)


def test_cast_halves_the_bytes_and_comes_back() -> None:
    message = {"a": torch.tensor([1.0, 1e6, -1e6, 1e-3]), "count": torch.tensor(7)}
    transform = cast(torch.float16)
    wire, _ = sent(transform, message)
    assert tree.nbytes(wire) == 4 * 2 + 8
    back = transform.decode(wire)
    assert back["a"].dtype == torch.float32
    assert back["a"].tolist() == pytest.approx([1.0, 65504, -65504, 1e-3], rel=1e-3)
    assert back["count"].dtype == torch.int64


def test_cast_does_not_hide_that_an_update_diverged() -> None:
    wire, _ = sent(cast(torch.float16), {"a": torch.tensor([float("inf"), float("-inf"), float("nan")])})
    assert not wire["a"].isfinite().any()


def rounds(up: Transform | None, count: int, **options: object) -> list[Round]:
    plan = {"rng_seed": 1, "cohort": 4, "up": up, "rounds": count} | options
    return list(coterie.federate(coterie.scaffold(lr=0.1, batch_size=5), dense().float(), ragged(), **plan))


def test_cast_halves_bytes_up_in_a_federation_and_hardly_moves_its_weights() -> None:
    """All that SCAFFOLD sends is floats; float16 keeps 11 bits of them."""
    plain, narrow = rounds(None, 2), rounds(cast(torch.float16), 2)
    assert [r.bytes_up for r in narrow] == [r.bytes_up // 2 for r in plain]
    assert [r.bytes_down for r in narrow] == [r.bytes_down for r in plain]
    assert 0 < distance(plain[-1].weights(), narrow[-1].weights()) < 1e-2


def test_a_transform_without_a_trace_changes_no_weight() -> None:
    assert distance(rounds(None, 2)[-1].weights(), rounds(chain(plus(0.0), times(1.0)), 2)[-1].weights()) == 0


def test_clipped_updates_move_the_model_by_the_limit_at_most() -> None:
    """The mean of vectors that are not longer than 0.01 is not longer either."""
    model = nn.Linear(6, 3)
    recipe = coterie.fedavg(lr=1.0, batch_size=5)
    last = next(coterie.federate(recipe, model, ragged(), rounds=1, up=clip(0.01), keep_updates=True))
    assert last.updates is not None
    assert all(float(tree.norm(update)) == pytest.approx(0.01, rel=1e-4) for update in last.updates.values())
    moved = tree.sub(dict(last.weights()), {name: w.detach() for name, w in model.state_dict().items()})
    assert 0 < tree.norm(moved) <= 0.01 * (1 + 1e-5)


def test_clients_without_anything_to_send_can_be_clipped() -> None:
    last = list(coterie.federate(coterie.independent(lr=0.1), dense(), ragged(), rounds=2, up=clip(1.0)))[-1]
    assert last.reached == len(ragged())


@pytest.mark.parametrize(
    "up", [whole_numbers_with_error_feedback(), chain(clip(1.0), whole_numbers_with_error_feedback())]
)
def test_what_rounding_lost_survives_a_resume(up: Transform, tmp_path: Path) -> None:
    """The same weights bit for bit, which they are not when the senders forget what they owe."""
    whole, first = rounds(up, 4), rounds(up, 2)
    Checkpoints(tmp_path).save(first[-1])
    rest = rounds(up, 4, resume=Checkpoints(tmp_path).load())
    assert distance(whole[-1].weights(), rest[-1].weights()) == 0
    owed = [kept["up"] for kept in map(whole[-1].store.get, whole[-1].plan.ids) if kept is not None]
    assert any(float(tree.norm(each)) > 1e-6 for each in owed)


def test_error_feedback_sends_in_the_long_run_what_was_meant() -> None:
    """After any number of rounds the sum of what was sent differs from the sum of what was meant by what is owed."""
    feedback, state, total = whole_numbers_with_error_feedback(), None, torch.zeros(2)
    for k in range(50):
        wire, state = sent(feedback, one(0.0031 * (k % 7)), state)
        total += wire["a"]
    meant = sum(0.0031 * (k % 7) for k in range(50))
    assert torch.allclose(total + state["lost"]["a"], torch.full((2,), meant), atol=1e-5)
    assert float(state["lost"]["a"].abs().max()) <= 0.005 + 1e-6


def test_eight_bits_are_a_byte_for_a_number_and_off_by_half_a_step() -> None:
    posteriors = {"p": torch.linspace(0, 1, 1001), "rounded": torch.tensor([-1e-7, 1 + 1e-7])}
    wire, _ = eight_bits().encode(posteriors, {}, KEY)
    back = eight_bits().decode(wire)
    assert tree.nbytes(wire) == 1003
    assert (back["p"] - posteriors["p"]).abs().max() <= 1 / 510 + 1e-7
    assert back["rounded"].tolist() == [0, 1]


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 1.5, -0.5])
def test_eight_bits_do_not_make_sense_of_what_is_no_probability(value: float) -> None:
    wire, _ = eight_bits().encode({"p": torch.tensor([0.5, value])}, {}, KEY)
    assert wire["p"].dtype == torch.float32
