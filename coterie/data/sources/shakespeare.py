"""The source shakespeare: predict the next character; each speaking role is a client.

Construction, in the order it runs:

1. A line is one line of text as the file breaks it: a verse, or a whole speech of prose.
2. A client is one role in one play, if it has at least two lines.
3. The last fifth of a role's lines, rounded up, is its test part; the lines before are its training part.
4. A part is written as one stream of tokens: 256, the bytes of its lines in UTF-8 with a line feed between two lines,
   and 257 at the end.
5. The stream is cut into windows. Window k reads the tokens 80 k to 80 k + 79 and predicts each one's successor; the
   last window is padded with 257 to read, and with -100, which counts for nothing, to predict.

So every byte is predicted exactly once, and the vocabulary is 256 bytes and two marks, the 258 of the paper's model.

Departures from the paper: there an example seems to be a line (its counts say about 42 characters an example), here it
is a window of 80 of joined lines; its text gave 1,146 roles, and other editions give other numbers.

Reference: McMahan et al. 2017, section 3.
"""

from __future__ import annotations

import gzip
import json
import re
import zlib
from pathlib import Path

from coterie.core.errors import Mistake, reason
from coterie.data.official_files import data_home, find_or_fetch
from coterie.data.source import Source
from coterie.data.text_tokens import NUM_TOKENS, next_character_examples

_URL = "https://raw.githubusercontent.com/karpathy/char-rnn/master/data/tinyshakespeare/input.txt"
_CHECKSUM = "sha256:86c4e6aa9db7c042ec79f339dcb96d42b0075e16b8fc2e86bf0ca57e2dc565ed"

_Roles = dict[str, list[str]]


def shakespeare() -> Source:
    """Load Shakespeare's plays as windows of 80 characters; each speaking role is a client.

    x is int64 [N, 80], y int64 [N, 80] with -100 where nothing counts, of 258 classes. They come from
    `$COTERIE_DATA/shakespeare/speeches.jsonl.gz` if it exists: one object with play, role and text for each speech, in
    order. Otherwise they come from `tinyshakespeare_input.txt` there, which is fetched if it is missing.

    Raises:
        Mistake: the file is missing and cannot be fetched, or it is damaged.
    """
    speeches = data_home() / "shakespeare" / "speeches.jsonl.gz"
    if speeches.exists():
        roles = read_speeches(speeches)
    else:
        roles = read_tiny_shakespeare(find_or_fetch("shakespeare", "tinyshakespeare_input.txt", _URL, _CHECKSUM))
    roles = {role: lines for role, lines in roles.items() if len(lines) >= 2}
    if not roles:
        raise Mistake(f"{speeches.parent}: no role has two lines; replace the file")
    train, groups = next_character_examples({role: lines[: -count_test_lines(lines)] for role, lines in roles.items()})
    test, test_groups = next_character_examples(
        {role: lines[-count_test_lines(lines) :] for role, lines in roles.items()}
    )
    return Source("shakespeare", train, test, NUM_TOKENS, groups=groups, test_groups=test_groups)


def count_test_lines(lines: list[str]) -> int:
    """Return how many of a role's lines are for testing: a fifth, rounded up.

    >>> [count_test_lines(["line"] * n) for n in (2, 5, 6)]
    [1, 1, 2]
    """
    return -(-len(lines) // 5)


def read_speeches(path: Path) -> _Roles:
    """Read the lines of each role, called "play:role", from one JSON object for each speech.

    Raises:
        Mistake: the file cannot be read, or an object lacks play, role or text.
    """
    roles: _Roles = {}
    try:
        with gzip.open(path, "rt", encoding="utf-8") as file:
            for number, line in enumerate(file, 1):
                speech = json.loads(line)
                if not isinstance(speech, dict) or not {"play", "role", "text"} <= speech.keys():
                    raise Mistake(f"{path}: line {number} is not an object with play, role and text; replace the file")
                _add_speech(roles, f"{speech['play']}:{speech['role']}", str(speech["text"]))
    except (OSError, EOFError, zlib.error, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise Mistake(f"{path}: cannot be read ({reason(error)}); replace it") from error
    return roles


def read_tiny_shakespeare(path: Path) -> _Roles:
    """Read the lines of each role from blocks of a name, a colon, and lines, with an empty line between two blocks.

    Raises:
        Mistake: the file cannot be read.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise Mistake(f"{path}: cannot be read ({reason(error)}); replace it") from error
    roles: _Roles = {}
    for block in re.split(r"\n\n+", text):
        role, colon, lines = block.partition(":\n")
        if colon and "\n" not in role:
            _add_speech(roles, role, lines)
    return roles


def _add_speech(roles: _Roles, role: str, text: str) -> None:
    roles.setdefault(role, []).extend(line for line in text.splitlines() if line.strip())
