"""The FedAvg paper's language models."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn
from torch.func import functional_call, grad, vmap

from coterie.core.errors import Mistake
from coterie.models import build, char_lstm, word_lstm
from coterie.models.recurrent import PeepholeLSTM


def count(model) -> int:
    return sum(p.numel() for p in model.parameters())


def test_char_lstm_has_the_papers_count():
    """Embedding 258 * 8 = 2,064; layers 4 * 256 (8 + 256) + 1,024 + 768 and 4 * 256 (256 + 256) + 1,024 + 768; output
    256 * 258 + 258 = 66,306: together 866,578."""
    assert count(char_lstm([80], 258)) == 866_578


def test_word_lstm_has_the_papers_count():
    """10,000 * 192 + (4 * 256 (192 + 256) + 1,024 + 768) + 10,000 * 257 = 4,950,544."""
    assert count(word_lstm([10], 10_000)) == 4_950_544


def test_without_peepholes_a_layer_is_torchs():
    """Per layer three peepholes of 256 go and a second bias of 1,024 comes: 866,578 + 2 (1,024 - 768) = 867,090."""
    model = char_lstm([80], 258, peepholes=False)
    assert isinstance(model.recurrent, nn.LSTM)
    assert count(model) == 867_090


@pytest.mark.parametrize("peepholes", [True, False])
def test_outputs_are_classes_at_every_position_and_depend_on_the_past_alone(peepholes):
    model = build("char_lstm", [6], 5, 0, hidden=7, peepholes=peepholes)
    tokens = torch.tensor([[0, 1, 2, 3, 4, 0]])
    changed = torch.tensor([[0, 1, 2, 4, 4, 0]])
    before, after = model(tokens)[0], model(changed)[0]  # [T, C]
    assert before.shape == (6, 5)
    assert torch.equal(before[:3], after[:3])
    assert (before[3:] != after[3:]).any(1).all()


def test_without_peeping_the_cell_is_torchs_lstm():
    ours, torchs = PeepholeLSTM(3, 4), nn.LSTM(3, 4, batch_first=True)
    with torch.no_grad():
        ours.peephole.zero_()
        torchs.weight_ih_l0.copy_(ours.weight_ih)
        torchs.weight_hh_l0.copy_(ours.weight_hh)
        torchs.bias_ih_l0.copy_(ours.bias)
        torchs.bias_hh_l0.zero_()
    x = torch.randn(2, 5, 3)
    assert torch.allclose(ours(x), torchs(x)[0], atol=1e-6)


def test_peepholes_show_the_cell_to_the_gates():
    """One unit with W = U = 0, b = 0 except b_g = 1, peepholes p_i, p_f, p_o = 1, 2, 3, over two positions:
    c_1 = s(0) tanh(1), h_1 = s(3 c_1) tanh(c_1); c_2 = s(2 c_1) c_1 + s(c_1) tanh(1), h_2 = s(3 c_2) tanh(c_2)."""

    def s(z):
        return 1 / (1 + math.exp(-z))

    cell = PeepholeLSTM(1, 1)
    with torch.no_grad():
        cell.weight_ih.zero_()
        cell.weight_hh.zero_()
        cell.bias.copy_(torch.tensor([0.0, 0.0, 1.0, 0.0]))
        cell.peephole.copy_(torch.tensor([[1.0], [2.0], [3.0]]))
    c1 = s(0) * math.tanh(1)
    c2 = s(2 * c1) * c1 + s(c1) * math.tanh(1)
    expected = [s(3 * c1) * math.tanh(c1), s(3 * c2) * math.tanh(c2)]
    assert cell(torch.zeros(1, 2, 1)).flatten().tolist() == pytest.approx(expected, abs=1e-6)


def test_the_cell_can_be_batched_over_clients():
    """Under vmap over two clients' weights the gradients are those of each client alone."""
    model = build("char_lstm", [4], 5, 0, hidden=6)
    tokens = torch.randint(0, 5, (2, 3, 4), generator=torch.Generator().manual_seed(0))  # [client, B, T]
    one = {name: p.detach() for name, p in model.named_parameters()}
    both = {name: torch.stack([p, 2 * p]) for name, p in one.items()}

    def loss(params, x):
        return functional_call(model, params, (x,)).square().mean()

    together = vmap(grad(loss))(both, tokens)
    for k, factor in enumerate((1, 2)):
        alone = grad(loss)({name: factor * p for name, p in one.items()}, tokens[k])
        for name, value in alone.items():
            torch.testing.assert_close(together[name][k], value)
        assert alone["recurrent.0.peephole"].abs().max() > 0


def test_what_cannot_be_a_language_model_is_refused():
    with pytest.raises(
        Mistake, match=r'^name = "char_lstm": it takes sequences of tokens, of shape \[length\], but an example has'
    ):
        char_lstm([1, 28, 28], 10)
    with pytest.raises(Mistake, match=r"^hidden = 0: it must be 1 or more$"):
        word_lstm([10], 10, hidden=0)
    with pytest.raises(Mistake, match=r"takes tokens, whole numbers, but the examples are torch.float32"):
        char_lstm([4], 5)(torch.zeros(2, 4))
