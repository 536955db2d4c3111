"""The commands of a coordinator and of silos as people type them, all but those that need NVFlare's processes."""

import json
import os
import re
import sys
import tomllib
from dataclasses import asdict
from pathlib import Path

import pytest

from coterie.core.digests import digest
from coterie.experiment.silos.run_status import RunStatus
from coterie.experiment.silos.silo_folder import AUDIT_FILE, approvals_in
from coterie.silos import certificates
from coterie.silos.audit_log import AuditLog
from coterie.silos.message import write_message
from coterie.silos.run_description import Departure, RunDescription
from coterie.track.folder_lock import hold_lock
from tests.cli.test_main import exit_status
from tests.experiment.files import written

pytest.importorskip("cryptography")

REAL = Path(os.environ.get("COTERIE_DATA", "/nowhere"))
HEART = (
    'rounds = 2\n[data]\nsource = "heart_disease"\n[model]\nname = "logistic"\n[algorithm]\nname = "fedavg"\nlr = 0.1\n'
)
RUN = RunDescription(
    "heart-1", digest(b"a"), "fedavg", ("mlp",), ("csv",), 3, 1, (Departure("delta", 4, 2600, 1),), 2600
)
TABLE = "age,sick\n" + "".join(f"{30 + k},{'yes' if k % 3 else 'no'}\n" for k in range(40))


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Make a working directory with the digits experiment, and small keys, which are made in a fifth of the time."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(certificates, "KEY_BITS", 2048)
    return written(tmp_path)


def command(capsys: pytest.CaptureFixture[str], *arguments: str, status: int = 0) -> str:
    """Run a command of `coterie deploy`; return what it printed, of a mistake its sentence."""
    assert exit_status("deploy", *arguments) == status
    out, err = capsys.readouterr()
    assert "Traceback" not in err
    return err.strip() if status else out


def join(capsys: pytest.CaptureFixture[str], name: str) -> None:
    """Let one of the project's silos join, from its invitation on."""
    command(capsys, "request", f"hub/invitations/{name}.toml")
    command(capsys, "sign", "hub", f"{name}/{name}.request.pem")
    command(capsys, "join", f"hub/certificates/{name}.certificate.pem", name)


def test_a_project_is_made_and_a_silo_joins_it_step_by_step(capsys: pytest.CaptureFixture[str]) -> None:
    """Each command prints the next one, and that is what is run."""
    out = command(capsys, "init", "digits.toml", "hub", "--silos", "north, south", "--address", "localhost:8002")
    root = tomllib.loads(Path("hub/project.toml").read_text())["root"]
    assert re.findall(r"hub/invitations/\w+\.toml", out) == ["hub/invitations/north.toml", "hub/invitations/south.toml"]
    assert root in out
    assert "coterie deploy sign hub NAME.request.pem" in out

    asked = command(capsys, "request", "hub/invitations/north.toml")
    assert root in asked
    assert "north/north.request.pem" in asked
    assert "coterie deploy join north.certificate.pem north" in asked
    assert Path("north/startup/client.key").stat().st_mode & 0o077 == 0

    signed = command(capsys, "sign", "hub", "north/north.request.pem")
    fingerprint = re.search("its key has the fingerprint (.*)", asked)
    assert fingerprint
    assert fingerprint[1] in signed
    assert "still without a certificate: south" in signed
    assert "by telephone" in signed
    joined = command(capsys, "join", "hub/certificates/north.certificate.pem", "north")
    assert joined.startswith("north has joined the project digits; its certificate ends on ")
    assert "coterie deploy check north" in joined
    join(capsys, "south")
    later = command(capsys, "invite", "hub", "west")
    assert "hub/invitations/west.toml" in later
    table = command(capsys, "status", "hub").splitlines()
    assert [line.split() for line in table[2:5]] == [
        ["north", "yes", "no"],
        ["south", "yes", "no"],
        ["west", "invited", "no"],
    ]
    assert table[-1] == "no run has begun; coterie deploy run begins one"


