"""Keys: a participant signs what it sends with its private key (Ed25519), and all others hold its public key.

The private key is made at the participant and stays there, in a file that only its user can read. The package
`cryptography` is imported here alone.
"""

from __future__ import annotations

import base64
import os
import stat
from pathlib import Path
from typing import Any

from coterie.core.errors import Mistake
from coterie.core.packages import import_package

PREFIX = "ed25519:"
"""What a public key begins with, in a roster."""

_OTHERS = stat.S_IRWXG | stat.S_IRWXO


class PrivateKey:
    """A participant's own key."""

    def __init__(self, key: Any) -> None:
        self._key = key

    def sign(self, data: bytes) -> bytes:
        """Return the signature of some bytes, 64 bytes; the same for the same bytes."""
        return bytes(self._key.sign(data))

    @property
    def public_key(self) -> str:
        """The public key, as a roster has it."""
        return PREFIX + base64.b64encode(self._key.public_key().public_bytes_raw()).decode()


def _ed25519() -> Any:
    """Return the package's module of keys.

    Raises:
        Mistake: it is not installed.
    """
    return import_package("cryptography.hazmat.primitives.asymmetric.ed25519", "a signed mailbox", "deploy")


def _serialization() -> Any:
    return import_package("cryptography.hazmat.primitives.serialization", "a signed mailbox", "deploy")


def make_key(path: Path) -> PrivateKey:
    """Make a private key and write it, for its owner's eyes alone.

    Raises:
        Mistake: there is a file already, or it cannot be written.
    """
    forms, key = _serialization(), _ed25519().Ed25519PrivateKey.generate()
    text = key.private_bytes(forms.Encoding.PEM, forms.PrivateFormat.PKCS8, forms.NoEncryption())
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:  # noqa: PTH123
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
    except FileExistsError as error:
        raise Mistake(f"{path}: there is a key already; use it, or name another file with --key") from error
    except OSError as error:
        raise Mistake(f"{path}: the key cannot be written ({error.strerror}); name another file with --key") from error
    return PrivateKey(key)


def load_key(path: Path) -> PrivateKey:
    """Read a private key.

    Raises:
        Mistake: it is not there, others can read it, or it is damaged.
    """
    try:
        mode, text = path.stat().st_mode, path.read_bytes()
    except OSError as error:
        raise Mistake(
            f"{path}: the private key cannot be read ({error.strerror}); make one with `coterie peer-key`"
        ) from (error)
    if os.name == "posix" and mode & _OTHERS:
        raise Mistake(f"{path}: others can read this private key; chmod 600 it, or make a new one")
    try:
        key = _serialization().load_pem_private_key(text, password=None)
    except (ValueError, TypeError) as error:
        raise Mistake(f"{path}: is not a private key without a password; make one with `coterie peer-key`") from error
    if not isinstance(key, _ed25519().Ed25519PrivateKey):
        raise Mistake(f"{path}: is a key of another kind; make one with `coterie peer-key`")
    return PrivateKey(key)


def require_public(text: str) -> str:
    """Return a public key unchanged.

    Raises:
        Mistake: it is none.
    """
    try:
        raw = base64.b64decode(text.removeprefix(PREFIX), validate=True)
    except ValueError:
        raw = b""
    if not text.startswith(PREFIX) or len(raw) != 32:
        raise Mistake(
            f'{text!r} is not a public key; one looks like "{PREFIX}..." and has 44 characters after the colon'
        )
    return text


def is_signed_by(public_key: str, signature: bytes, data: bytes) -> bool:
    """Return whether the owner of a public key has signed these bytes."""
    invalid = import_package("cryptography.exceptions", "a signed mailbox", "deploy").InvalidSignature
    key = _ed25519().Ed25519PublicKey.from_public_bytes(base64.b64decode(public_key.removeprefix(PREFIX)))
    try:
        key.verify(signature, data)
    except (invalid, ValueError):
        return False
    return True
