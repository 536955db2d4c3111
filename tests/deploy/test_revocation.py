"""A silo that is revoked while a run goes on, and that comes back with the certificate that it still has."""

import time

import pytest

pytest.importorskip("nvflare")

from coterie.silos.carrier import Failure
from coterie.silos.revoke import revoke
from tests.silos.rehearsal import Rehearsal, wait_until


def test_a_revoked_silo_is_asked_no_more_and_refused_when_it_dials_again(tmp_path):
    with Rehearsal(tmp_path, ("north", "south")) as rehearsal:
        silos = {name: rehearsal.silo(name) for name in ("north", "south")}
        coordinator = rehearsal.coordinator()
        assert wait_until(lambda: coordinator.sites() == ("north", "south"), 60.0)
        first = dict(coordinator.ask({"north": b"1", "south": b"1"}, 60.0))
        assert first == {"north": b"1north", "south": b"1south"}
        revoke(rehearsal.folder / "hub", "south")
        began = time.monotonic()
        second = dict(coordinator.ask({"north": b"2", "south": b"2"}, 60.0))
        print(f"after a revocation: {second} after {time.monotonic() - began:.1f} s")
        assert second["south"] == Failure("was revoked")
        assert second["north"] == b"2north"
        assert coordinator.sites() == ("north",)
        silos["south"].close()
        rehearsal.silo("south")  # with the key and the certificate that it has
        log = rehearsal.folder / "hub/coordinator/log.txt"
        assert wait_until(lambda: "Reject disabled client registration: south" in log.read_text(), 60.0)
        assert coordinator.sites() == ("north",)
        assert dict(coordinator.ask({"north": b"3"}, 60.0)) == {"north": b"3north"}
    with rehearsal:  # a new process of the coordinator's knows it too
        again = rehearsal.coordinator()
        rehearsal.silo("south")
        before = log.read_text().count("Reject disabled client registration: south")
        assert wait_until(lambda: log.read_text().count("Reject disabled client registration: south") > before, 60.0)
        assert again.sites() == ()