def test_a_silo_is_revoked(capsys: pytest.CaptureFixture[str]) -> None:
    command(capsys, "init", "digits.toml", "hub", "--silos", "north,south", "--address", "localhost:8002")
    join(capsys, "north")
    out = command(capsys, "revoke", "hub", "north")
    assert "coterie deploy invite hub north-2" in out
    table = command(capsys, "status", "hub").splitlines()
    assert [line.split() for line in table[2:4]] == [["south", "invited", "no"], ["north", "revoked", "no"]]
    assert "'north' was revoked" in command(capsys, "invite", "hub", "north", status=2)
    assert "no silo has a certificate yet" in command(capsys, "run", "digits.toml", "--project", "hub", status=2)
    assert "there are south" in command(capsys, "revoke", "hub", "west", status=2)
    assert "project.toml: cannot be read" in command(capsys, "revoke", "nowhere", "west", status=2)


def test_the_status_of_a_killed_run_says_that_none_goes_on(capsys: pytest.CaptureFixture[str]) -> None:
    """What a killed coordinator last wrote, that north is connected, is true no more."""
    command(capsys, "init", "digits.toml", "hub", "--silos", "north")
    status = RunStatus("2026-01-01T00:00:00+00:00", "runs/digits", 3, 9, 1, connected=["north"])
    Path("hub/status.json").write_text(json.dumps(asdict(status)))
    stopped = command(capsys, "status", "hub")
    assert re.search("north +invited +no", stopped)
    assert "no run goes on now" in stopped
    assert "runs/digits: round 3 of 9, in which 1 updates counted" in stopped
    with hold_lock(Path("hub")):
        going_on = command(capsys, "status", "hub")
    assert re.search("north +invited +yes", going_on)
    assert "no run goes on now" not in going_on


def test_a_silo_is_checked_against_the_experiment(capsys: pytest.CaptureFixture[str]) -> None:
    command(capsys, "init", "digits.toml", "hub", "--silos", "north", "--address", "localhost:1")
    join(capsys, "north")
    assert "data, connection: see above" in command(capsys, "check", status=2)  # there is no file yet
    Path("north/patients.csv").write_text(TABLE)
    path = Path("north/silo.toml")
    path.write_text(path.read_text().replace('"diagnosis"', '"sick"'))
    assert exit_status("deploy", "check", "north", "--experiment", "digits.toml") == 2
    out, err = capsys.readouterr()
    found = {line.split()[1]: line.split()[0] for line in out.splitlines()[1:]}
    assert found == {
        "certificate": "ok", "device": "ok", "data": "ok", "test": "ok", "shape": "ok", "disk": "ok", "message": "ok",
        "policy": "ok", "connection": "NO",
    }  # fmt: skip
    assert "a person must approve it once" in out
    assert "localhost:1 is not reached" in out
    assert err.startswith("connection: ")
    policy = Path("north/policy.toml")
    policy.write_text(policy.read_text().replace('algorithms = ["any"]', 'algorithms = ["fbn"]'))
    assert exit_status("deploy", "check", "--experiment", "digits.toml") == 2
    assert 'NO  policy       the run needs "fedavg", and the policy allows fbn' in capsys.readouterr().out


def test_a_person_approves_and_revokes_a_run(capsys: pytest.CaptureFixture[str]) -> None:
    command(capsys, "init", "digits.toml", "hub", "--silos", "north", "--address", "localhost:8002")
    command(capsys, "request", "hub/invitations/north.toml")
    assert "no run has asked to begin here" in command(capsys, "approve")
    approvals = approvals_in(Path("north"))
    assert approvals.begin(RUN, "new runs") is not None
    listed = command(capsys, "approve")
    assert f"{RUN.digest[:12]}  pending" in listed
    assert "delta (4 tensors, 2,600 bytes) leaves" in listed
    assert "approved by Dr. Ada" in command(capsys, "approve", "heart-1", "--by", "Dr. Ada")
    assert approvals.begin(RUN, "new runs") is None
    assert "revoked by" in command(capsys, "approve", RUN.digest[:8], "--revoke", "--dir", "north")
    assert approvals.is_revoked(RUN.digest)
    assert "no run of the name or digest x asked here" in command(capsys, "approve", "x", status=2)
    assert command(capsys, "approve").splitlines()[-1] == "no run waits for approval"
    assert "--revoke names no run" in command(capsys, "approve", "--revoke", status=2)


