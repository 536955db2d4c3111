"""Deployment with every codec, through compression, policy and audit log: the bits of the simulation."""

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path

import pytest

import coterie
from coterie import Communication, Recipe
from coterie.core.compression import compress
from coterie.silos import compressed_carrier
from coterie.silos.audit_log import AuditLog
from coterie.silos.carrier import Answer, Failure
from coterie.silos.compressed_carrier import CompressedCarrier, compress_answers
from coterie.silos.guard import guard_answers
from coterie.silos.letters import answer_failed
from coterie.silos.policy import DEFAULT_POLICY, Policy
from coterie.silos.verify_log import verify
from tests.silos.deployment import Deployment, same_bits, server_state

CODECS = {"float16": Communication("float16"), "uint8": Communication("uint8"), "top_k": Communication("top_k", 0.1)}


class Direct:
    """Silos in this process, whose messages nobody looks into."""

    def __init__(self, silos: Mapping[str, Answer]) -> None:
        self.silos = silos

    def sites(self) -> list[str]:
        return list(self.silos)

    def ask(self, messages: Mapping[str, bytes], deadline: float) -> Iterator[tuple[str, bytes | Failure]]:
        for site, message in messages.items():
            yield site, self.silos[site](message)

    def renew(self) -> None: ...

    def close(self) -> None: ...


@pytest.mark.parametrize("up", CODECS.values(), ids=CODECS)
@pytest.mark.parametrize("algorithm", [coterie.fedavg, coterie.scaffold])
def test_a_guarded_deployment_has_the_bits_of_the_simulation(
    algorithm: Callable[..., Recipe], up: Communication, tmp_path: Path
) -> None:
    """Each silo's log is whole and has, for each request that arrived, an answer that left."""
    deployment = Deployment(algorithm(lr=0.1, batch_size=5), tmp_path, options={"up": up})
    (tmp_path / "policy.toml").write_text(DEFAULT_POLICY)
    policy = Policy.load(tmp_path / "policy.toml")
    guarded, logs = {}, {}
    for site, silo in deployment.silos().items():
        logs[site] = tmp_path / f"{site}.jsonl"
        refuse = partial(answer_failed, silo.run)
        log = AuditLog(logs[site], site)
        answer = guard_answers(silo, policy, lambda request: False, log, refuse)
        guarded[site] = compress_answers(answer, refuse)
    carrier = CompressedCarrier(Direct(guarded))
    deployed = deployment.deploy(carrier)
    simulated = deployment.simulate()
    assert all(same_bits(server_state(a), server_state(b)) for a, b in zip(deployed, simulated, strict=True))
    assert [r.bytes_up for r in deployed] == [r.bytes_up for r in simulated]
    assert carrier.wire_bytes_up > 0
    for path in logs.values():
        found = verify(path)
        whats = [e["what"] for e in found.entries if e["what"] in ("arrived", "left")]
        assert found.broken is None
        assert whats == ["arrived", "left"] * (len(whats) // 2)
        assert {e["round"] for e in found.entries if e.get("kind") == "work"} == {1, 2, 3}


def test_what_cannot_be_decompressed_is_a_failure_of_its_silo() -> None:
    answers = {"north": lambda request: b"\x07", "south": lambda request: compress(bytes(10_000))}
    carrier = CompressedCarrier(Direct(answers), max_bytes=1000)
    found = dict(carrier.ask({"north": b"a", "south": b"a"}, 1.0))
    assert found["north"] == Failure("sent an answer that is compressed in a way that this version does not know")
    assert found["south"] == Failure("sent an answer that holds more than 1,000 bytes")


def test_large_requests_wait_on_the_disk_and_arrive_as_they_were(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compressed_carrier, "MEMORY_BYTES", 10)
    messages = {"north": bytes(range(256)) * 40, "south": b"", "west": bytes(range(256)) * 40}
    answers = dict.fromkeys(messages, compress_answers(lambda request: request, lambda request, why: why.encode()))
    carrier = CompressedCarrier(Direct(answers))
    assert dict(carrier.ask(messages, 1.0)) == messages
    assert carrier.wire_bytes_down == sum(len(compress(message)) for message in messages.values())


def test_a_request_that_is_a_bomb_is_refused_at_the_silo() -> None:
    silo = compress_answers(lambda request: b"never", lambda request, why: why.encode(), max_bytes=1000)
    carrier = CompressedCarrier(Direct({"north": silo}))
    assert dict(carrier.ask({"north": bytes(10_000)}, 1.0)) == {"north": b"the request holds more than 1,000 bytes"}
