"""`coterie watch`: a live page of a run or a sweep, for a browser on this machine or at the end of an ssh tunnel."""

from __future__ import annotations

import signal
import socket
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NoReturn

from coterie.core.errors import Mistake
from coterie.report.live_run import live_runs
from coterie.report.live_server import LOOPBACK, LiveServer, LiveSource
from coterie.report.live_state import is_watchable
from coterie.report.sweep_folder import is_sweep
from coterie.sweep.live_sweep import LiveSweep


def watch_folder(folder: Path, port: int) -> None:
    """Serve the live page of a folder until Ctrl-C or SIGTERM.

    Args:
        folder: of a run, a chain or a sweep.
        port: where to listen; 0 for a free port.

    Raises:
        Mistake: the folder holds none of these, or the port cannot be used.
    """
    if not is_watchable(folder):
        raise Mistake(f"{folder}: holds neither a run nor a sweep; start one there, and then watch it")
    with LiveServer(_sources_of(folder), port) as server:
        host = socket.gethostname()
        print(f"{folder}: {server.address}")
        print(f"from another machine: ssh -N -L {server.port}:{LOOPBACK}:{server.port} {host}")
        print("and open the same address there. Ctrl-C ends this page; the run does not notice", flush=True)
        before = signal.signal(signal.SIGTERM, _interrupt)
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            pass
        finally:
            signal.signal(signal.SIGTERM, before)


def _sources_of(folder: Path) -> Callable[[], Mapping[str, LiveSource]]:
    """Return a function that returns what there is to see in the folder."""
    return LiveSweep(folder).sources if is_sweep(folder) else lambda: live_runs(folder)


def _interrupt(number: int, frame: object) -> NoReturn:
    raise KeyboardInterrupt
