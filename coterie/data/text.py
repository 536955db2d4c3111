"""Text as tokens: its bytes in UTF-8, 0 to 255, and two marks.

Legend: n windows, N texts, T tokens.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from coterie.core.errors import Mistake
from coterie.core.examples import Examples
from coterie.data.arrays import IGNORED

START, END, VOCABULARY = 256, 257, 258
WINDOW = 80
_LONGEST = 512


def windows(lines: Sequence[str]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """What is read [n, 80] and what is to be predicted [n, 80], of lines that follow one another.

    The lines are one stream of tokens: START, their bytes with a line feed between two of them, END. Window k reads the
    tokens 80 k to 80 k + 79 and predicts each one's successor; the last one is filled up with END to read and with
    -100, which counts for nothing, to predict. So every byte is predicted exactly once.
    """
    text = np.frombuffer("\n".join(lines).encode(), dtype=np.uint8)
    stream = np.concatenate([[START], text, [END]]).astype(np.int64)
    filler = -(len(stream) - 1) % WINDOW
    x = np.concatenate([stream[:-1], np.full(filler, END)])
    y = np.concatenate([stream[1:], np.full(filler, IGNORED)])
    return x.reshape(-1, WINDOW), y.reshape(-1, WINDOW)


def next_characters(spoken: Mapping[str, Sequence[str]]) -> tuple[Examples, list[str]]:
    """The windows of each one's lines, x and y int64 [n, 80], and whose each window is [n]."""
    cut = {who: windows(lines) for who, lines in spoken.items()}
    x = torch.from_numpy(np.concatenate([x for x, _ in cut.values()]))
    y = torch.from_numpy(np.concatenate([y for _, y in cut.values()]))
    return Examples(x, y), [who for who, (x, _) in cut.items() for _ in x]


def whole(name: str, texts: Sequence[object]) -> Tensor:
    """Each text by itself, int64 [N, T]: its bytes, then END; T is the longest one's, and 512 at most.

    Args:
        name: the file and the column, for the message.
        texts: N strings.

    Raises:
        Mistake: one is no string, or there are none.
    """
    tokens = np.full((len(texts), _LONGEST), END, dtype=np.int64)
    longest = 1
    for row, text in enumerate(texts):
        content = strings(name, text, row).encode()[:_LONGEST]
        tokens[row, : len(content)] = np.frombuffer(content, dtype=np.uint8)
        longest = max(longest, len(content))
    return torch.from_numpy(np.ascontiguousarray(tokens[:, :longest]))


def strings(name: str, text: object, row: int) -> str:
    """A cell that must hold text.

    Raises:
        Mistake: it holds something else.
    """
    if not isinstance(text, str):
        raise Mistake(f"{name}: row {row + 1} holds {type(text).__name__} where there must be text")
    return text
