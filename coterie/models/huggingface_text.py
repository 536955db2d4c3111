"""How models of transformers read tokens x, int64 [B, T], in which the pad token fills up short texts at their ends.

The pad token alone says what is filling: one tensor holds an example, and the mask is made where the model is called. A
causal model needs no such mask: no token sees the filling after it, and the labels of the filling count for nothing.

Legend: B batch, T tokens, C classes, V tokens that there are.
"""

from __future__ import annotations

import inspect
from typing import Any, Literal

import torch
from torch import Tensor, nn

from coterie.core.errors import Mistake
from coterie.models.library_adapter import Call

Head = Literal["sequence_classification", "token_classification", "causal_lm"]
"""What a model of text predicts: a class of the text, a class of each token, or the next token."""

AUTO_CLASSES: dict[Head, str] = {
    "sequence_classification": "AutoModelForSequenceClassification",
    "token_classification": "AutoModelForTokenClassification",
    "causal_lm": "AutoModelForCausalLM",
}
"""The class of transformers that has such a head."""


def token_call(name: str) -> Call:
    """Return the forward of a model of text, which masks the pad token: [B, T] -> [B, C], or [B, T, C]."""

    def token_logits(forward: Any, self: nn.Module, x: Tensor) -> Tensor:
        """Return the logits of tokens x [B, T], whose pad tokens are masked; refuse other inputs."""
        _require_tokens(name, x)
        pad: int | None = self.config.pad_token_id  # type: ignore[union-attr, assignment]
        options = {} if pad is None else {"attention_mask": (x != pad).long()}
        logits: Tensor = forward(input_ids=x, **options).logits
        return logits

    return token_logits


def causal_call(name: str, end_id: int | None) -> Call:
    """Return the forward of a causal language model: [B, T] -> [B, T, V], the logits of each next token.

    Args:
        name: of the model, for messages.
        end_id: the token that begins each document, whose tokens then see their own document alone and count their
            positions from its start; None for tokens that see all before them.
    """

    def next_token_logits(forward: Any, self: nn.Module, x: Tensor) -> Tensor:
        """Return the logits of the token after each of x [B, T]; refuse other inputs."""
        _require_tokens(name, x)
        dtype: torch.dtype = self.dtype  # type: ignore[assignment]
        options = {"attention_mask": torch.ones_like(x)} if end_id is None else _apart(x, end_id, dtype)
        logits: Tensor = forward(input_ids=x, use_cache=False, **options).logits
        return logits

    return next_token_logits


def _apart(x: Tensor, end_id: int, dtype: torch.dtype) -> dict[str, Tensor]:
    """Return what a token may see, as numbers to add to the attention's scores [B, 1, T, T], and positions [B, T].

    Token j is seen by token i of the same document if j <= i; the scores of the others get the smallest number.
    """
    place = torch.arange(x.shape[-1], device=x.device)
    begins = x == end_id
    document = begins.cumsum(-1)
    start = torch.where(begins, place, 0).cummax(-1).values
    seen = (document[..., :, None] == document[..., None, :]) & (place[:, None] >= place)
    hidden = torch.finfo(dtype).min
    mask = torch.zeros(seen.shape, dtype=dtype, device=x.device).masked_fill(~seen, hidden)
    return {"attention_mask": mask[..., None, :, :], "position_ids": place - start}


@torch.no_grad()
def require_causal(model: nn.Module, name: str, end_id: int | None) -> None:
    """Refuse a model whose tokens see later ones, or see other documents where they must not.

    It is tried with its initial weights. Architectures whose attention takes no such mask are found so.

    Raises:
        Mistake: it is not causal, or cannot keep documents apart.
    """
    config: Any = model.config
    forward = inspect.signature(getattr(model, "original", type(model)).forward).parameters
    windowed = bool(getattr(config, "sliding_window", None)) and getattr(config, "use_sliding_window", True)
    apart = end_id is not None
    sentence = "it cannot keep documents apart; set `attend_across_documents` = true"
    if apart and (windowed or not {"position_ids", "attention_mask"} <= forward.keys()):
        raise Mistake(sentence, key="name", value=name)
    was_training = model.training
    model.eval()
    other = [token for token in range(8) if token not in (end_id, config.pad_token_id)][:4]
    a, b, c, d = other
    end = a if end_id is None else end_id
    x = torch.tensor([[end, a, b, end, c, d], [end, a, b, end, c, c], [end, c, c, end, c, d]])
    try:
        first, later, earlier = model(x)
    finally:
        model.train(was_training)
    if not torch.allclose(first[:-1], later[:-1], atol=1e-5):
        raise Mistake("its tokens see later ones, so it is not a decoder of text; name one", key="name", value=name)
    if apart and not torch.allclose(first[3:], earlier[3:], atol=1e-5):
        raise Mistake(sentence, key="name", value=name)


def _require_tokens(name: str, x: Tensor) -> None:
    if x.is_floating_point():
        raise Mistake(f"it takes tokens, whole numbers, but the examples are {x.dtype}", key="name", value=name)
