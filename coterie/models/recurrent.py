"""Build the FedAvg paper's language models, which give a distribution over the next token at every position.

The LSTM layers have one bias vector and diagonal peepholes, since only then are there as many parameters as in the
paper. With `peepholes = False` the layer is `torch.nn.LSTM`, which has no peepholes and two bias vectors, and is two to
three times as fast on a CPU.

Legend: B batch, T positions, V vocabulary, E embedding, H hidden units, D features into a layer, C classes.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from coterie.core.errors import Mistake, require
from coterie.core.kinds import Count
from coterie.models.shape_checks import sequence_length


class PeepholeLSTM(nn.Module):
    """One LSTM layer with diagonal peepholes (Gers, Schraudolph and Schmidhuber 2002) and one bias vector.

        i, f = sigmoid(W x_t + U h_{t-1} + b + p * c_{t-1})      g = tanh(W x_t + U h_{t-1} + b)
        c_t  = f * c_{t-1} + i * g
        o    = sigmoid(W x_t + U h_{t-1} + b + p * c_t)          h_t = o * tanh(c_t)

    Each gate has its own W, U, b and p, stacked in the order of `torch.nn.LSTM`: i, f, g, o. Initial values are uniform
    in +-1 / sqrt(H), as in `torch.nn.LSTM`.
    """

    def __init__(self, features: int, hidden: int):
        super().__init__()
        self.weight_ih = nn.Parameter(torch.empty(4 * hidden, features))
        self.weight_hh = nn.Parameter(torch.empty(4 * hidden, hidden))
        self.bias = nn.Parameter(torch.empty(4 * hidden))
        self.peephole = nn.Parameter(torch.empty(3, hidden))  # of i, f and o
        for parameter in self.parameters():
            nn.init.uniform_(parameter, -(hidden**-0.5), hidden**-0.5)

    def forward(self, x: Tensor) -> Tensor:
        """Return outputs h [B, T, H] of inputs x [B, T, D], from zero states."""
        inputs = nn.functional.linear(x, self.weight_ih, self.bias)  # [B, T, 4H], all positions in one product
        h = c = x.new_zeros(x.shape[0], self.weight_hh.shape[1])  # [B, H]
        outputs = []
        for at_t in inputs.unbind(1):
            h, c = self._advance(torch.addmm(at_t, h, self.weight_hh.t()), c)
            outputs.append(h)
        return torch.stack(outputs, 1)

    def _advance(self, gates: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
        """Advance one position: gates [B, 4H] before their nonlinearity and c [B, H] -> h, c [B, H]."""
        i, f, g, o = gates.chunk(4, 1)
        peep_i, peep_f, peep_o = self.peephole.unbind(0)
        i, f = torch.sigmoid(i + peep_i * c), torch.sigmoid(f + peep_f * c)
        c = f * c + i * torch.tanh(g)
        return torch.sigmoid(o + peep_o * c) * torch.tanh(c), c


class LanguageModel(nn.Module):
    """Embedding, LSTM layers, and one linear layer at every position."""

    class_axis = -1  # of the outputs: a text may be as long as the vocabulary is large

    def __init__(self, vocabulary: int, embedding: int, hidden: int, layers: int, peepholes: bool, num_classes: int):
        super().__init__()
        self.embedding = nn.Embedding(vocabulary, embedding)
        sizes = [embedding, *[hidden] * (layers - 1)]
        self.recurrent = (
            nn.Sequential(*(PeepholeLSTM(size, hidden) for size in sizes))
            if peepholes
            else nn.LSTM(embedding, hidden, layers, batch_first=True)
        )
        self.output = nn.Linear(hidden, num_classes)

    def forward(self, tokens: Tensor) -> Tensor:
        """Return logits [B, T, C] of the next token at each position of tokens [B, T] int64.

        Raises:
            Mistake: the examples are not tokens.
        """
        if tokens.is_floating_point():
            raise Mistake(f"a language model takes tokens, whole numbers, but the examples are {tokens.dtype}")
        h = self.recurrent(self.embedding(tokens))  # [B, T, H]
        return self.output(h[0] if isinstance(h, tuple) else h)  # type: ignore[no-any-return]


def char_lstm(
    in_shape: Sequence[int],
    num_classes: int,
    vocabulary: Count | None = None,
    embedding: Count = 8,
    hidden: Count = 256,
    layers: Count = 2,
    peepholes: bool = True,
) -> nn.Module:
    """Return the character model of McMahan et al. 2017, section 3, [B, T] -> [B, T, C].

    It has 866,578 parameters with a vocabulary of 258 (256 bytes and two special tokens).

    Args:
        vocabulary: the number of different tokens; `num_classes` unless given.
        embedding, hidden, layers: E, H, and the number of LSTM layers.
        peepholes: see this module's docstring.

    Raises:
        Mistake: an example is not a sequence, or a size is below 1.
    """
    return _language_model("char_lstm", in_shape, num_classes, vocabulary, embedding, hidden, layers, peepholes)


def word_lstm(
    in_shape: Sequence[int],
    num_classes: int,
    vocabulary: Count | None = None,
    embedding: Count = 192,
    hidden: Count = 256,
    layers: Count = 1,
    peepholes: bool = True,
) -> nn.Module:
    """Return the word model of McMahan et al. 2017, section 3, [B, T] -> [B, T, C].

    It has 4,950,544 parameters with a vocabulary of 10,000. The output layer takes the 256 hidden units unchanged,
    without the projection to 192 that the text suggests, since only then are there as many parameters as in the paper.

    Args:
        vocabulary, embedding, hidden, layers, peepholes: as in `char_lstm`.

    Raises:
        Mistake: an example is not a sequence, or a size is below 1.
    """
    return _language_model("word_lstm", in_shape, num_classes, vocabulary, embedding, hidden, layers, peepholes)


def _language_model(
    name: str,
    in_shape: Sequence[int],
    num_classes: int,
    vocabulary: int | None,
    embedding: int,
    hidden: int,
    layers: int,
    peepholes: bool,
) -> nn.Module:
    sequence_length(name, in_shape)
    vocabulary = num_classes if vocabulary is None else vocabulary
    sizes = {"vocabulary": vocabulary, "embedding": embedding, "hidden": hidden, "layers": layers}
    for key, size in sizes.items():
        require(key, size, size >= 1, "1 or more")
    return LanguageModel(vocabulary, embedding, hidden, layers, peepholes, num_classes)
