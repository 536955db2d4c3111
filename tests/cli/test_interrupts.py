"""What ends a long command, and what it then says."""

import signal

import pytest
import typer

from coterie.cli.interrupts import handle_interrupts
from coterie.experiment.stop_requests import stop_signals


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_terminal_that_goes_away_stops_a_run_as_sigterm_does(
    number: signal.Signals, capsys: pytest.CaptureFixture[str]
) -> None:
    before = {each: signal.getsignal(each) for each in (signal.SIGTERM, signal.SIGHUP)}
    with pytest.raises(typer.Exit) as ended, handle_interrupts("coterie run a.toml --resume", "round"):
        signal.raise_signal(number)
    assert ended.value.exit_code == 1
    assert capsys.readouterr().err == (
        "stopped; every complete round is kept; continue with\n  coterie run a.toml --resume\n"
    )
    assert {each: signal.getsignal(each) for each in before} == before


def test_below_nohup_a_terminal_may_go_away() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        assert stop_signals() == [signal.SIGTERM]
    finally:
        signal.signal(signal.SIGHUP, before)
