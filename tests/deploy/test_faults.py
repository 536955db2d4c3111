"""What dies while silos are asked: the exchange goes on, and who was away is in again."""

import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from coterie.silos.carrier import Failure

pytest.importorskip("nvflare")

from tests.silos.rehearsal import NAMES, Rehearsal, processes_of, wait_until

RELAY, SILO, COORDINATOR = "client.worker_process", "client.client_train", "server.server_train"
SLOW_SECONDS = 4.0


@pytest.fixture(scope="module")
def rehearsal(tmp_path_factory):
    """Three silos that take a while for messages that begin with "slow"."""
    with Rehearsal(tmp_path_factory.mktemp("rehearsal")) as started:
        for name in NAMES:
            start_silo(started, name)
        yield started


@pytest.fixture(scope="module")
def coordinator(rehearsal):
    started = rehearsal.coordinator(quorum=2)
    assert wait_until(lambda: started.sites() == NAMES, 60.0)
    return started


def start_silo(rehearsal, name):
    def answer(message):
        time.sleep(SLOW_SECONDS if message.startswith(b"slow") else 0.0)
        return message + name.encode()

    return rehearsal.silo(name, answer)


def ask(coordinator, message, deadline=120.0):
    """Return the answers and how long they took, in seconds."""
    began = time.monotonic()
    answers = dict(coordinator.ask(dict.fromkeys(NAMES, message), deadline))
    return answers, time.monotonic() - began


def after(seconds, function, *arguments):
    timer = threading.Timer(seconds, function, arguments)
    timer.start()
    return timer


def kill(folder, module):
    """Kill one kind of a party's processes."""
    found = processes_of(folder, module)
    assert found
    for each in found:
        os.kill(each, signal.SIGKILL)


def whole(message):
    return {name: message + name.encode() for name in NAMES}


def test_a_silo_whose_relay_is_killed_is_asked_again_in_the_next_job(rehearsal, coordinator):
    assert ask(coordinator, b"one")[0] == whole(b"one")
    after(1.0, kill, rehearsal.kits["south"], RELAY)
    answers, seconds = ask(coordinator, b"slow two")
    assert answers == whole(b"slow two")
    print(f"a relay was killed: all three answered after {seconds:.1f} s")


def test_a_silo_whose_network_process_is_killed_starts_it_again(rehearsal, coordinator):
    assert ask(coordinator, b"one")[0] == whole(b"one")
    after(1.0, kill, rehearsal.kits["south"], SILO)
    answers, seconds = ask(coordinator, b"slow two")
    print(f"NVFlare's process of a silo was killed: {sorted(answers)} after {seconds:.1f} s, {answers['south']!r}")
    assert answers["north"] == b"slow twonorth"
    assert answers["west"] == b"slow twowest"
    assert wait_until(lambda: coordinator.sites() == NAMES, 60.0)
    coordinator.renew()
    answers, seconds = ask(coordinator, b"three")
    print(f"and all three answered {seconds:.1f} s after it was back")
    assert answers == whole(b"three")


def test_a_silo_that_goes_is_left_out_and_in_again_when_it_is_back(coordinator, rehearsal):
    """South ends in the middle of an exchange; its place in the next ones is a failure, until it is started again."""
    silo = rehearsal.silos["south"]
    after(1.0, silo.close)
    answers, seconds = ask(coordinator, b"slow one", 60.0)
    print(f"a silo ended: {answers} after {seconds:.1f} s")
    assert answers["north"] == b"slow onenorth"
    assert answers["west"] == b"slow onewest"
    assert isinstance(answers["south"], Failure)
    assert wait_until(lambda: coordinator.sites() == ("north", "west"), 30.0)
    answers, seconds = ask(coordinator, b"two", 60.0)
    assert answers["south"] == Failure("is not connected")
    print(f"without it: {seconds:.2f} s")
    start_silo(rehearsal, "south")
    assert wait_until(lambda: coordinator.sites() == NAMES, 60.0)
    coordinator.renew()
    answers, seconds = ask(coordinator, b"three")
    assert answers == whole(b"three")
    print(f"with it again: {seconds:.1f} s")


def test_the_coordinators_network_process_is_killed(rehearsal, coordinator):
    assert ask(coordinator, b"one")[0] == whole(b"one")
    after(1.0, kill, rehearsal.folder / "hub", COORDINATOR)
    answers, seconds = ask(coordinator, b"slow two")
    print(f"NVFlare's process of the coordinator was killed: {sorted(answers)} after {seconds:.1f} s")
    assert answers == whole(b"slow two")


def test_the_coordinator_is_killed_and_started_again(rehearsal, coordinator):
    """A second coordinator's process, killed in an exchange, leaves nothing behind; a third goes on with the silos."""
    coordinator.close()
    script = (
        "import sys; from pathlib import Path; from coterie.silos.nvflare_carrier import NVFlareCoordinator as C\n"
        "with C(Path(sys.argv[1]), quorum=3) as c:\n"
        "    for site, answer in c.ask(dict.fromkeys(['north', 'south', 'west'], b'slow'), 120.0):\n"
        "        print(site, flush=True)\n"
        "    list(c.ask(dict.fromkeys(['north', 'south', 'west'], b'slow'), 120.0))\n"
    )
    hub = rehearsal.folder / "hub"
    process = subprocess.Popen([sys.executable, "-c", script, str(hub)], stdout=subprocess.PIPE)
    assert [process.stdout.readline() for _ in NAMES]
    time.sleep(1.0)
    process.kill()
    process.wait()
    assert wait_until(lambda: not processes_of(hub), 10.0)

    began = time.monotonic()
    third = rehearsal.coordinator(quorum=3)
    answers, _ = ask(third, b"last")
    assert answers == whole(b"last")
    print(f"a coordinator was killed: the next had all three after {time.monotonic() - began:.1f} s")


def test_a_silos_process_is_killed_and_nothing_is_left_behind(rehearsal):
    """The process that serves is killed, and NVFlare's go with it."""
    kit = rehearsal.kits["west"]
    rehearsal.silos["west"].close()
    assert wait_until(lambda: not processes_of(kit), 10.0)
    script = (
        "import sys; from pathlib import Path; from coterie.silos.nvflare_silo import NVFlareSilo\n"
        "with NVFlareSilo(Path(sys.argv[1])) as silo: silo.serve(lambda message: message)\n"
    )
    process = subprocess.Popen([sys.executable, "-c", script, str(kit)])
    assert wait_until(lambda: processes_of(kit, SILO), 30.0)
    process.kill()
    process.wait()
    assert wait_until(lambda: not processes_of(kit), 10.0)
