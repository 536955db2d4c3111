"""The folders of a project: who may take part, and how each gets a certificate without its key ever travelling.

    coordinator                                  silo
    create_project, invite  ── invitation ──▶    request: makes the key
    sign                    ◀── request ─────
                            ── certificate ─▶    join: checked against the invitation

An invitation says where the coordinator is and which root certificate is the right one, by its digest. So it should
reach the silo by a way that both trust; the other two files may go by any.
"""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Iterable
from dataclasses import asdict, dataclass, fields
from datetime import datetime
from pathlib import Path
from typing import Any, TypeVar

from coterie.core.errors import Mistake, require
from coterie.core.files import write_atomic
from coterie.core.toml_text import toml_text
from coterie.silos import certificates
from coterie.silos.nvflare_kit import (
    CONSOLE,
    CONSOLE_ROLE,
    COORDINATOR,
    write_console_kit,
    write_coordinator_kit,
    write_silo_kit,
)
from coterie.silos.revoke import require_not_revoked

_T = TypeVar("_T", bound="Project")
PROJECT_FILE = "project.toml"
_NAME = re.compile(r"[a-z][a-z0-9-]{0,39}")
_RESERVED = frozenset({COORDINATOR, CONSOLE, "server", "client", "all", "admin"})
_LOOPBACK = ("localhost", "127.0.0.1")
_KEY, _CERTIFICATE, _ROOT = "startup/client.key", "startup/client.crt", "startup/rootCA.pem"


@dataclass(frozen=True)
class Project:
    """What a project's folder says about itself.

    Args:
        name: of the project.
        host, port: where silos reach the coordinator.
        root: SHA-256 digest of the root certificate, as hexadecimal digits.
    """

    name: str
    host: str
    port: int
    root: str


@dataclass(frozen=True)
class Invitation(Project):
    """What a silo is told; see `Project`.

    Args:
        silo: its name.
    """

    silo: str


def create_project(folder: Path, name: str, host: str, port: int, silos: Iterable[str]) -> Project:
    """Make a project's root of trust, the coordinator's kit, and an invitation for each silo.

    The folder then holds `project.toml`, `root/`, `coordinator/`, `console/` and `invitations/SILO.toml`. It is what
    the whole project trusts: keep it where no one else can read it.

    Raises:
        Mistake: a name, the host or the port is not usable, or the folder has a project already.
        OSError: the folder cannot be written.
    """
    silos = list(silos)
    _check_name("project", name)
    for silo in silos:
        _check_silo(silo)
    require("silos", silos, len(set(silos)) == len(silos), "names that differ")
    require("host", host, bool(host) and ":" not in host and not host.isspace(), "a host name or an IPv4 address")
    require("port", port, 0 < port < 65536, "from 1 to 65535")
    if (folder / PROJECT_FILE).exists():
        raise Mistake(f"{folder}: has a project already; choose another folder, or invite silos to it")
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    root_key = certificates.make_key()
    root = certificates.make_root(root_key, name)
    _write_secret(folder / "root/key.pem", root_key)
    write_atomic(folder / "root/certificate.pem", root)
    write_coordinator_kit(folder / "coordinator", name, host, port)
    write_console_kit(folder / "console", name, "localhost", port)
    renew_coordinator(folder, (host, *_LOOPBACK))
    project = Project(name, host, port, certificates.fingerprint(root))
    for silo in silos:
        _write_table(folder / f"invitations/{silo}.toml", asdict(Invitation(**asdict(project), silo=silo)))
    _write_table(folder / PROJECT_FILE, asdict(project))  # last: a folder without it is not a project
    return project


def read_project(folder: Path) -> Project:
    """Read a project's folder.

    Raises:
        Mistake: it is not one.
    """
    return _read_table(folder / PROJECT_FILE, Project, "make a project with coterie deploy init")


def list_silos(folder: Path) -> tuple[str, ...]:
    """Return the silos of a project, sorted."""
    return tuple(sorted(file.stem for file in (folder / "invitations").glob("*.toml")))


def silos_with_certificate(folder: Path) -> tuple[str, ...]:
    """Return the silos of a project whose requests were signed, sorted."""
    return tuple(sorted(file.name.partition(".")[0] for file in (folder / "certificates").glob("*.certificate.pem")))


def invite(folder: Path, silo: str) -> Path:
    """Add a silo to a project, without touching the others, and return its invitation's file.

    Raises:
        Mistake: the name is not usable or was revoked, or the folder has no project.
        OSError: the folder cannot be written.
    """
    _check_silo(silo)
    require_not_revoked(folder, silo)
    file = folder / f"invitations/{silo}.toml"
    _write_table(file, asdict(Invitation(**asdict(read_project(folder)), silo=silo)))
    return file


