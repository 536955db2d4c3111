"""Keys and certificates of a project: the root of trust, a silo's signing request, and what the root signs.

The key of each party is made where it is used and stays there. A request carries the public key and the silo's name;
the root signs both together, so that nobody can speak under another silo's name. Keys are RSA, since NVFlare signs with
RSA when a silo registers.
"""

from __future__ import annotations

import ipaddress
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Any

from coterie.core.errors import Mistake
from coterie.core.packages import import_package

KEY_BITS = 3072
ROOT_DAYS = 3650
"""How long a root lives; a project ends with it."""

CERTIFICATE_DAYS = 730
"""How long a certificate lives, unless it is told otherwise; it is renewed by signing the silo's request again."""

BACKDATED = timedelta(minutes=5)
"""How long before now a certificate begins, for a silo whose clock is late."""


def make_key() -> bytes:
    """Make a private key and return it as PEM, unencrypted; whoever writes it must keep others from reading it."""
    hazmat = _hazmat()
    key = hazmat.rsa.generate_private_key(public_exponent=65537, key_size=KEY_BITS)
    encoding, nothing = hazmat.serialization.Encoding.PEM, hazmat.serialization.NoEncryption()
    pem: bytes = key.private_bytes(encoding, hazmat.serialization.PrivateFormat.TraditionalOpenSSL, nothing)
    return pem


def make_root(key: bytes, project: str, days: int = ROOT_DAYS) -> bytes:
    """Return a project's root certificate as PEM, signed by its own key."""
    hazmat, private = _hazmat(), _private_key(key)
    x509, name = hazmat.x509, _subject(project)
    usage = dict.fromkeys(_USAGES, False) | {"digital_signature": True, "key_cert_sign": True, "crl_sign": True}
    builder = (
        _builder(name, name, private.public_key(), private.public_key(), days)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(x509.KeyUsage(**usage), critical=True)
    )
    return _sign(builder, private)


def make_request(key: bytes, silo: str) -> bytes:
    """Return a signing request as PEM: a silo's name and public key, signed by its private key."""
    hazmat = _hazmat()
    request = hazmat.x509.CertificateSigningRequestBuilder().subject_name(_subject(silo))
    return _pem(request.sign(_private_key(key), hazmat.hashes.SHA256()))


def name_in_request(request: bytes) -> str:
    """Return the silo that a request is for, after checking that its sender has the key it asks a certificate for.

    Raises:
        Mistake: it is not a request, its signature is wrong, or its key is too weak.
    """
    parsed = _load("request", request)
    if not parsed.is_signature_valid:
        raise Mistake("the signature of this request is wrong; make a new one with coterie deploy request")
    key = parsed.public_key()
    if not isinstance(key, _hazmat().rsa.RSAPublicKey) or key.key_size < 2048:
        raise Mistake("the key of this request is not RSA of 2048 bits or more; make one with coterie deploy request")
    return _common_name(parsed)


def sign_request(
    root_key: bytes,
    root: bytes,
    request: bytes,
    *,
    days: int = CERTIFICATE_DAYS,
    role: str = "",
    hosts: tuple[str, ...] = (),
) -> bytes:
    """Return the certificate for a request as PEM.

    Args:
        root_key, root: the project's key and root certificate.
        request: from `make_request`.
        days: how long it lives, at most as long as the root.
        role: of a person who gives the coordinator's process commands; empty for others.
        hosts: host names and addresses under which the coordinator is reached; empty for a silo.

    Raises:
        Mistake: the request is unusable, or the root has ended.
    """
    hazmat, name = _hazmat(), name_in_request(request)
    x509, issuer = hazmat.x509, _load("root", root)
    if issuer.not_valid_after_utc <= datetime.now(UTC):
        raise Mistake(f"the project's root of trust ended on {issuer.not_valid_after_utc:%Y-%m-%d}; make a new project")
    public_key = _load("request", request).public_key()
    builder = _builder(
        _subject(name, role), issuer.subject, public_key, issuer.public_key(), days, issuer.not_valid_after_utc
    )
    names = [_host(x509, host) for host in hosts] or [x509.DNSName(name)]
    usages = [hazmat.oid.ExtendedKeyUsageOID.SERVER_AUTH] if hosts else []
    builder = (
        builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.ExtendedKeyUsage([*usages, hazmat.oid.ExtendedKeyUsageOID.CLIENT_AUTH]), critical=False)
    )
    return _sign(builder, _private_key(root_key))


