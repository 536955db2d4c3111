"""Who and what a silo and a coordinator refuse."""

import json
import shutil
import time
from contextlib import ExitStack
from unittest.mock import patch

import pytest

from coterie.silos import certificates

pytest.importorskip("nvflare")

from coterie.silos.nvflare_console import write_job
from coterie.silos.nvflare_silo import NVFlareSilo
from coterie.silos.project import create_project, join_all, read_project
from tests.silos.rehearsal import Rehearsal, processes_of, wait_until


@pytest.fixture(scope="module")
def rehearsal(tmp_path_factory):
    with Rehearsal(tmp_path_factory.mktemp("rehearsal"), ("north", "south")) as started:
        started.silo("north")
        yield started


@pytest.fixture(scope="module")
def coordinator(rehearsal):
    started = rehearsal.coordinator()
    assert wait_until(lambda: started.sites() == ("north",), 60.0)
    return started


def submit(coordinator, job):
    """Submit a job by the coordinator's own hands; return how it ended."""
    name = coordinator._console._command(lambda session: session.submit_job(str(job)))
    assert name is not None, coordinator._console.last_error
    assert wait_until(lambda: coordinator._console.find_end(name), 90.0)
    return coordinator._console.find_end(name)


def silo_log(rehearsal, name="north"):
    return "".join(file.read_text() for file in rehearsal.kits[name].rglob("log.txt"))


def test_a_job_that_names_another_class_is_refused_at_the_silo(rehearsal, coordinator, tmp_path):
    """The class would write a file; the silo never makes it."""
    owned = tmp_path / "owned"
    write_job(tmp_path / "job", "nobody", ["north"], 1)
    file = tmp_path / "job/app/config/config_fed_client.json"
    config = json.loads(file.read_text())
    config["components"] = [{"id": "_client", "path": "subprocess.Popen", "args": {"args": ["touch", str(owned)]}}]
    file.write_text(json.dumps(config))
    end = submit(coordinator, tmp_path / "job")
    print(end)
    assert end.startswith("FINISHED:")
    assert "COMPLETED" not in end
    assert "'subprocess.Popen' at config path" in silo_log(rehearsal)
    assert not owned.exists()


def test_a_job_that_brings_code_is_refused(rehearsal, coordinator, tmp_path):
    owned = tmp_path / "owned"
    write_job(tmp_path / "job", "nobody", ["north"], 1)
    custom = tmp_path / "job/app/custom"
    custom.mkdir()
    (custom / "sitecustomize.py").write_text(f"open({str(owned)!r}, 'w').close()\n")
    (custom / "stranger.py").write_text(f"open({str(owned)!r}, 'w').close()\nclass Silo: pass\n")
    file = tmp_path / "job/app/config/config_fed_client.json"
    file.write_text(file.read_text().replace("coterie.silos.nvflare_relay.SiloRelay", "stranger.Silo"))
    name = coordinator._console._command(lambda session: session.submit_job(str(tmp_path / "job")))
    print(name, coordinator._console.last_error)
    if name is not None:  # refused when it is sent to the silo, if not before
        assert wait_until(lambda: coordinator._console.find_end(name), 90.0)
        assert "COMPLETED" not in coordinator._console.find_end(name)
    assert not owned.exists()


def test_the_coordinator_cannot_look_into_a_silo(coordinator):
    """Commands that NVFlare has for it, each of which a silo's own rules must refuse."""
    for command in ("cat north log.txt", "ls north", "grep north INFO log.txt", "tail north log.txt", "pwd north"):
        answer = str(coordinator._console._command(lambda session, command=command: session.api.do_command(command)))
        print(command, "->", answer[:300])
        assert "not authorized" in answer.lower() or "authorization" in answer.lower()
        assert " - INFO - " not in answer


def test_a_key_of_another_root_is_not_connected(rehearsal, coordinator, tmp_path):
    """A stranger with a project of the same name, a kit of its own, and the right address."""
    project = read_project(rehearsal.folder / "hub")
    with patch.object(certificates, "KEY_BITS", 2048):
        create_project(tmp_path / "hub", project.name, project.host, project.port, ["south"])
        kit = join_all(tmp_path / "hub", tmp_path / "kits", ["south"])["south"]
    with NVFlareSilo(kit):
        assert_stays_out(coordinator)


def test_a_stranger_that_knows_the_root_certificate_is_not_connected(rehearsal, coordinator, tmp_path):
    """As before, but it trusts the coordinator's root, which is no secret; so only the coordinator can refuse it."""
    project = read_project(rehearsal.folder / "hub")
    with patch.object(certificates, "KEY_BITS", 2048):
        create_project(tmp_path / "hub", project.name, project.host, project.port, ["south"])
        kit = join_all(tmp_path / "hub", tmp_path / "kits", ["south"])["south"]
    with ExitStack() as stack:
        silo = stack.enter_context(NVFlareSilo(kit))
        shutil.copy(rehearsal.folder / "hub/root/certificate.pem", kit / "startup/rootCA.pem")
        silo._process.stop()
        silo._process = silo._start()
        assert_stays_out(coordinator)


def test_a_silo_cannot_speak_under_anothers_name(rehearsal, coordinator):
    """South's own key and certificate, and north's name, after north has gone."""
    rehearsal.silos["north"].close()
    assert wait_until(lambda: not coordinator.sites(), 30.0)
    with NVFlareSilo(rehearsal.kits["south"]) as silo:
        silo._process.stop()
        object.__setattr__(silo.invitation, "silo", "north")
        silo._process = silo._start()
        assert_stays_out(coordinator)
    assert wait_until(lambda: not processes_of(rehearsal.kits["south"]), 10.0)


def assert_stays_out(coordinator, seconds=20.0):
    before, ends = coordinator.sites(), time.monotonic() + seconds
    while time.monotonic() < ends:
        assert set(coordinator.sites()) <= set(before)
        time.sleep(1.0)
