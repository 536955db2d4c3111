"""Who is left out of jobs, and who is to blame for one that does not begin; no process is started here."""

from coterie.silos.nvflare_bars import Bars
from coterie.silos.nvflare_start import LATE_SECONDS, JobStart


class Clock:
    seconds = 0.0

    def __call__(self):
        return self.seconds


def test_a_silo_is_left_out_for_twice_as_long_each_time_until_it_has_answered():
    clock, said = Clock(), []
    bars = Bars(said.append, clock)
    for seconds in (20.0, 40.0, 80.0, 160.0, 320.0, 600.0, 600.0):
        bars.put("south", "its part stopped")
        assert said[-1].startswith(f"south is left out of jobs for {seconds:g} seconds: its part stopped")
        clock.seconds += seconds - 1.0
        assert bars.reasons() == {"south": "its part stopped"}
        clock.seconds += 1.0
        assert bars.reasons() == {}
    bars.lift("south")
    bars.put("south", "again")
    assert "for 20 seconds" in said[-1]


def test_a_silo_that_went_away_is_let_in_at_once_but_not_forgiven():
    said = []
    bars = Bars(said.append, Clock())
    bars.put("south", "one")
    bars.release(["south", "west"])
    assert bars.reasons() == {}
    bars.put("south", "two")
    assert "for 40 seconds" in said[-1]


def parts(**states):
    return states


SITES = frozenset({"north", "south", "west"})


def test_who_never_started_is_to_blame():
    start = JobStart(SITES, Clock())
    assert not start.fails(parts(north="starting", south="starting", west="starting"))
    assert not start.fails(parts(north="started", south="starting", west="starting"))
    assert start.fails(parts(north="stopped", south="starting", west="started"))
    assert start.find_culprits() == {"south"}


def test_who_is_gone_first_is_to_blame():
    start = JobStart(SITES, Clock())
    assert not start.fails(parts(north="starting", south="starting", west="starting"))
    assert start.fails(parts(north="starting", south="", west="starting"))
    start.fails(parts(north="", south="", west=""))
    assert start.find_culprits() == {"south"}


def test_who_is_late_is_to_blame():
    clock = Clock()
    start = JobStart(SITES, clock)
    assert not start.fails(parts(north="started", south="starting", west="started"))
    clock.seconds = LATE_SECONDS + 1.0
    assert start.fails(parts(north="started", south="starting", west="started"))
    assert start.find_culprits() == {"south"}


def test_nobody_is_to_blame_where_all_are_alike():
    """As when the coordinator's own part cannot start, or nothing is known."""
    start = JobStart(SITES, Clock())
    assert not start.fails({})
    start.fails(parts(north="starting", south="starting", west="starting"))
    assert start.fails(parts(north="", south="", west=""))
    assert start.find_culprits() == frozenset()
    assert not JobStart(SITES, Clock()).fails(parts(north=None, south=None, west=None))
