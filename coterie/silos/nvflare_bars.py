"""Silos that spoil the jobs they are in, each left out of jobs for a while.

A job ends for all when one silo's part of it cannot start or dies. So a silo that spoils a job is left out of the next
ones: for `FIRST_SECONDS`, and for twice as long each time it does so again, until it has given an answer.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

FIRST_SECONDS, LONGEST_SECONDS = 20.0, 600.0


@dataclass
class Bars:
    """Who is left out of jobs, and why.

    Args:
        say: what is called with a sentence for people.
        clock: the time in seconds.
    """

    say: Callable[[str], None]
    clock: Callable[[], float] = time.monotonic
    _until: dict[str, float] = field(default_factory=dict)
    _seconds: dict[str, float] = field(default_factory=dict)
    _why: dict[str, str] = field(default_factory=dict)

    def put(self, site: str, why: str) -> None:
        """Leave a silo out for a while, because of something that it did."""
        seconds = min(2 * self._seconds.get(site, FIRST_SECONDS / 2), LONGEST_SECONDS)
        self._seconds[site], self._until[site], self._why[site] = seconds, self.clock() + seconds, why
        self.say(f"{site} is left out of jobs for {seconds:g} seconds: {why}; see log.txt in its folder")

    def reasons(self) -> dict[str, str]:
        """Return each silo that is left out now, and why."""
        now = self.clock()
        return {site: self._why[site] for site, until in self._until.items() if until > now}

    def release(self, sites: Iterable[str]) -> None:
        """Let silos in at once, since they went away: they may come back mended."""
        for site in sites:
            self._until.pop(site, None)

    def lift(self, site: str) -> None:
        """Forget what a silo did, since it gave an answer."""
        for kept in (self._until, self._seconds):
            kept.pop(site, None)
