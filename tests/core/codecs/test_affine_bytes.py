"""Bytes with a step for each tensor: bounds, the mean over draws, and payloads that nobody honest sends."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from coterie import Mistake
from coterie.core import rng, tree
from coterie.core.codecs.affine_bytes import uint8

KEY = rng.key("bytes")
numbers = st.lists(st.floats(-1e6, 1e6, width=32), min_size=1, max_size=40)


@given(numbers, st.integers(0, 2**31))
@settings(max_examples=100, deadline=None)
def test_a_number_moves_by_a_step_at_most_and_half_a_step_to_the_nearest(xs: list[float], n: int) -> None:
    x = torch.tensor(xs, dtype=torch.float64)
    step = float(x.max() - x.min()) / 255
    rounding = 1e-9 * (1 + float(x.abs().max()))
    for codec, most in ((uint8(), step), (uint8("nearest"), step / 2)):
        payload, state = codec.encode({"w": x}, {}, rng.key(n))
        assert state == {}
        assert float((codec.decode(payload)["w"] - x).abs().max()) <= most + rounding


def test_codes_by_hand() -> None:
    """From -1 to 4.1 a step is 0.02, so -1, 0 and 4.1 are the codes 0, 50 and 255."""
    x = torch.tensor([-1.0, 0.0, 4.1], dtype=torch.float64)
    payload, _ = uint8("nearest").encode({"w": x}, {}, KEY)
    assert payload["codes"]["w"].tolist() == [0, 50, 255]
    assert payload["codes"]["w"].dtype == torch.uint8
    assert float(payload["step"]["w"]) == pytest.approx(0.02)
    assert tree.nbytes(payload) == 3 + 8 + 8


def test_stochastic_rounding_is_right_on_average() -> None:
    """The mean of n draws has a standard error of at most step / (2 sqrt(n)); 5 of them are allowed."""
    x = torch.linspace(-1, 1, 101, dtype=torch.float64) ** 3
    n, codec = 500, uint8()
    total = torch.zeros_like(x)
    for k in range(n):
        total += codec.decode(codec.encode({"w": x}, {}, rng.key("mean", k))[0])["w"]
    assert float((total / n - x).abs().max()) < 5 * (2 / 255) / (2 * n**0.5)


def test_the_draws_follow_from_the_key_and_differ_between_tensors() -> None:
    x = torch.rand(1000)
    first, again, other = (
        uint8().encode({"a": x, "b": x}, {}, key)[0]["codes"] for key in (KEY, KEY, rng.key("other"))
    )
    assert torch.equal(first["a"], again["a"])
    assert not torch.equal(first["a"], other["a"])
    assert not torch.equal(first["a"], first["b"])


@pytest.mark.parametrize("x", [torch.zeros(3), torch.full((2, 2), -7.5), torch.zeros(0), torch.tensor(3.25)])
def test_constant_and_empty_tensors_arrive_as_they_were(x: torch.Tensor) -> None:
    codec = uint8()
    after = codec.decode(codec.encode({"w": x}, {}, KEY)[0])["w"]
    assert torch.equal(after, x)
    assert after.dtype == x.dtype


def test_whole_numbers_travel_unchanged() -> None:
    update = {"n": torch.tensor([3, 2**40])}
    assert torch.equal(uint8().decode(uint8().encode(update, {}, KEY)[0])["n"], update["n"])


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_an_update_that_is_not_finite_has_a_payload_that_is_not(bad: float) -> None:
    payload, _ = uint8().encode({"w": torch.tensor([1.0, bad])}, {}, KEY)
    assert not tree.is_finite(payload)


def test_a_range_that_overflows_is_found() -> None:
    codec = uint8()
    honest, _ = codec.encode({"w": torch.rand(4)}, {}, KEY)
    assert codec.problem(honest) is None
    assert "below 0" in str(codec.problem({**honest, "step": {"w": torch.tensor(-1.0)}}))
    assert "not finite" in str(codec.problem({**honest, "step": {"w": torch.tensor(3e38)}}))


def test_another_rounding_is_refused() -> None:
    with pytest.raises(Mistake, match='"stochastic" or "nearest"'):
        uint8("up")  # type: ignore[arg-type]