def check_certificate(certificate: bytes, root: bytes, key: bytes, silo: str) -> datetime:
    """Check that a certificate is a silo's, for its key, signed by the root; return when it ends.

    Raises:
        Mistake: it is not; the sentence says what to do.
    """
    parsed, issuer = _load("certificate", certificate), _load("root", root)
    try:
        parsed.verify_directly_issued_by(issuer)
    except Exception as error:  # InvalidSignature, or ValueError for another issuer
        raise Mistake("this certificate is not signed by the project's root; ask the coordinator for yours") from error
    if _common_name(parsed) != silo:
        raise Mistake(f"this certificate is for {_common_name(parsed)!r}, and this silo is {silo!r}; ask for your own")
    if parsed.public_key() != _private_key(key).public_key():
        raise Mistake("this certificate is for another key; send the request that was made here, and ask again")
    if parsed.not_valid_before_utc > datetime.now(UTC):
        raise Mistake(
            f"this certificate begins on {parsed.not_valid_before_utc:%Y-%m-%d %H:%M} UTC, which is to come by this "
            "machine's clock; set the clock"
        )
    ends: datetime = parsed.not_valid_after_utc
    if ends <= datetime.now(UTC):
        raise Mistake(f"this certificate ended on {ends:%Y-%m-%d}; ask the coordinator to renew it")
    return ends


def fingerprint(certificate: bytes) -> str:
    """Return the SHA-256 digest of a certificate, as hexadecimal digits, for people to compare."""
    digest: bytes = _load("certificate", certificate).fingerprint(_hazmat().hashes.SHA256())
    return digest.hex()


def key_fingerprint(request: bytes) -> str:
    """Return the SHA-256 digest of a request's public key, as hexadecimal digits, to be compared by telephone."""
    hazmat = _hazmat()
    public_key = _load("request", request).public_key()
    form = hazmat.serialization.PublicFormat.SubjectPublicKeyInfo
    digest = hazmat.hashes.Hash(hazmat.hashes.SHA256())
    digest.update(public_key.public_bytes(hazmat.serialization.Encoding.DER, form))
    value: bytes = digest.finalize()
    return value.hex()


_USAGES = (
    "digital_signature",
    "content_commitment",
    "key_encipherment",
    "data_encipherment",
    "key_agreement",
    "key_cert_sign",
    "crl_sign",
    "encipher_only",
    "decipher_only",
)


class _Hazmat:
    """The modules of the package cryptography that are used here."""

    def __init__(self) -> None:
        package = "cryptography.hazmat.primitives"
        self.x509 = _import("cryptography.x509")
        self.oid = _import("cryptography.x509.oid")
        self.rsa = _import(f"{package}.asymmetric.rsa")
        self.hashes = _import(f"{package}.hashes")
        self.serialization = _import(f"{package}.serialization")


def _hazmat() -> _Hazmat:
    """Import the package cryptography.

    Raises:
        Mistake: it is not installed.
    """
    return _Hazmat()


def _import(module: str) -> Any:
    """Import a module of the package cryptography."""
    return import_package(module, "coterie deploy", "deploy")


def _builder(
    subject: Any, issuer: Any, public_key: Any, issuer_public: Any, days: int, until: datetime | None = None
) -> Any:
    """Return a certificate without its purposes, to be signed; it ends after `days`, and at `until` at the latest."""
    x509, now = _hazmat().x509, datetime.now(UTC)
    end = now + timedelta(days=days)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(public_key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - BACKDATED)
        .not_valid_after(end if until is None else min(end, until))
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public_key), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_public), critical=False)
    )


def _sign(builder: Any, key: Any) -> bytes:
    """Return a certificate as PEM."""
    return _pem(builder.sign(key, _hazmat().hashes.SHA256()))


def _pem(signed: Any) -> bytes:
    """Return a certificate or a request as PEM."""
    pem: bytes = signed.public_bytes(_hazmat().serialization.Encoding.PEM)
    return pem


def _load(what: str, pem: bytes) -> Any:
    """Parse a request or a certificate.

    Raises:
        Mistake: it is not one.
    """
    x509 = _hazmat().x509
    try:
        return x509.load_pem_x509_csr(pem) if what == "request" else x509.load_pem_x509_certificate(pem)
    except ValueError as error:
        raise Mistake(f"this file has no {what} in it, or a damaged one; send it again") from error


@lru_cache(maxsize=16)
def _private_key(pem: bytes) -> Any:
    """Parse a private key; once, since checking one of 3072 bits takes most of a second.

    Raises:
        Mistake: it is not one.
    """
    try:
        return _hazmat().serialization.load_pem_private_key(pem, password=None)
    except (ValueError, TypeError) as error:
        raise Mistake("the key is damaged; make a new one in a new folder, with coterie deploy request") from error


def _subject(name: str, role: str = "") -> Any:
    """Return a name for a certificate, with the organisation that NVFlare wants and a person's role."""
    hazmat = _hazmat()
    x509, oid = hazmat.x509, hazmat.oid.NameOID
    parts = [x509.NameAttribute(oid.COMMON_NAME, name), x509.NameAttribute(oid.ORGANIZATION_NAME, "coterie")]
    return x509.Name(parts + ([x509.NameAttribute(oid.UNSTRUCTURED_NAME, role)] if role else []))


def _common_name(parsed: Any) -> str:
    """Return the name in a request or a certificate; an empty one if it has none."""
    names = parsed.subject.get_attributes_for_oid(_hazmat().oid.NameOID.COMMON_NAME)
    return str(names[0].value) if names else ""


def _host(x509: Any, host: str) -> Any:
    """Return a host name or an address as a certificate holds it."""
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)
