"""A silo judges what it is asked: nothing that arrives ends it, or makes it work for another run."""

from pathlib import Path

import pytest
import torch

from coterie.core import tree
from coterie.core.packing import pack, unpack
from coterie.silos.in_process import InProcess
from coterie.silos.message import read_message, write_message
from coterie.silos.silo import Silo
from tests.common.recipes import RECIPES
from tests.silos.deployment import Deployment


@pytest.fixture(scope="module")
def silo_and_request(tmp_path_factory: pytest.TempPathFactory) -> tuple[Silo, bytes]:
    """Silo north, and the honest request of round 2."""
    both = Deployment(RECIPES["scaffold"], tmp_path_factory.mktemp("silos"), 2)
    silos, seen = both.silos(), list[bytes]()

    def listen(request: bytes) -> bytes:
        seen.append(request)
        return silos["north"](request)

    both.deploy(InProcess({**silos, "north": listen}), save_models=False)
    return silos["north"], next(r for r in seen if b'"round": 2' in r[:300] and b'"kind": "work"' in r[:300])


def why_failed(answer: bytes) -> str:
    message = read_message(answer)
    assert message.text("kind") == "failed"
    return message.text("why")


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"run": "other"}, "is of another run (other and not run)"),
        ({"experiment": "x"}, "is of another experiment"),
        ({"kind": "shell"}, "asks for shell, which this version does not know"),
        ({"round": 0}, "has no whole number from 1 to 2 under round"),
        ({"round": 99}, "has no whole number from 1 to 2 under round"),
        ({"round": True}, "has no whole number from 1 to 2 under round"),
        ({"clients": [{"client": "2", "round": 0}]}, "asks for client 2, which is not one of this silo's"),
        ({"clients": [{"client": "0", "round": 0}] * 2}, "or asks twice"),
        ({"clients": [{"client": "0", "round": 7}]}, "has no whole number from 0 to 2"),
        ({"clients": [7]}, "asks for client None"),
        ({"clients": "0"}, "does not list clients"),
        ({"go_back": 0}, "has no whole number"),
        ({"clients": [{"client": "0", "round": 2}]}, "no state of client 0 after round 2"),
    ],
)
def test_fields_are_judged(silo_and_request: tuple[Silo, bytes], changes: dict[str, object], why: str) -> None:
    """State 2 is there after the honest round 2, so the last case asks a silo that was never in round 2."""
    silo, request = silo_and_request
    if "after round 2" in why:
        silo.states._entries.clear()
    message = read_message(request)
    assert why in why_failed(silo(write_message({**message.fields, **changes}, message.parts)))


@pytest.mark.parametrize(
    ("alter", "why"),
    [
        (lambda x: x * float("nan") if x.is_floating_point() else x, "holds numbers that are not finite"),
        (lambda x: x.float(), "torch.float32"),
        (lambda x: torch.cat([x.reshape(-1)] * 2), "is torch.float64 ["),
    ],
)
def test_broadcasts_are_judged(silo_and_request: tuple[Silo, bytes], alter: object, why: str) -> None:
    silo, request = silo_and_request
    message = read_message(request)
    part = pack(tree.map(alter, unpack(message.parts[0])))  # type: ignore[arg-type]
    assert why in why_failed(silo(write_message(message.fields, [part])))
    missing = {"params": unpack(message.parts[0])["params"]}
    assert "leaves differ" in why_failed(silo(write_message(message.fields, [pack(missing)])))


@pytest.mark.parametrize(
    "data", [b"", b"\n", b"[]\n", b"{}\n", b"\xff" * 99, b"[" * 10**5 + b"\n", b'{"version": 1}\n'], ids=repr
)
def test_bytes_of_any_kind_are_answered(silo_and_request: tuple[Silo, bytes], data: bytes) -> None:
    assert why_failed(silo_and_request[0](data)).startswith("the request ")


def test_a_long_message_is_refused_by_its_length(tmp_path: Path) -> None:
    both = Deployment(RECIPES["fedavg"], tmp_path)
    own = {client: data for client, data in both.clients.items() if both.hosts[client] == "north"}
    silo = Silo(both.plan(own, None), tmp_path, max_bytes=1000)
    assert "has 1001 bytes, and an honest message 1000 at most" in why_failed(silo(bytes(1001)))
