"""Keys, invitations, requests and certificates: each step refuses what does not fit."""

import stat

import pytest

from coterie.core.errors import Mistake

pytest.importorskip("cryptography")

from coterie.silos import certificates
from coterie.silos.project import (
    create_project,
    invite,
    join,
    join_all,
    list_silos,
    read_kit,
    request,
    sign,
    silos_with_certificate,
)
from coterie.silos.revoke import list_revoked, revoke


@pytest.fixture(autouse=True)
def _short_keys(monkeypatch):
    monkeypatch.setattr(certificates, "KEY_BITS", 2048)


@pytest.fixture
def hub(tmp_path):
    create_project(tmp_path / "hub", "heart", "hub.example.org", 8443, ["north"])
    return tmp_path / "hub"


def test_a_silo_joins_and_one_is_added_later_without_touching_it(hub, tmp_path):
    kits = join_all(hub, tmp_path / "kits", ["north"])
    before = {file: file.read_bytes() for file in kits["north"].rglob("*") if file.is_file()}
    invite(hub, "south")
    join_all(hub, tmp_path / "kits", ["south"])
    assert list_silos(hub) == ("north", "south")
    assert {file: file.read_bytes() for file in before} == before
    invitation, ends = read_kit(kits["north"])
    assert (invitation.host, invitation.port, invitation.silo) == ("hub.example.org", 8443, "north")
    assert ends.timestamp() > 0


def test_the_key_stays_at_the_silo_for_its_user_alone(hub, tmp_path):
    """Nothing that goes to the coordinator has the key in it, and no one else can read the file."""
    kit = join_all(hub, tmp_path / "kits", ["north"])["north"]
    key = kit / "startup/client.key"
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    assert not any(key.read_bytes() in file.read_bytes() for file in hub.rglob("*") if file.is_file())
    for secret in (hub / "root/key.pem", hub / "coordinator/startup/server.key", hub / "console/startup/client.key"):
        assert stat.S_IMODE(secret.stat().st_mode) == 0o600


def test_a_certificate_is_renewed_with_the_key_that_the_silo_has(hub, tmp_path):
    kit = join_all(hub, tmp_path / "kits", ["north"])["north"]
    key, ends = (kit / "startup/client.key").read_bytes(), read_kit(kit)[1]
    file = request(hub / "invitations/north.toml", kit)
    assert join(kit, sign(hub, file, days=2000)) > ends
    assert (kit / "startup/client.key").read_bytes() == key


def test_a_revoked_silo_comes_back_by_another_name_and_key_alone(hub, tmp_path):
    """Neither its name nor its key is signed again; the others' files stay as they were."""
    invite(hub, "south")
    join_all(hub, tmp_path / "kits", ["north", "south"])
    south = {file: file.read_bytes() for file in hub.rglob("*") if "south" in file.name}
    had = revoke(hub, "north")
    assert sorted(file.name for file in had.iterdir()) == ["certificate.pem", "invitation.toml", "request.pem"]
    assert (list_silos(hub), silos_with_certificate(hub), list_revoked(hub)) == (("south",), ("south",), {"north"})
    assert {file: file.read_bytes() for file in south} == south
    with pytest.raises(Mistake, match="'north' was revoked, and its name never comes back; invite it by another"):
        invite(hub, "north")
    with pytest.raises(Mistake, match="'north' was revoked"):
        sign(hub, tmp_path / "kits/north/north.request.pem", new_key=True)
    again = request(invite(hub, "north-2"), tmp_path / "north-2")
    old_key = (tmp_path / "kits/north/startup/client.key").read_bytes()
    again.write_bytes(certificates.make_request(old_key, "north-2"))
    with pytest.raises(Mistake, match="the key of this request was that of 'north', which was revoked"):
        sign(hub, again)
    assert sign(hub, request(hub / "invitations/north-2.toml", tmp_path / "new")).exists()
    assert revoke(hub, "north") == had
    with pytest.raises(Mistake, match="the project has no silo 'west'; there are north-2, south"):
        revoke(hub, "west")


def test_what_does_not_fit_is_refused(hub, tmp_path):
    invite(hub, "south")
    files = {name: request(hub / f"invitations/{name}.toml", tmp_path / name) for name in ("north", "south")}
    signed = {name: sign(hub, file) for name, file in files.items()}
    with pytest.raises(Mistake, match="this certificate is for 'south'"):
        join(tmp_path / "north", signed["south"])
    other = request(hub / "invitations/north.toml", tmp_path / "stranger")
    with pytest.raises(Mistake, match="has a certificate for another key"):
        sign(hub, other)
    with pytest.raises(Mistake, match="this certificate is for another key"):
        join(tmp_path / "stranger", signed["north"])
    with pytest.raises(Mistake, match="has not joined"):
        read_kit(tmp_path / "stranger")
    assert sign(hub, other, new_key=True).exists()


def test_a_name_that_was_not_invited_and_another_project_are_refused(hub, tmp_path):
    create_project(tmp_path / "other", "heart", "hub.example.org", 8443, ["north", "east"])
    stranger = request(tmp_path / "other/invitations/east.toml", tmp_path / "east")
    with pytest.raises(Mistake, match="'east', which is not invited"):
        sign(hub, stranger)
    file = request(hub / "invitations/north.toml", tmp_path / "north")
    with pytest.raises(Mistake, match="is of another project"):
        join(tmp_path / "north", sign(tmp_path / "other", file))


@pytest.mark.parametrize(
    ("name", "host", "port", "silos", "why"),
    [
        ("Heart", "a", 1, ["north"], "small letters"),
        ("heart", "a:1", 1, ["north"], "a host name"),
        ("heart", "a", 0, ["north"], "from 1 to 65535"),
        ("heart", "a", 1, ["north", "north"], "names that differ"),
        ("heart", "a", 1, ["coordinator"], "another name than"),
        ("heart", "a", 1, ["../north"], "small letters"),
    ],
)
def test_names_that_cannot_be_used(tmp_path, name, host, port, silos, why):
    with pytest.raises(Mistake, match=why):
        create_project(tmp_path / "hub", name, host, port, silos)
    assert not (tmp_path / "hub").exists()


def test_damaged_files_are_refused_in_a_sentence(hub, tmp_path):
    bad = tmp_path / "bad"
    bad.write_bytes(b"\xff\x00")
    for call in (
        lambda: request(bad, tmp_path / "kit"),
        lambda: sign(hub, bad),
        lambda: sign(hub, tmp_path / "x"),
    ):
        with pytest.raises(Mistake):
            call()
    file = request(hub / "invitations/north.toml", tmp_path / "north")
    with pytest.raises(Mistake, match="is not what coterie deploy sign wrote"):
        join(tmp_path / "north", file)
