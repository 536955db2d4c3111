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
from coterie.data.numpy_arrays import IGNORED_LABEL

START_TOKEN, END_TOKEN, NUM_TOKENS = 256, 257, 258
WINDOW_TOKENS = 80
_MAX_TEXT_BYTES = 512


def cut_into_windows(lines: Sequence[str]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the windows of consecutive lines: the tokens to read [n, 80] and the tokens to predict [n, 80].

    The lines are one stream of tokens: the start, their bytes with a line feed between two of them, the end. Window k
    reads the tokens 80 k to 80 k + 79 and predicts the token after each. The last window is padded with the end to
    read, and with -100, which counts for nothing, to predict. So every byte is predicted exactly once.
    """
    text = np.frombuffer("\n".join(lines).encode(), dtype=np.uint8)
    stream = np.concatenate([[START_TOKEN], text, [END_TOKEN]]).astype(np.int64)
    padding = -(len(stream) - 1) % WINDOW_TOKENS
    x = np.concatenate([stream[:-1], np.full(padding, END_TOKEN)])
    y = np.concatenate([stream[1:], np.full(padding, IGNORED_LABEL)])
    return x.reshape(-1, WINDOW_TOKENS), y.reshape(-1, WINDOW_TOKENS)


def next_character_examples(lines_by_client: Mapping[str, Sequence[str]]) -> tuple[Examples, list[str]]:
    """Return the windows of each client's lines, x and y int64 [n, 80], and the client of each window [n]."""
    windows = {client: cut_into_windows(lines) for client, lines in lines_by_client.items()}
    x = torch.from_numpy(np.concatenate([x for x, _ in windows.values()]))
    y = torch.from_numpy(np.concatenate([y for _, y in windows.values()]))
    return Examples(x, y), [client for client, (x, _) in windows.items() for _ in x]


def tokens_of_texts(name: str, texts: Sequence[object]) -> Tensor:
    """Return each text as its bytes and then the end, int64 [N, T]; T is the longest text's length, at most 512.

    Args:
        name: the file and the column, for the message.
        texts: N strings.

    Raises:
        Mistake: one is not a string.
    """
    tokens = np.full((len(texts), _MAX_TEXT_BYTES), END_TOKEN, dtype=np.int64)
    longest = 1
    for row, text in enumerate(texts):
        content = require_text(name, text, row).encode()[:_MAX_TEXT_BYTES]
        tokens[row, : len(content)] = np.frombuffer(content, dtype=np.uint8)
        longest = max(longest, len(content))
    return torch.from_numpy(np.ascontiguousarray(tokens[:, :longest]))


def require_text(name: str, text: object, row: int) -> str:
    """Return `text` if it is a string; else refuse it, with `name` and `row` in the message.

    Raises:
        Mistake: it holds something else.
    """
    if text is None:
        raise Mistake(f"{name}: row {row + 1} holds no text; give it one, or leave the row out")
    if not isinstance(text, str):
        raise Mistake(f"{name}: row {row + 1} holds {type(text).__name__} where there must be text")
    return text
