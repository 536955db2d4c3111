"""The run folder: what a run writes, so that a stop at any moment loses nothing that was committed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from coterie.core.lazy import export_lazily

if TYPE_CHECKING:
    from coterie.track.run_folder import RunFolder
    from coterie.track.summary import rounds_to_target, summarise

__all__ = ["RunFolder", "rounds_to_target", "summarise"]

export_lazily(
    __name__,
    {
        "RunFolder": "coterie.track.run_folder:RunFolder",
        "rounds_to_target": "coterie.track.summary:rounds_to_target",
        "summarise": "coterie.track.summary:summarise",
    },
)
