"""Standard output and error that take any text, and that may go away while a command works."""

from __future__ import annotations

import codecs
import errno
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO

_GONE = (errno.EPIPE, errno.EIO, errno.EBADF)
"""What a stream says whose reader has ended, whose terminal is closed, or that is closed itself."""
_PLAIN = {"±": "+/-", "…": "...", "×": "x", "–": "-", "—": "-", "→": "->", "≤": "<=", "≥": ">=", "•": "*"}
_PLAIN |= dict.fromkeys("━╸╺─", "-")
"""What stands for characters of the command's own where a terminal does not have them."""


def _write_plainly(error: UnicodeError) -> tuple[str | bytes, int]:
    """Return what is written for the first character that an encoding lacks: plain letters, or an escape."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    character = error.object[error.start]
    return _PLAIN.get(character) or character.encode("ascii", "backslashreplace").decode("ascii"), error.start + 1


codecs.register_error("coterie.plain", _write_plainly)


class SteadyStream:
    """A stream of text for a command whose work does not depend on who reads it.

    Characters that the stream's encoding does not have are written in plain letters or as escapes. Where the reader
    has gone, as that of a closed pipe or terminal, what is written is lost and the command goes on. Any other error is
    kept.

    Args:
        stream: the stream; None where it was closed before the command began.

    Attributes:
        error: why something could not be written, or None.
    """

    def __init__(self, stream: TextIO | None) -> None:
        self._stream: TextIO = stream or Path(os.devnull).open("w", encoding="utf-8")  # noqa: SIM115
        self._is_own = stream is None
        self.error: OSError | None = None

    def close_if_own(self) -> None:
        """Send on what was written, and close the stream that stands for one that was closed."""
        self.flush()
        if self._is_own:
            self._stream.close()

    def write(self, text: str) -> int:
        """Write text, and return its length."""
        encoding = self._stream.encoding or "utf-8"
        with self._keep_errors():
            self._stream.write(text.encode(encoding, "coterie.plain").decode(encoding))
        return len(text)

    def flush(self) -> None:
        """Send on what was written."""
        with self._keep_errors():
            self._stream.flush()

    @contextmanager
    def _keep_errors(self) -> Iterator[None]:
        """Let nothing be written any more once the stream cannot be written."""
        try:
            yield
        except OSError as error:
            self.error = self.error or (None if error.errno in _GONE else error)
            _silence(self._stream)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def _silence(stream: TextIO) -> None:
    """Let what a stream still holds, and whatever is written to it from now on, be lost."""
    try:
        there = stream.fileno()
    except (OSError, ValueError, AttributeError):
        return
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, there)
    os.close(nowhere)


@contextmanager
def steady_streams() -> Iterator[SteadyStream]:
    """Make both standard streams steady for the length of a block, and yield standard output."""
    before = sys.stdout, sys.stderr
    out, err = SteadyStream(sys.stdout), SteadyStream(sys.stderr)
    sys.stdout, sys.stderr = out, err
    try:
        yield out
    finally:
        out.close_if_own()
        err.close_if_own()
        sys.stdout, sys.stderr = before
