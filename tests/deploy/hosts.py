"""Hosts of one machine, each in a network namespace of its own, which only reach one another through a middle one.

A silo's host has one link, to the middle. There, relays (`tests.deploy.relay`) stand for the coordinator's address.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from contextlib import ExitStack

MIDDLE = "coterie-middle"


class Hosts:
    """Namespaces by name; use it in a `with` statement.

    Attributes:
        addresses: host -> its own address.
        gateways: host -> the middle's address on its link.
    """

    def __init__(self, names: list[str]) -> None:
        self.names = names
        self.addresses = {name: f"10.77.{k + 1}.2" for k, name in enumerate(names)}
        self.gateways = {name: f"10.77.{k + 1}.1" for k, name in enumerate(names)}
        self._stack = ExitStack()

    def __enter__(self) -> Hosts:
        self._add(MIDDLE)
        for name in self.names:
            space, link = self._add(f"coterie-{name}"), f"to-{name}"
            _ip("link", "add", link, "netns", MIDDLE, "type", "veth", "peer", "name", "uplink", "netns", space)
            _ip("-n", MIDDLE, "address", "add", f"{self.gateways[name]}/24", "dev", link)
            _ip("-n", MIDDLE, "link", "set", link, "up")
            _ip("-n", space, "address", "add", f"{self.addresses[name]}/24", "dev", "uplink")
            _ip("-n", space, "link", "set", "uplink", "up")
            _ip("-n", space, "route", "add", "default", "via", self.gateways[name])
        return self

    def __exit__(self, *error: object) -> None:
        self._stack.close()

    def start(self, name: str, *command: str, environment: dict[str, str] | None = None) -> subprocess.Popen[str]:
        """Start a program on a host, or in the middle; it is ended with the block, if it has not ended."""
        space = MIDDLE if name == MIDDLE else f"coterie-{name}"
        process = subprocess.Popen(
            ["ip", "netns", "exec", space, *command], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            env=os.environ | (environment or {}),
        )  # fmt: skip
        self._stack.callback(_end, process)
        return process

    def add_address(self, address: str) -> None:
        """Give the middle an address that every host reaches, behind which a relay may listen."""
        _ip("-n", MIDDLE, "address", "add", f"{address}/32", "dev", "lo")

    def set_link(self, name: str, state: str) -> None:
        """Set a host's link "up" or "down": down, nothing arrives and nobody is told."""
        _ip("-n", MIDDLE, "link", "set", f"to-{name}", state)

    def _add(self, space: str) -> str:
        _ip("netns", "add", space)
        self._stack.callback(_ip, "netns", "delete", space)
        _ip("-n", space, "link", "set", "lo", "up")
        return space


def can_make_hosts() -> bool:
    """Return whether this machine lets this user make namespaces."""
    if os.geteuid() != 0 or shutil.which("ip") is None:
        return False
    made = subprocess.run(["ip", "netns", "add", "coterie-trial"], capture_output=True, check=False).returncode == 0
    subprocess.run(["ip", "netns", "delete", "coterie-trial"], capture_output=True, check=False)
    return made


def _end(process: subprocess.Popen[str]) -> None:
    """Close a program's standard input, by which ours end; kill what has not ended after that."""
    if process.stdin is not None:
        process.stdin.close()
    try:
        process.wait(15.0)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True)
