"""The time between submitting a job and its beginning, and which silo is to blame if it does not begin.

NVFlare begins a job when every silo's part of it runs, and ends it for all if one does not come so far. A part is
starting, has started, and then has stopped or is gone.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

LATE_SECONDS = 20.0
"""How long after the first silo's part of a job the others' may start."""

NOT_STARTED = "its part of a job did not start"


@dataclass
class JobStart:
    """How far the silos of a job have come.

    Args:
        sites: the silos that it was submitted for.
        clock: the time in seconds.
    """

    sites: frozenset[str]
    clock: Callable[[], float] = time.monotonic
    _seen: set[str] = field(default_factory=set)
    _started: set[str] = field(default_factory=set)
    _dropped: set[str] = field(default_factory=set)
    _first_at: float | None = None

    def fails(self, parts: Mapping[str, str | None]) -> bool:
        """Take a look at the silos' parts, and return whether the job will not begin.

        Args:
            parts: silo -> the state of its part; an empty text where it has none, None where it does not say.
        """
        mine = {site: state for site, state in parts.items() if site in self.sites}
        self._started |= {site for site, state in mine.items() if state in ("started", "stopped")}
        if self._started and self._first_at is None:
            self._first_at = self.clock()
        gone = {site for site in self._seen if mine.get(site) in ("", "stopped")}
        if gone and gone < self.sites and not self._dropped:
            self._dropped = gone
        self._seen |= {site for site, state in mine.items() if state}
        late = self._first_at is not None and self.clock() > self._first_at + LATE_SECONDS
        return bool(gone) or (late and self._started < self.sites)

    def find_culprits(self) -> frozenset[str]:
        """Return who kept the job from beginning: those that never started while others did; or who was gone first.

        It is nobody if all are alike.
        """
        never = self.sites - self._started
        return frozenset(never if never and never != self.sites else self._dropped)
