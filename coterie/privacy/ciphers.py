"""The cryptography of a secure sum, all of it by the package `cryptography`, which is imported here alone.

    a pair of keys      X25519 (RFC 7748)
    what two agree on   HKDF-SHA256 (RFC 5869) of the X25519 secret, bound to what it is for
    a mask from a seed  the key stream of AES-256 in counter mode, from counter 0; a seed serves once
    a sealed message    AES-256-GCM, bound to sender and receiver

Keys and seeds come from the operating system's generator. They never change the sum, so a run repeats without them.
"""

from __future__ import annotations

import functools
import json
import os
from collections.abc import Iterator
from typing import Any

import numpy as np

from coterie.core.packages import import_package
from coterie.privacy.fixed_point import Residues

KEY_BYTES = 32
"""Of a private key, a public key and a seed."""
_NONCE_BYTES = 12
_BLOCK = 2**17  # bytes of key stream that are made at a time: they stay in a core's cache until they are used
_MARGIN = 15  # bytes beyond what it writes that the cipher asks for


class NotAuthentic(ValueError):
    """A sealed message that its supposed sender has not sealed for this receiver, or a public key that is none."""


@functools.cache
def _module(name: str) -> Any:
    return import_package(f"cryptography.{name}", "secure_sum", "privacy", True)


def make_seed() -> bytes:
    """Return 32 random bytes of the operating system."""
    return os.urandom(KEY_BYTES)


class KeyPair:
    """A private key and its public key.

    Args:
        private: 32 bytes; new random ones by default.

    Attributes:
        private, public_key: 32 bytes each.
    """

    def __init__(self, private: bytes | None = None) -> None:
        self.private = make_seed() if private is None else private
        self._key = _module("hazmat.primitives.asymmetric.x25519").X25519PrivateKey.from_private_bytes(self.private)
        self.public_key = bytes(self._key.public_key().public_bytes_raw())

    def agree(self, other_public: bytes, *purpose: object) -> bytes:
        """Return the 32 bytes that the owners of two pairs of keys share, and nobody else, for one purpose.

        Raises:
            NotAuthentic: the other public key is not one.
        """
        curve = _module("hazmat.primitives.asymmetric.x25519")
        try:
            secret = self._key.exchange(curve.X25519PublicKey.from_public_bytes(other_public))
        except ValueError as error:  # of another length, or a point that gives everyone the same secret
            raise NotAuthentic("a public key cannot be used") from error
        derive, sha256 = _module("hazmat.primitives.kdf.hkdf").HKDF, _module("hazmat.primitives.hashes").SHA256()
        return bytes(derive(algorithm=sha256, length=KEY_BYTES, salt=None, info=_text(*purpose)).derive(secret))


def expand(seed: bytes, numbers: int) -> Residues:
    """Return the mask of a seed: residues [numbers], uniform to whoever does not know the seed."""
    out = np.empty(numbers, np.uint64)
    for start, piece in expand_in_pieces(seed, numbers):
        out[start : start + len(piece)] = piece
    return out


def expand_in_pieces(seed: bytes, numbers: int) -> Iterator[tuple[int, Residues]]:
    """Yield the mask of a seed [numbers], piece by piece: where a piece starts, and the piece, valid until the next."""
    ciphers = _module("hazmat.primitives.ciphers")
    stream = ciphers.Cipher(ciphers.algorithms.AES(seed), ciphers.modes.CTR(bytes(16))).encryptor()
    zeros, out = memoryview(bytes(_BLOCK)), bytearray(_BLOCK + _MARGIN)
    residues = np.frombuffer(out, "<u8", _BLOCK // 8)
    for start in range(0, numbers, len(residues)):
        piece = residues[: numbers - start]
        stream.update_into(zeros[: piece.nbytes], out)
        yield start, piece


def seal(key: bytes, content: bytes, *purpose: object) -> bytes:
    """Return content that only who knows the key can read or make."""
    nonce = os.urandom(_NONCE_BYTES)
    return nonce + bytes(_aead(key).encrypt(nonce, content, _text(*purpose)))


def unseal(key: bytes, sealed: bytes, *purpose: object) -> bytes:
    """Return the content of a sealed message.

    Raises:
        NotAuthentic: it was not sealed with this key and for this purpose.
    """
    invalid = _module("exceptions").InvalidTag
    try:
        return bytes(_aead(key).decrypt(sealed[:_NONCE_BYTES], sealed[_NONCE_BYTES:], _text(*purpose)))
    except (invalid, ValueError) as error:
        raise NotAuthentic("a sealed message was changed, or is another one's") from error


def _aead(key: bytes) -> Any:
    return _module("hazmat.primitives.ciphers.aead").AESGCM(key)


def _text(*purpose: object) -> bytes:
    """Return a purpose as bytes, so that two purposes never give the same."""
    return json.dumps([str(word) for word in purpose]).encode()
