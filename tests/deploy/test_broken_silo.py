"""One silo in which no job can run must not keep the others from their work."""

import os
import signal
import time

import pytest

from coterie.silos.carrier import Failure

pytest.importorskip("nvflare")

from tests.silos.rehearsal import NAMES, Rehearsal, processes_of, wait_until

RELAY = "client.worker_process"


@pytest.fixture
def rehearsal(tmp_path):
    with Rehearsal(tmp_path) as started:
        yield started


def ask(coordinator, message, deadline=120.0):
    """Return the answers and how long they took, in seconds."""
    began = time.monotonic()
    answers = dict(coordinator.ask(dict.fromkeys(NAMES, message), deadline))
    return answers, time.monotonic() - began


def test_a_silo_whose_relay_cannot_start_is_left_out_for_a_while(rehearsal):
    """The secret by which south's relay finds its process is gone, as if /tmp had been tidied, and then comes back.

    The first job ends before it begins, since NVFlare needs all of its parts. The next begins without south.
    """
    for name in NAMES:
        rehearsal.silo(name)
    secret = rehearsal.silos["south"]._meeting.folder / "secret"
    kept = secret.read_bytes()
    secret.unlink()
    coordinator = rehearsal.coordinator(quorum=2)
    assert wait_until(lambda: coordinator.sites() == NAMES, 60.0)

    answers, seconds = ask(coordinator, b"12")
    print(f"with one silo broken: {answers} after {seconds:.1f} s", *rehearsal.said, sep="\n")
    assert answers["north"] == b"21north"
    assert answers["west"] == b"21west"
    assert answers["south"] == Failure("its part of a job did not start")
    assert any(each.startswith("south is left out of jobs for 20 seconds") for each in rehearsal.said)

    secret.write_bytes(kept)
    assert wait_until(lambda: not coordinator._bars.reasons(), 30.0)
    coordinator.renew()
    answers, seconds = ask(coordinator, b"34")
    print(f"with it mended: {seconds:.1f} s")
    assert answers == {name: b"43" + name.encode() for name in NAMES}


def test_a_silo_whose_relay_dies_at_every_message_is_left_out(rehearsal):
    """South's relay is killed by each message, as by a memory limit; the others' answers come all the same."""

    def die(message):
        for each in processes_of(rehearsal.kits["south"], RELAY):
            os.kill(each, signal.SIGKILL)
        return b""

    rehearsal.silo("north")
    rehearsal.silo("south", die)
    rehearsal.silo("west")
    coordinator = rehearsal.coordinator(quorum=2)
    assert wait_until(lambda: coordinator.sites() == NAMES, 60.0)
    answers, seconds = ask(coordinator, b"12", 180.0)
    print(f"with a relay that dies: {answers} after {seconds:.1f} s", *rehearsal.said, sep="\n")
    assert answers["north"] == b"21north"
    assert answers["west"] == b"21west"
    assert isinstance(answers["south"], Failure)
    assert seconds < 120.0
    answers, seconds = ask(coordinator, b"34", 60.0)
    print(f"and the next: {answers} after {seconds:.1f} s")
    assert answers["west"] == b"43west"
