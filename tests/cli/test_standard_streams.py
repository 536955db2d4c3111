"""Output that cannot be written as it is, or not at all."""

import errno
import io
import sys

import pytest

from coterie.cli.main import main
from coterie.cli.standard_streams import SteadyStream
from coterie.core.printable import printable


class Broken(io.StringIO):
    """A stream that cannot be written."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self.number = number

    def write(self, text: str) -> int:
        raise OSError(self.number, "broken")


def list_data_to(stream: io.TextIOBase | None, monkeypatch: pytest.MonkeyPatch) -> int:
    """List the data sets with this standard output, and return the exit status."""
    monkeypatch.setattr(sys, "stdout", stream)
    with pytest.raises(SystemExit) as ended:
        main(["data", "list"])
    assert isinstance(ended.value.code, int)
    return ended.value.code


@pytest.mark.parametrize("encoding", ["ascii", "cp1252", "latin-1", "utf-8", "utf-16"])
def test_text_that_the_encoding_does_not_have_is_written_as_escapes(encoding: str) -> None:
    kept = io.BytesIO()
    stream = SteadyStream(io.TextIOWrapper(kept, encoding=encoding))
    stream.write("naïve \u2014 \udcff 😀")
    stream.flush()
    written = kept.getvalue().decode(encoding)
    assert written.startswith("na")
    assert written.endswith("\\udcff 😀" if encoding.startswith("utf") else "\\U0001f600")


@pytest.mark.parametrize("stream", [None, Broken(errno.EPIPE), Broken(errno.EIO), Broken(errno.EBADF)])
def test_a_reader_who_has_gone_does_not_end_a_command(
    stream: io.TextIOBase | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert list_data_to(stream, monkeypatch) == 0


def test_output_onto_a_full_disk_is_said_by_the_status(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert list_data_to(Broken(errno.ENOSPC), monkeypatch) == 1
    assert capsys.readouterr().err == "standard output cannot be written (broken)\n"


def test_a_narrow_terminal_is_wide_enough(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("COLUMNS", "1")
    with pytest.raises(SystemExit) as ended:
        main(["data", "list"])
    assert ended.value.code == 0
    assert len(capsys.readouterr().out) > 100


def test_no_escape_is_given_to_a_terminal() -> None:
    assert printable("a\x1b[31m\r\n\u202eb") == "a\\x1b[31m\\r\\n\\u202eb"
    assert printable("Zürich 東京 😀") == "Zürich 東京 😀"
