"""The run folder: what a run writes, so that a stop at any moment loses nothing that was committed."""

from coterie.track.run_folder import RunFolder
from coterie.track.summary import rounds_to_target, summarise

__all__ = ["RunFolder", "rounds_to_target", "summarise"]