def request(invitation: Path, kit: Path) -> Path:
    """At a silo: make its key, unless its kit has one, and return the file of a signing request.

    To renew a certificate, call it again with the same kit.

    Raises:
        Mistake: the invitation is unusable, or the kit is another silo's.
        OSError: the kit cannot be written.
    """
    found = read_invitation(invitation)
    if (kit / "invitation.toml").exists() and read_invitation(kit / "invitation.toml") != found:
        raise Mistake(f"{kit}: belongs to another invitation; use a folder of its own for each")
    kit.mkdir(parents=True, exist_ok=True, mode=0o700)
    _write_table(kit / "invitation.toml", asdict(found))
    if not (kit / _KEY).exists():
        _write_secret(kit / _KEY, certificates.make_key())
    file = kit / f"{found.silo}.request.pem"
    write_atomic(file, certificates.make_request((kit / _KEY).read_bytes(), found.silo))
    return file


def sign(folder: Path, request: Path, *, days: int = certificates.CERTIFICATE_DAYS, new_key: bool = False) -> Path:
    """At the coordinator: sign a silo's request, and return the file that the silo joins with.

    Args:
        folder: of the project.
        request: what the silo sent.
        days: how long the certificate lives.
        new_key: allow a silo that has a certificate to change its key, after asking its people whether they did.

    Raises:
        Mistake: the request is unusable, its name was not invited, or has a certificate for another key; or its name or
            key was revoked.
        OSError: the folder cannot be written.
    """
    text = _read(request, "ask the silo for its request")
    if b"-----BEGIN CERTIFICATE REQUEST-----" not in text:
        raise Mistake(
            f"{request}: holds no request; ask the silo for the NAME.request.pem that coterie deploy request made"
        )
    silo = certificates.name_in_request(text)
    require_not_revoked(folder, silo, text)
    if silo not in list_silos(folder):
        raise Mistake(
            f"{request}: asks for {silo!r}, which is not invited; invite it with coterie deploy invite, or ask who "
            "sent this"
        )
    kept = folder / f"requests/{silo}.pem"
    if kept.exists() and not new_key:
        known = certificates.key_fingerprint(kept.read_bytes())
        if known != certificates.key_fingerprint(text):
            raise Mistake(
                f"{request}: {silo!r} has a certificate for another key; ask its people whether they made a new one, "
                "and then sign it with --new-key"
            )
    root_key, root = (folder / "root/key.pem").read_bytes(), (folder / "root/certificate.pem").read_bytes()
    certificate = certificates.sign_request(root_key, root, text, days=days)
    write_atomic(kept, text)
    file = folder / f"certificates/{silo}.certificate.pem"
    write_atomic(file, certificate + root)
    return file


def join(kit: Path, certificate: Path) -> datetime:
    """At a silo: complete its kit with the certificate that the coordinator sent, and return when it ends.

    Raises:
        Mistake: the certificate is another silo's, for another key, or of another project than the invitation's.
        OSError: the kit cannot be written.
    """
    found = read_invitation(kit / "invitation.toml")
    parts = re.findall(
        rb"-----BEGIN CERTIFICATE-----.*?-----END CERTIFICATE-----\n?",
        _read(certificate, "ask the coordinator for it"),
        re.DOTALL,
    )
    if len(parts) != 2:
        raise Mistake(f"{certificate}: is not what coterie deploy sign wrote; ask the coordinator to send it again")
    own, root = parts
    if certificates.fingerprint(root) != found.root:
        raise Mistake(f"{certificate}: is of another project than the invitation; ask the coordinator which is right")
    ends = certificates.check_certificate(own, root, (kit / _KEY).read_bytes(), found.silo)
    write_silo_kit(kit, found.name, found.silo, found.host, found.port)
    write_atomic(kit / _ROOT, root)
    write_atomic(kit / _CERTIFICATE, own)  # last: a kit with it is complete
    return ends


