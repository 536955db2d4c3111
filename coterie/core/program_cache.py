"""Where compiled programs are kept between runs."""

from __future__ import annotations

import os
import sys
from collections.abc import MutableMapping
from pathlib import Path

VARIABLE = "TORCHINDUCTOR_CACHE_DIR"
"""Where TorchInductor writes programs, and looks for them."""


def keep_compiled_programs(environment: MutableMapping[str, str] = os.environ) -> None:
    """Keep compiled programs in the user's own cache folder, in this process and in those that it starts.

    By default they lie in the folder for temporary files, which a restart empties, and where other users of the machine
    may put programs first. The folder is $XDG_CACHE_HOME/coterie/programs, below ~/.cache unless that variable is set.
    Nothing is changed where the environment names a folder, where this one cannot be written to, and on Windows.
    """
    if VARIABLE in environment or sys.platform == "win32":
        return
    above = environment.get("XDG_CACHE_HOME") or Path(environment.get("HOME", "")) / ".cache"
    folder = Path(above) / "coterie" / "programs"
    if not folder.is_absolute():  # there is no home
        return
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError:
        return
    if os.access(folder, os.W_OK):
        environment[VARIABLE] = str(folder)
