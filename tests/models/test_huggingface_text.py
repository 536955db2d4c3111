"""Decoders and encoders of transformers: what they see of x, compared with the package's own masks."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.nn import functional as F

from coterie.core.errors import Mistake
from coterie.models import registry
from coterie.models.huggingface_models import huggingface_weights
from coterie.models.model_parts import head_names
from tests.texts import END, PAD, WORDS, decoder_config, encoder_config, write_checkpoint

transformers = pytest.importorskip("transformers")

PACKED = torch.tensor([[END, 3, 4, END, 5, 6], [END, 7, 8, 9, PAD, PAD]])


def built(folder: Any, **options: Any) -> Any:
    model = registry.build(f"huggingface:{folder}", [6], len(WORDS), rng_seed=0, pad_id=PAD, **options)
    model.load_state_dict(huggingface_weights(str(folder), "", model), strict=False)
    return model.eval()


@pytest.mark.parametrize("name", ["gpt2", "llama"])
def test_filling_is_as_good_as_masked(tmp_path, name):
    """With the package's own mask of real tokens, the outputs at real tokens are the same."""
    write_checkpoint(tmp_path, decoder_config(name))
    theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path).eval()
    real = PACKED != PAD
    wanted = theirs(input_ids=PACKED, attention_mask=real.long()).logits
    torch.testing.assert_close(built(tmp_path, head="causal_lm")(PACKED)[real], wanted[real])


@pytest.mark.parametrize("name", ["gpt2", "llama"])
def test_documents_apart_are_as_good_as_alone(tmp_path, name):
    """END a b END c d, with documents apart, has the outputs of END a b and of END c d."""
    write_checkpoint(tmp_path, decoder_config(name))
    apart = built(tmp_path, head="causal_lm", end_id=END, attend_across_documents=False)
    joined = built(tmp_path, head="causal_lm")
    alone = torch.cat([joined(PACKED[:1, :3]), joined(PACKED[:1, 3:])], 1)
    torch.testing.assert_close(apart(PACKED[:1]), alone)
    assert not torch.allclose(joined(PACKED[:1]), alone, atol=1e-3)


@pytest.mark.parametrize("apart", [False, True])
def test_many_clients_at_once_give_the_same(tmp_path, apart):
    """As the vectorised engine calls it: two clients with weights and tokens of their own."""
    write_checkpoint(tmp_path, decoder_config())
    model = built(tmp_path, head="causal_lm", end_id=END, attend_across_documents=not apart)
    weights = {name: torch.stack([p.detach(), p.detach() * 1.5]) for name, p in model.named_parameters()}
    x = torch.stack([PACKED, PACKED.flip(0)])

    def loss(weights: Any, x: Any) -> Any:
        outputs = torch.func.functional_call(model, weights, (x,))
        return F.cross_entropy(outputs[:, :-1].flatten(0, 1), x[:, 1:].flatten())

    gradients = torch.func.vmap(torch.func.grad(loss))(weights, x)
    for client in range(2):
        own = torch.func.grad(loss)({name: value[client] for name, value in weights.items()}, x[client])
        for name, value in own.items():
            torch.testing.assert_close(gradients[name][client], value)


def test_a_language_models_head_is_not_new(tmp_path):
    """It tells tokens apart, and these are not new. GPT-2's is its embedding."""
    write_checkpoint(tmp_path, decoder_config())
    assert head_names(built(tmp_path, head="causal_lm")) == frozenset()
    assert head_names(built(tmp_path)) == {"score.weight"}


def test_each_token_gets_a_class(tmp_path):
    write_checkpoint(tmp_path, encoder_config(), "AutoModelForTokenClassification")
    model = registry.build(f"huggingface:{tmp_path}", [6], 3, rng_seed=0, head="token_classification")
    outputs = model.eval()(PACKED)
    assert outputs.shape == (2, 6, 3)
    torch.testing.assert_close(outputs[1, :4], model(PACKED[1:, :4])[0])  # the pad token is masked


@pytest.mark.parametrize(
    ("config", "options", "says"),
    [
        (encoder_config, {"head": "causal_lm"}, "its tokens see later ones, so it is not a decoder of text"),
        (decoder_config, {"head": "causal_lm", "attend_across_documents": False}, 'it is for head = "causal_lm" with'),
        (decoder_config, {"end_id": END, "attend_across_documents": False}, 'it is for head = "causal_lm" with'),
        (lambda: decoder_config(vocab_size=9), {"head": "causal_lm"}, "it knows 9 tokens, but the data have 10"),
    ],
)
def test_what_a_model_cannot_do_is_refused(tmp_path, config, options, says):
    config().save_pretrained(tmp_path)
    with pytest.raises(Mistake, match=says):
        registry.build(f"huggingface:{tmp_path}", [6], len(WORDS), rng_seed=0, pad_id=PAD, **options)


def test_a_model_with_a_window_cannot_keep_documents_apart(tmp_path):
    """Its own mask has the window; one from outside would take its place."""
    own = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "num_key_value_heads": 2}
    transformers.MistralConfig(**own, intermediate_size=16, vocab_size=10, sliding_window=2).save_pretrained(tmp_path)
    options = {"head": "causal_lm", "end_id": END, "attend_across_documents": False}
    with pytest.raises(Mistake, match="it cannot keep documents apart; set attend_across_documents = true"):
        registry.build(f"huggingface:{tmp_path}", [6], len(WORDS), rng_seed=0, pad_id=PAD, **options)


def test_images_have_no_head_of_text(tmp_path):
    config = transformers.ViTConfig(hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=8)
    config.save_pretrained(tmp_path)
    with pytest.raises(Mistake, match='head = "causal_lm": it is for text, but the examples are images'):
        registry.build(f"huggingface:{tmp_path}", [3, 8, 8], 2, rng_seed=0, head="causal_lm")
