"""The vision transformer and the causal transformer, against PyTorch's own layers."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.func import grad

from coterie.core.errors import Mistake
from coterie.models import build, transformer, vit
from coterie.models.transformer_layer import EPSILON, TransformerLayer
from tests.models.batched_gradients import check_batched_gradients


def count(model) -> int:
    return sum(p.numel() for p in model.parameters())


def torchs(layer: TransformerLayer, width: int, heads: int) -> nn.TransformerEncoderLayer:
    """Return PyTorch's layer with the weights of ours."""
    theirs = nn.TransformerEncoderLayer(
        width, heads, 4 * width, 0.0, "gelu", layer_norm_eps=EPSILON, batch_first=True, norm_first=True
    )
    pairs = {
        "self_attn.in_proj_weight": layer.attn.qkv.weight,
        "self_attn.in_proj_bias": layer.attn.qkv.bias,
        "self_attn.out_proj": layer.attn.proj,
        "linear1": layer.mlp.fc1,
        "linear2": layer.mlp.fc2,
        "norm1": layer.norm1,
        "norm2": layer.norm2,
    }
    weights = {}
    for name, part in pairs.items():
        named = {"": part} if isinstance(part, nn.Parameter) else dict(part.named_parameters())
        weights |= {f"{name}.{last}" if last else name: p.detach() for last, p in named.items()}
    theirs.load_state_dict(weights)
    return theirs


@pytest.mark.parametrize("causal", [False, True])
def test_a_layer_is_torchs(causal):
    """Outputs and gradients are those of torch.nn.TransformerEncoderLayer, with drawn weights and biases."""
    g = torch.Generator().manual_seed(0)
    ours, x = TransformerLayer(8, 2, 0.0, causal), torch.randn(3, 5, 8, generator=g)
    for p in ours.parameters():
        nn.init.normal_(p, std=0.5, generator=g)
    theirs = torchs(ours, 8, 2)
    mask = nn.Transformer.generate_square_subsequent_mask(5) if causal else None
    wanted, found = theirs(x, src_mask=mask, is_causal=causal), ours(x)
    torch.testing.assert_close(found, wanted)
    found.square().sum().backward()
    wanted.square().sum().backward()
    torch.testing.assert_close(ours.attn.qkv.weight.grad, theirs.self_attn.in_proj_weight.grad, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(ours.mlp.fc2.weight.grad, theirs.linear2.weight.grad, rtol=1e-4, atol=1e-4)


def test_vit_is_patches_a_token_and_torchs_layers():
    model = vit([3, 8, 12], 5, patch=4, width=8, depth=2, heads=2).eval()
    x = torch.rand(2, 3, 8, 12, generator=torch.Generator().manual_seed(0))
    patches = [x[:, :, r : r + 4, c : c + 4].flatten(1) for r in (0, 4) for c in (0, 4, 8)]  # 6 of [B, 48]
    weight, bias = model.patch_embed.proj.weight.flatten(1), model.patch_embed.proj.bias
    tokens = torch.stack([patch @ weight.t() + bias for patch in patches], 1)  # [B, 6, 8]
    h = torch.cat([model.cls_token.expand(2, 1, 8), tokens], 1) + model.pos_embed
    for layer in model.blocks:
        h = torchs(layer, 8, 2).eval()(h)
    torch.testing.assert_close(model(x), model.head(model.norm(h[:, 0])))


def test_vit_has_the_count_of_its_parts():
    """Of width W = 192 and depth 6: patches 48 W + W, token and 65 positions 66 W, layers 6 (12 W^2 + 13 W), a norm of
    2 W, classes 10 W + 10: together 2,693,578. With the sizes of DeiT-Ti, its 5,717,416."""
    assert count(vit([3, 32, 32], 10)) == 2_693_578
    assert count(vit([3, 224, 224], 1000, patch=16, depth=12)) == 5_717_416


def test_transformer_has_the_count_of_its_parts():
    """Of width W = 128 and depth 4, with 258 characters and texts of 80: embedding 258 W, positions 80 W, layers
    4 (12 W^2 + 13 W), a norm of 2 W, classes 258 W + 258: together 869,890."""
    assert count(transformer([80], 258)) == 869_890


def test_outputs_are_classes_at_every_position_and_depend_on_the_past_alone():
    model = build("transformer", [6], 5, 0, width=8, depth=2, heads=2)
    tokens, changed = torch.tensor([[0, 1, 2, 3, 4, 0]]), torch.tensor([[0, 1, 2, 4, 4, 0]])
    before, after = model(tokens)[0], model(changed)[0]  # [T, C]
    assert before.shape == (6, 5)
    assert torch.equal(before[:3], after[:3])
    assert (before[3:] != after[3:]).any(1).all()


def test_a_shorter_text_gives_the_first_outputs():
    model = build("transformer", [6], 5, 0, width=8, depth=1, heads=2)
    tokens = torch.tensor([[0, 1, 2, 3, 4, 0]])
    torch.testing.assert_close(model(tokens[:, :4]), model(tokens)[:, :4])


def test_dropout_changes_training_alone():
    model = build("vit", [1, 4, 4], 3, 0, patch=2, width=8, depth=1, heads=2, dropout=0.5)
    x = torch.rand(2, 1, 4, 4)
    assert not torch.equal(model.train()(x), model(x))
    assert torch.equal(model.eval()(x), model(x))


@pytest.mark.parametrize("name", ["vit", "transformer"])
@pytest.mark.filterwarnings("error")
def test_gradients_can_be_batched_over_clients_and_taken_twice(name):
    own = {"patch": 2} if name == "vit" else {}
    shape = [2, 4, 4] if name == "vit" else [5]
    model = build(name, shape, 4, 0, width=8, depth=1, heads=2, **own)
    g = torch.Generator().manual_seed(0)
    x = torch.rand(2, 3, *shape, generator=g) if name == "vit" else torch.randint(4, (2, 3, *shape), generator=g)
    params, loss = check_batched_gradients(model, x, atol=1e-6)
    twice = grad(lambda p: sum(v.square().sum() for v in grad(loss)(p, x[0]).values()))(params)
    assert all(v.isfinite().all() for v in twice.values())


def test_what_they_cannot_take_is_refused():
    with pytest.raises(Mistake, match=r"^patch = 5: it must divide the height and the width of the images, 32 and 32$"):
        vit([3, 32, 32], 10, patch=5)
    with pytest.raises(Mistake, match=r"^heads = 5: it must be a number that divides the width, 192$"):
        vit([3, 32, 32], 10, heads=5)
    with pytest.raises(Mistake, match=r'name = "vit": it takes images'):
        vit([13], 10)
    with pytest.raises(Mistake, match=r'name = "transformer": it takes sequences of tokens'):
        transformer([1, 28, 28], 10)
    with pytest.raises(Mistake, match=r"takes tokens, whole numbers, but the examples are torch.float32"):
        transformer([4], 5)(torch.zeros(2, 4))
    with pytest.raises(Mistake, match=r"has 4 positions; cut the text of 5 up"):
        transformer([4], 5)(torch.zeros(2, 5, dtype=torch.int64))