def test_the_audit_log_is_verified_and_printed(capsys: pytest.CaptureFixture[str]) -> None:
    command(capsys, "init", "digits.toml", "hub", "--silos", "north", "--address", "localhost:8002")
    command(capsys, "request", "hub/invitations/north.toml")
    path = Path("north") / AUDIT_FILE
    assert "this silo has not served yet; start coterie deploy serve" in command(capsys, "audit", status=2)
    log = AuditLog(path, "north")
    log.append("left", write_message({"kind": "facts", "run": "heart-1", "round": 0}))
    log.close()
    out = command(capsys, "audit", "north", "--last", "1")
    assert [line.split()[2:6] for line in out.splitlines()[1:2]] == [["left", "heart-1", "0", "facts"]]
    assert f"the last digest is {log.head}" in out
    assert command(capsys, "audit", "--last", "0") == out.splitlines()[-1] + "\n"
    assert command(capsys, "audit", "--known-head", log.head).endswith(out.splitlines()[-1] + "\n")
    path.write_bytes(path.read_bytes().replace(b'"facts"', b'"fakes"'))
    command(capsys, "audit", "--known-head", log.head, status=1)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["init", "digits.toml", "hub", "--silos", "North"], 'silo = "North": it must be 1 to 40 small letters'),
        (["init", "digits.toml", "hub", "--silos", "north", "--address", "x"], "--address x: it must be HOST:PORT"),
        (["init", "absent.toml", "hub", "--silos", "north"], "absent.toml: there is no such file"),
        (["request", "absent.toml"], "absent.toml: cannot be read"),
        (["sign", "hub", "absent.pem"], "absent.pem: cannot be read"),
        (["sign", "hub", "digits.toml"], "digits.toml: holds no request; ask the silo for the NAME.request.pem"),
        (["join", "absent.pem"], "no silo's folder is here: make one with coterie deploy request INVITATION"),
        (["check", "absent"], "absent: is not a silo's folder"),
        (["approve"], "no silo's folder is here"),
        (["audit"], "no silo's folder is here"),
        (["status", "absent"], "project.toml: cannot be read"),
        (["init", "digits.toml", "hub", "--silos", ","], "--silos names nobody"),
        (["run", "digits.toml"], "no project is here: make one with coterie deploy init digits.toml DIR"),
        (["rehearse", "digits.toml", "attack.name=sign_flip", "attack.num_clients=1"], "attack.name = "),
    ],
)
def test_mistakes_are_one_sentence(capsys: pytest.CaptureFixture[str], arguments: list[str], sentence: str) -> None:
    before = sorted(Path().rglob("*"))
    printed = command(capsys, *arguments, status=2)
    assert sentence in printed or (arguments[0] == "rehearse" and "pip install 'coterie[deploy]'" in printed)
    assert "\n" not in printed
    assert sorted(Path().rglob("*")) == before


def test_a_rehearsal_without_the_package_says_how_to_install_it(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "nvflare", None)
    assert "pip install 'coterie[deploy]'" in command(capsys, "rehearse", "digits.toml", status=2)
    assert not Path("runs").exists()


def test_two_silos_with_keys_and_processes(capsys: pytest.CaptureFixture[str]) -> None:
    """The whole command, over NVFlare: the weights are those of the simulation."""
    pytest.importorskip("nvflare")
    out = command(capsys, "rehearse", "digits.toml", "rounds=1", "--silos", "2")
    assert out.splitlines()[-1] == "the weights are the simulation's, bit for bit"
    assert not command(capsys, "rehearse", "digits.toml", "rounds=1", "--silos", "2", "--resume", "--quiet")
    assert exit_status("deploy", "rehearse", "digits.toml", "rounds=1", "--silos", "2", "--resume", "--json") == 0
    out, err = capsys.readouterr()
    assert json.loads(out) == json.loads(Path("runs/digits/summary.json").read_text())
    assert err.splitlines()[-1] == "the weights are the simulation's, bit for bit"
    for silo in ("silo-1", "silo-2"):
        assert "are in one chain" in command(capsys, "audit", f"runs/digits/silos/{silo}")


def test_four_hospitals_with_keys_and_processes(capsys: pytest.CaptureFixture[str]) -> None:
    """The same with a silo for each hospital."""
    pytest.importorskip("nvflare")
    if not (REAL / "heart_disease").is_dir():
        pytest.skip("the data are not here")
    Path("heart.toml").write_text(HEART)
    out = command(capsys, "rehearse", "heart.toml")
    assert out.splitlines()[-1] == "the weights are the simulation's, bit for bit"
    for silo in ("cleveland", "hungarian", "switzerland", "va"):
        assert "are in one chain" in command(capsys, "audit", f"runs/heart/silos/{silo}")
