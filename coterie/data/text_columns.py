"""Texts as tokens of a tokenizer: to be classified, or to be predicted token by token.

To classify, an example is one text, filled up with the pad token. To predict, each document begins with the end token,
which the last token of the document before it predicts. Packed, a client's documents are one stream that is cut into
blocks (as GPT's pre-training has it: Radford et al. 2018; Brown et al. 2020, section B); unpacked, an example is one
document. Either way a token to be predicted counts once, and filling counts for nothing: its label is -100.

    documents   a b c | d e        block length 4, E the end token, P the pad token
    packed      x  E a b c   E d e P          unpacked   x  E a b c   E d e P
                y  a b c E   d e E -                     y  a b c E   d e E -

Legend: N texts or documents, n examples, T tokens of an example.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from coterie.core.errors import Mistake
from coterie.data.numpy_arrays import IGNORED_LABEL
from coterie.data.tokenizer import Tokenizer

MAX_LENGTH = 128


@dataclass(frozen=True)
class TextColumn:
    """How the texts of a column become tokens.

    Attributes:
        column: its name.
        tokenizer: makes the tokens.
        max_length: the most tokens of an example, or the length of a block.
        next_token: whether each token is to be predicted, rather than a label of the text.
    """

    column: str
    tokenizer: Tokenizer
    max_length: int
    next_token: bool

    def inputs(self, texts: Sequence[str]) -> tuple[Tensor, int]:
        """Return the tokens of texts to classify, int64 [N, T], and how many texts were cut.

        T is the longest text's number of tokens. A text without any is one end token, so that no example is filling
        alone.

        Raises:
            Mistake: a text has no tokens and there is no end token, or `max_length` is too small.
        """
        tokens, cut = self.tokenizer.encode_whole(texts, self.max_length)
        for row, own in enumerate(tokens):
            if not own:
                if self.tokenizer.end is None:
                    raise Mistake(f"{self.column}: row {row + 1} holds no token; leave out texts that are empty")
                own.append(self.tokenizer.end)
        return _fill_up(tokens, self.tokenizer.pad, max(map(len, tokens), default=1)), cut

    def blocks(self, documents: Sequence[str]) -> tuple[Tensor, Tensor]:
        """Return the blocks of one stream of documents: x and the next tokens y, int64 [n, T], T = `max_length`."""
        end = require_end(self.tokenizer)
        stream = [token for own in self.tokenizer.encode(documents) for token in (end, *own)] + [end]
        rows = range(0, len(stream) - 1, self.max_length)
        x = [stream[k : min(k + self.max_length, len(stream) - 1)] for k in rows]
        y = [stream[k + 1 : k + 1 + self.max_length] for k in rows]
        return self._fill_pair(x, y, self.max_length)

    def documents(self, documents: Sequence[str]) -> tuple[Tensor, Tensor, int]:
        """Return one example for each document: x and the next tokens y, int64 [N, T], and how many were cut.

        T is the longest document's number of tokens with its end, at most `max_length`.
        """
        end, most = require_end(self.tokenizer), self.max_length
        streams = [[end, *own, end] for own in self.tokenizer.encode(documents)]
        x, y = [s[:-1][:most] for s in streams], [s[1:][:most] for s in streams]
        return *self._fill_pair(x, y, max(map(len, x), default=1)), sum(len(s) - 1 > most for s in streams)

    def _fill_pair(self, x: Sequence[list[int]], y: Sequence[list[int]], length: int) -> tuple[Tensor, Tensor]:
        return _fill_up(x, self.tokenizer.pad, length), _fill_up(y, IGNORED_LABEL, length)

    def to_record(self) -> dict[str, object]:
        """Return it as plain values, without the tokenizer's content."""
        own = self.tokenizer
        return {
            "column": self.column,
            "max_length": self.max_length,
            "next_token": self.next_token,
            "pad": own.pad,
            "end": own.end,
        }


def text_column_from_record(record: Mapping[str, object], content: str) -> TextColumn:
    """Return what `TextColumn.to_record` recorded, with the content of its tokenizer.

    Raises:
        KeyError, TypeError: the record is damaged.
    """
    pad, end, length = record["pad"], record["end"], record["max_length"]
    if not (isinstance(pad, int) and isinstance(length, int) and (end is None or isinstance(end, int))):
        raise TypeError("tokens are whole numbers")
    return TextColumn(str(record["column"]), Tokenizer(content, pad, end), length, bool(record["next_token"]))


def require_end(tokenizer: Tokenizer) -> int:
    """Return the token that ends a text.

    Raises:
        Mistake: there is none, so documents cannot be told apart.
    """
    if tokenizer.end is None:
        sentence = "it names no eos_token, which must end each document; name one in its tokenizer_config.json"
        raise Mistake(sentence, key="tokenizer")
    return tokenizer.end


def _fill_up(rows: Sequence[Sequence[int]], filler: int, length: int) -> Tensor:
    """Return rows of at most `length` numbers as int64 [N, length], filled up at their ends."""
    filled = torch.full((len(rows), length), filler, dtype=torch.int64)
    for row, own in zip(filled, rows, strict=True):
        row[: len(own)] = torch.tensor(list(own), dtype=torch.int64)
    return filled
