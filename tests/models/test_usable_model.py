"""Models that cannot be trained are refused in one sentence, before anything is computed or allocated."""

import math
import os
import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from coterie import Mistake
from coterie.models import build
from coterie.models.limited_memory import LimitedMemory, TooLarge
from coterie.models.usable_model import require_usable_model


class Complex(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.wave = nn.Parameter(torch.randn(4, 2, dtype=torch.complex64))


def old_weight_norm() -> nn.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return nn.Sequential(torch.nn.utils.weight_norm(nn.Linear(4, 2)))


def script() -> nn.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        scripted: nn.Module = torch.jit.script(nn.Linear(4, 2))
    return scripted


def uncopyable() -> nn.Module:
    model = nn.Linear(4, 2)
    model.steps = (k for k in range(3))  # type: ignore[assignment]
    return model


UNUSABLE: dict[str, tuple[Callable[[], Any], str]] = {
    "sparse embeddings": (
        lambda: nn.Sequential(nn.Embedding(5, 4, sparse=True), nn.Flatten(), nn.Linear(4, 2)),
        "its layer 0 gives sparse gradients, which cannot be sent; leave out sparse=True",
    ),
    "embeddings of a largest norm": (
        lambda: nn.Sequential(nn.Embedding(5, 4, max_norm=1.0), nn.Flatten(), nn.Linear(4, 2)),
        "its layer 0 writes into its weights in every forward; leave out max_norm",
    ),
    "no parameters": (nn.Flatten, "nothing in it can be trained: it has no parameters"),
    "all frozen": (lambda: nn.Linear(4, 2).requires_grad_(False), "all its parameters are frozen"),
    "old weight_norm": (old_weight_norm, "its attribute 0.weight is computed from its weights and cannot be copied"),
    "scripted": (script, "it is compiled by torch.jit, which fixes its weights"),
    "complex": (Complex, "wave holds complex numbers, and their imaginary parts would be lost"),
    "not copied": (uncopyable, "it cannot be copied (cannot pickle 'generator' object)"),
    "a class": (lambda: nn.Linear, "Linear is a class; give a module made from it, Linear(...)"),
    "a number": (lambda: 3, "it is of type int; it must be a torch.nn.Module"),
    "lazy": (lambda: nn.LazyLinear(2), "learns its size from its first input"),
}


@pytest.mark.parametrize("case", UNUSABLE)
def test_a_model_that_cannot_be_trained_is_refused(case: str) -> None:
    make, sentence = UNUSABLE[case]
    with pytest.raises(Mistake) as caught:
        require_usable_model(make(), "model")
    assert sentence in str(caught.value)
    assert "\n" not in str(caught.value)


def raises() -> nn.Module:
    raise KeyError("width")


def needs(width: int) -> nn.Module:
    return nn.Linear(4, width)


FUNCTIONS: list[tuple[Any, str]] = [
    (math.sqrt, 'name = "sqrt": it takes x by its place, not by name; give a function that makes a model'),
    (dict, 'name = "dict": dict is not a function that makes a model'),
    (os.getcwd, 'name = "getcwd": it gave a str; it must return a torch.nn.Module'),
    (raises, 'name = "raises": it cannot be made: KeyError in line'),
    (needs, 'name = "needs": it cannot be made without width; give width'),
]


@pytest.mark.parametrize(("function", "sentence"), FUNCTIONS, ids=range(len(FUNCTIONS)))
def test_a_function_that_makes_no_model_is_refused(function: Any, sentence: str) -> None:
    with pytest.raises(Mistake) as caught:
        build(function, [4], 2, 0)
    assert str(caught.value).startswith(sentence)


@pytest.mark.parametrize("hidden", [[1_000_000_000], [3_000] * 100])
def test_a_model_too_large_for_the_memory_is_refused_from_its_sizes(
    hidden: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("coterie.models.limited_memory.memory_bytes", lambda: 2**30)
    with pytest.raises(Mistake, match=r"its weights would take .*, but this machine has 1 GiB; .*hidden = "):
        build("mlp", [784], 10, 0, hidden=hidden)


def test_a_model_of_one_s_own_is_refused_at_the_layer_that_is_too_large(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("coterie.models.limited_memory.memory_bytes", lambda: 2**30)
    with pytest.raises(Mistake, match=r"its weights would take 3,725 GiB or more and training 4 times as much"):
        build(lambda in_shape: nn.Linear(1_000_000, 1_000_000), [4], 2, 0)


def test_memory_that_was_freed_does_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("coterie.models.limited_memory.memory_bytes", lambda: 2**26)
    with LimitedMemory():
        for _ in range(4):
            torch.empty(2**21)  # 8 MiB, of 16 that may be held
    with pytest.raises(TooLarge, match=r"24 MiB or more .* this machine has 64 MiB"), LimitedMemory():
        [torch.empty(2**21) for _ in range(4)]
