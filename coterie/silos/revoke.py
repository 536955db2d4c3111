"""Silos that may take part no more, since they left or their key was stolen.

`revoked/NAME/` in the project's folder holds what a silo had: its invitation, request and certificate. A revoked name
never comes back, and neither does its key under another name: the old certificate stays valid by its signature, so the
coordinator's process refuses the name.
"""

from __future__ import annotations

from pathlib import Path

from coterie.core.errors import Mistake, few
from coterie.silos import certificates

REVOKED = "revoked"


def revoke(folder: Path, silo: str) -> Path:
    """Revoke a silo, without touching the others, and return the folder with what it had.

    A run that goes on asks it no more from its next look on. Called again, it completes what was interrupted.

    Args:
        folder: of the project.
        silo: its name.

    Raises:
        Mistake: there is no such silo.
        OSError: the folder cannot be written.
    """
    had = {
        folder / f"certificates/{silo}.certificate.pem": "certificate.pem",
        folder / f"requests/{silo}.pem": "request.pem",
        folder / f"invitations/{silo}.toml": "invitation.toml",
    }
    invited = sorted(file.stem for file in (folder / "invitations").glob("*.toml"))
    if silo not in invited and silo not in list_revoked(folder):
        raise Mistake(f"the project has no silo {silo!r}; there are {few(invited, 10) or 'none'}")
    kept = folder / REVOKED / silo
    kept.mkdir(parents=True, exist_ok=True)  # from now on it is revoked
    for file, name in had.items():
        if file.exists():
            file.replace(kept / name)
    return kept


def list_revoked(folder: Path) -> frozenset[str]:
    """Return the silos of a project that were revoked."""
    return frozenset(each.name for each in (folder / REVOKED).glob("*/"))


def require_not_revoked(folder: Path, silo: str, request: bytes | None = None) -> None:
    """Refuse a name that was revoked, or a request by a key that was.

    Raises:
        Mistake: it was.
    """
    if silo in list_revoked(folder):
        raise Mistake(f"{silo!r} was revoked, and its name never comes back; invite it by another, such as {silo}-2")
    if request is None:
        return
    key = certificates.key_fingerprint(request)
    for file in sorted((folder / REVOKED).glob("*/request.pem")):
        if certificates.key_fingerprint(file.read_bytes()) == key:
            raise Mistake(
                f"the key of this request was that of {file.parent.name!r}, which was revoked; let the silo make a "
                "new one, by coterie deploy request in a new folder"
            )