def read_kit(kit: Path) -> tuple[Invitation, datetime]:
    """Return the invitation of a silo's complete kit, and when its certificate ends, after checking that they fit.

    Raises:
        Mistake: the kit is not complete, or its certificate does not fit or has ended.
    """
    found = read_invitation(kit / "invitation.toml")
    for name in (_KEY, _CERTIFICATE, _ROOT):
        if not (kit / name).exists():
            raise Mistake(f"{kit}: has not joined {found.name!r} yet; use coterie deploy request, and then join")
    root, own, key = ((kit / name).read_bytes() for name in (_ROOT, _CERTIFICATE, _KEY))
    if certificates.fingerprint(root) != found.root:
        raise Mistake(f"{kit / _ROOT}: is not the root certificate of the invitation; join again")
    return found, certificates.check_certificate(own, root, key, found.silo)


def read_invitation(file: Path) -> Invitation:
    """Read an invitation.

    Raises:
        Mistake: it is not one.
    """
    found = _read_table(file, Invitation, "ask the coordinator for the invitation")
    _check_silo(found.silo)
    return found


def renew_coordinator(folder: Path, hosts: tuple[str, ...] = ()) -> None:
    """Give the coordinator's process and the run's connection to it new keys and certificates.

    Args:
        folder: of the project.
        hosts: names under which silos reach the coordinator; those of the project where it is left out.

    Raises:
        Mistake: the root of trust has ended.
        OSError: the folder cannot be written.
    """
    hosts = tuple(dict.fromkeys(hosts or (read_project(folder).host, *_LOOPBACK)))
    root_key, root = (folder / "root/key.pem").read_bytes(), (folder / "root/certificate.pem").read_bytes()
    server, console = folder / "coordinator/startup", folder / "console/startup"
    for startup, file, name, role, names in (
        (server, "server", COORDINATOR, "", hosts),
        (console, "client", CONSOLE, CONSOLE_ROLE, ()),
    ):
        key = certificates.make_key()
        request = certificates.make_request(key, name)
        signed = certificates.sign_request(root_key, root, request, days=certificates.ROOT_DAYS, role=role, hosts=names)
        _write_secret(startup / f"{file}.key", key)
        write_atomic(startup / f"{file}.crt", signed)
        write_atomic(startup / "rootCA.pem", root)


def join_all(folder: Path, kits: Path, silos: Iterable[str]) -> dict[str, Path]:
    """Make the kits of several silos on this machine, as in a rehearsal, by the same steps as between machines.

    Raises:
        Mistake: as `request`, `sign` and `join` raise it.
        OSError: a folder cannot be written.
    """
    made = {}
    for silo in silos:
        made[silo] = kits / silo
        file = request(folder / f"invitations/{silo}.toml", made[silo])
        join(made[silo], sign(folder, file))
    return made


def _check_name(key: str, name: str) -> None:
    """Refuse a name that a certificate or a folder cannot have."""
    allowed = "1 to 40 small letters, digits and hyphens, a letter first"
    require(key, name, bool(_NAME.fullmatch(name)), allowed)


def is_silo_name(name: str) -> bool:
    """Return whether a silo can have this name."""
    return bool(_NAME.fullmatch(name)) and name not in _RESERVED


def _check_silo(silo: str) -> None:
    """Refuse a name that a silo cannot have."""
    _check_name("silo", silo)
    require("silo", silo, silo not in _RESERVED, f"another name than {', '.join(sorted(_RESERVED))}")


def _write_secret(file: Path, data: bytes) -> None:
    """Write a file that only this user may read."""
    file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    before = os.umask(0o077)
    try:
        write_atomic(file, data)
    finally:
        os.umask(before)


def _write_table(file: Path, table: dict[str, Any]) -> None:
    """Write a TOML file of plain values."""
    write_atomic(file, "".join(f"{key} = {toml_text(value)}\n" for key, value in table.items()).encode())


def _read_table(file: Path, kind: type[_T], what_to_do: str) -> _T:
    """Read a TOML file into a dataclass of text and whole numbers.

    Raises:
        Mistake: the file is not there, or is something else.
    """
    try:
        table = tomllib.loads(_read(file, what_to_do).decode())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise Mistake(f"{file}: is damaged ({error}); {what_to_do}") from error
    types = {each.name: int if each.name == "port" else str for each in fields(kind)}
    if table.keys() != types.keys() or not all(isinstance(table[key], kept) for key, kept in types.items()):
        raise Mistake(f"{file}: must have {', '.join(types)}, and nothing else; {what_to_do}")
    return kind(**table)


def _read(file: Path, what_to_do: str) -> bytes:
    """Read a small file.

    Raises:
        Mistake: it cannot be read.
    """
    try:
        with file.open("rb") as stream:
            return stream.read(1 << 20)
    except OSError as error:
        raise Mistake(f"{file}: cannot be read ({error.strerror}); {what_to_do}") from error
