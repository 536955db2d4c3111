"""Silos on hosts of their own, whose only way to the coordinator is a relay: slow, thin, cut, down, or a proxy."""

import json
import queue
import sys
import threading
import time
from unittest.mock import patch

import pytest

pytest.importorskip("nvflare")

from coterie.silos import certificates
from coterie.silos.project import create_project, join_all
from tests.deploy.hosts import MIDDLE, Hosts, can_make_hosts
from tests.deploy.party import NAMES

pytestmark = pytest.mark.skipif(not can_make_hosts(), reason="needs network namespaces: run as root, with iproute2")

PORT = 18443
PARTY, RELAY = (sys.executable, "-m", "tests.deploy.party"), (sys.executable, "-m", "tests.deploy.relay")


class Federation:
    """A coordinator and three silos, each on a host, and a relay for each silo in the middle.

    The coordinator's address in the invitations is `ADDRESS`, which lies in the middle, and there a relay listens.
    """

    ADDRESS = "10.77.200.1"

    def __init__(self, folder, hosts, **options):
        self.folder, self.hosts = folder, hosts
        self.options = [f"--{name}={value}" for name, value in options.items()]
        with patch.object(certificates, "KEY_BITS", 2048):
            create_project(folder / "hub", "trial", self.ADDRESS, PORT, NAMES)
            self.kits = join_all(folder / "hub", folder / "kits", NAMES)
        self.lines: queue.Queue[dict] = queue.Queue()
        self.said: list[str] = []

    def start(self, relay_options=(), environment=None, port=PORT):
        """Start all; the relay serves every silo, at a port of the middle."""
        hub = f"{self.hosts.addresses['hub']}:{PORT}"
        self.relay = self.hosts.start(MIDDLE, *RELAY, f"{self.ADDRESS}:{port}", hub, *relay_options)
        assert self.relay.stdout.readline() == "ready\n"
        out = str(self.folder / "weights")
        for name in NAMES:
            self.start_silo(name, environment)
        self.coordinator = self.hosts.start("hub", *PARTY, "coordinator", str(self.folder / "hub"), out, *self.options)
        threading.Thread(target=self.read, daemon=True).start()

    def start_silo(self, name, environment=None):
        arguments = ("silo", str(self.kits[name]), str(self.folder / "at" / name), *self.options)
        silo = self.hosts.start(name, *PARTY, *arguments, environment=environment)
        threading.Thread(target=silo.stdout.read, daemon=True).start()

    def read(self):
        for line in self.coordinator.stdout:
            print(line, end="")
            if line.startswith("{"):
                self.lines.put(json.loads(line))
            else:
                self.said.append(line)
        self.lines.put({})

    def next_round(self, seconds=180.0):
        round = self.lines.get(timeout=seconds)
        assert round, "the coordinator ended"
        return round

    def simulate(self):
        out = self.folder / "simulated"
        process = self.hosts.start("hub", *PARTY, "simulation", str(out), *self.options)
        assert process.stdout.read() == ""
        return out.read_bytes()

    def weights(self):
        assert self.coordinator.wait(60.0) == 0
        return (self.folder / "weights").read_bytes()


@pytest.fixture
def hosts():
    with Hosts(["hub", *NAMES]) as made:
        made.add_address(Federation.ADDRESS)
        yield made


def test_a_slow_and_thin_line_gives_the_simulations_weights(tmp_path, hosts):
    """A tenth of a second each way, and 250 kB a second: four rounds of FedAvg on digits, bit for bit."""
    federation = Federation(tmp_path, hosts, rounds=4, quorum=3)
    federation.start(("--delay", "0.1", "--rate", "250000"))
    rounds = [federation.next_round() for _ in range(4)]
    assert [round["reached"] for round in rounds] == [3, 3, 3, 3]
    assert federation.weights() == federation.simulate()


def test_connections_that_are_cut_are_made_again(tmp_path, hosts):
    """The relay ends every connection twice; no round loses its silos for good, and the last ones have all three."""
    federation = Federation(tmp_path, hosts, rounds=14, quorum=2, pause=3)
    federation.start()
    reached = []
    for number in range(1, 15):
        reached.append(federation.next_round()["reached"])
        if number in (2, 6):
            federation.relay.stdin.write("cut\n")
            federation.relay.stdin.flush()
            assert int(federation.relay.stdout.readline().split()[1]) >= 3  # one for each silo
    print(reached)
    assert reached[:2] == [3, 3]
    assert reached[-1] == 3
    federation.weights()


def test_a_link_that_is_down_for_thirty_seconds(tmp_path, hosts):
    """South's link is down, and nobody is told. The rounds go on with two silos, and with three when it is up again."""
    federation = Federation(tmp_path, hosts, rounds=30, quorum=2, pause=3)
    federation.start()
    assert [federation.next_round()["reached"] for _ in range(2)] == [3, 3]
    hosts.set_link("south", "down")
    down, up, counts = time.monotonic(), None, []
    while up is None or time.monotonic() - up < 60.0:
        round = federation.next_round()
        counts.append((round2(time.monotonic() - down), round["reached"], round2(round["seconds"])))
        if up is None and time.monotonic() - down >= 30.0:
            hosts.set_link("south", "up")
            up = time.monotonic()
        elif up is not None and round["reached"] == 3:
            break
    print("seconds since the link went down, silos reached, seconds of the round:", counts)
    assert (counts[0][1], counts[-1][1]) == (2, 3)
    assert sum(reached == 2 for _, reached, _ in counts) >= 3
    print(f"in again {time.monotonic() - up:.1f} s after the link was up")


def test_silos_dial_out_through_a_proxy(tmp_path, hosts):
    """The silos' only way out is a proxy that takes CONNECT for the coordinator's address."""
    federation = Federation(tmp_path, hosts, rounds=2, quorum=3)
    name, way = f"{Federation.ADDRESS}:{PORT}", f"http://{Federation.ADDRESS}:3128"
    federation.start(("--connect", name), {"http_proxy": way, "https_proxy": way}, 3128)
    assert [federation.next_round()["reached"] for _ in range(2)] == [3, 3]
    assert federation.relay.stdout.readline() == f"CONNECT {name}\n"
    assert federation.weights() == federation.simulate()


def round2(number):
    return round(number, 2)
