"""Shakespeare: predict the next character; each speaking role is a client.

Construction, in the order it runs:

1. A line is one line of text as the file breaks it: a verse, or a whole speech of prose.
2. A client is one role in one play, if it has at least two lines.
3. The last fifth of a role's lines, rounded up, is its test part; the lines before are its training part.
4. A part is written as one stream of tokens: 256, the bytes of its lines in UTF-8 with a line feed between two lines,
   and 257 at the end.
5. The stream is cut into windows. Window k reads the tokens 80 k to 80 k + 79 and predicts each one's successor; the
   last window is filled up with 257 to read and with -100, which counts for nothing, to predict.

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

from coterie.core.errors import Mistake
from coterie.data.files import data_home, official
from coterie.data.source import Source
from coterie.data.text import VOCABULARY, next_characters

URL = "https://raw.githubusercontent.com/karpathy/char-rnn/master/data/tinyshakespeare/input.txt"
CHECKSUM = "sha256:86c4e6aa9db7c042ec79f339dcb96d42b0075e16b8fc2e86bf0ca57e2dc565ed"

Roles = dict[str, list[str]]


def shakespeare() -> Source:
    """Windows of 80 characters: x int64 [N, 80], y int64 [N, 80] with -100 for what counts for nothing; 258 classes.

    Read from `$COTERIE_DATA/shakespeare/speeches.jsonl.gz` where it is there: one object with play, role and text for
    each speech, in order. Else from `tinyshakespeare_input.txt` there, which is fetched where it is absent.

    Raises:
        Mistake: no file is there and none can be fetched, or it is damaged.
    """
    speeches = data_home() / "shakespeare" / "speeches.jsonl.gz"
    if speeches.exists():
        roles = read_speeches(speeches)
    else:
        roles = read_tiny(official("shakespeare", "tinyshakespeare_input.txt", URL, CHECKSUM))
    spoken = {role: lines for role, lines in roles.items() if len(lines) >= 2}
    if not spoken:
        raise Mistake(f"{speeches.parent}: no role there has two lines; replace the file")
    train, groups = next_characters({role: lines[: -held_out(lines)] for role, lines in spoken.items()})
    test, test_groups = next_characters({role: lines[-held_out(lines) :] for role, lines in spoken.items()})
    return Source("shakespeare", train, test, VOCABULARY, groups=groups, test_groups=test_groups)


def held_out(lines: list[str]) -> int:
    """How many of a role's lines are for testing: a fifth, rounded up.

    >>> [held_out(["line"] * n) for n in (2, 5, 6)]
    [1, 1, 2]
    """
    return -(-len(lines) // 5)


def read_speeches(path: Path) -> Roles:
    """The lines of each role, called "play:role", from one JSON object for each speech.

    Raises:
        Mistake: the file cannot be read, or an object lacks play, role or text.
    """
    roles: Roles = {}
    try:
        with gzip.open(path, "rt", encoding="utf-8") as file:
            for number, line in enumerate(file, 1):
                speech = json.loads(line)
                if not isinstance(speech, dict) or not {"play", "role", "text"} <= speech.keys():
                    raise Mistake(f"{path}: line {number} is no object with play, role and text; replace the file")
                _say(roles, f"{speech['play']}:{speech['role']}", str(speech["text"]))
    except (OSError, EOFError, zlib.error, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise Mistake(f"{path}: cannot be read ({' '.join(str(error).split())}); replace it") from error
    return roles


def read_tiny(path: Path) -> Roles:
    """The lines of each role, by name alone, from blocks of a name, a colon, and lines, with an empty line between two.

    Raises:
        Mistake: the file cannot be read, or holds no such block.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise Mistake(f"{path}: cannot be read ({' '.join(str(error).split())}); replace it") from error
    roles: Roles = {}
    for block in re.split(r"\n\n+", text):
        role, colon, lines = block.partition(":\n")
        if colon and "\n" not in role:
            _say(roles, role, lines)
    return roles


def _say(roles: Roles, role: str, text: str) -> None:
    roles.setdefault(role, []).extend(line for line in text.splitlines() if line.strip())
