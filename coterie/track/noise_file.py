"""noise.json: the secret from which the noise of a run's guarantee derives. Only the owner of the folder can read it.

Neither config.toml, which is published beside a model, nor the checksums hold it: whoever has it can take the noise
away again.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import NamedTuple

from coterie.core.errors import Mistake, reason
from coterie.track.file_writing import disk_mistakes

NOISE_FILE = "noise.json"
OWNER_ALONE = 0o600


class Noise(NamedTuple):
    """What the file holds.

    Attributes:
        secret: of the noise and of the cohorts.
        repeated: how many rounds were run again with other noise, which count a second time.
    """

    secret: str
    repeated: int


class NoiseFile:
    """The file of one run. Making this object reads and writes nothing."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def read(self) -> Noise | None:
        """Return what the file holds; None where there is no file.

        Raises:
            Mistake: it is damaged.
        """
        if not self.path.is_file():
            return None
        try:
            found = json.loads(self.path.read_bytes())
            noise = Noise(found["secret"], found["repeated"])
            if not (isinstance(noise.secret, str) and len(noise.secret) >= 32 and type(noise.repeated) is int):
                raise ValueError("its entries")
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise Mistake(
                f"{self.path}: cannot be read ({reason(error)}); put back a copy, or start another run"
            ) from error
        return noise

    def write(self, secret: str, repeated: int) -> None:
        """Write the file, readable by its owner alone.

        Raises:
            Mistake: it cannot be written.
        """
        beside = self.path.with_name(f".{self.path.name}.{os.getpid()}.tmp")
        with disk_mistakes(self.path):
            beside.unlink(missing_ok=True)
            with os.fdopen(os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, OWNER_ALONE), "w") as file:
                json.dump({"secret": secret, "repeated": repeated}, file)
                file.write("\n")
                file.flush()
                os.fsync(file.fileno())
            beside.replace(self.path)
