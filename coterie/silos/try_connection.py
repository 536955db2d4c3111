"""Try whether a silo reaches the coordinator: through the proxy, with the certificates of both ends."""

from __future__ import annotations

import os
import socket
import ssl
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import proxy_bypass

from coterie.core.errors import reason
from coterie.silos.project import read_kit

SECONDS = 10.0
_PROXY_VARIABLES = ("grpc_proxy", "https_proxy", "http_proxy")
"""Where gRPC, which carries the messages, looks for a proxy, in this order."""
_HELLO = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes([0, 0, 0, 4, 0, 0, 0, 0, 0])
"""How a connection of HTTP/2 begins, with no settings: the other end answers with its own."""


def try_connection(kit: Path) -> tuple[bool, str]:
    """Return whether the coordinator was reached and took the silo's certificate, and a sentence.

    Args:
        kit: of a silo that has joined a project.

    Raises:
        Mistake: the kit is not complete.
    """
    invitation, _ = read_kit(kit)
    where = f"{invitation.host}:{invitation.port}"
    proxy = _find_proxy(invitation.host)
    by = f" through {proxy[0]}:{proxy[1]}" if proxy else ""
    try:
        with _dial(invitation.host, invitation.port, proxy) as plain, _wrap(kit, plain, invitation.host) as line:
            line.sendall(_HELLO)
            if not line.recv(9):
                return False, f"{where}{by} ended the connection: it does not know this silo's certificate"
    except ssl.SSLCertVerificationError as error:
        return (
            False,
            f"{where}{by} is not the coordinator of the invitation, or this clock is wrong ({error.verify_message})",
        )
    except ssl.SSLError as error:
        return False, f"{where}{by} refuses this silo's certificate ({error.reason or reason(error)})"
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or reason(error)
        return False, f"{where} is not reached{by} ({why}); does `coterie deploy run` wait there, and is the port open?"
    return True, f"{where} is reached{by}, and both certificates are right"


def _find_proxy(host: str) -> tuple[str, int] | None:
    """Return the proxy that the environment names for a host."""
    found = next((os.environ[name] for name in _PROXY_VARIABLES if os.environ.get(name)), None)
    if found is None or proxy_bypass(host):
        return None
    parts = urlsplit(found if "//" in found else f"http://{found}")
    return parts.hostname or "", parts.port or 80


def _dial(host: str, port: int, proxy: tuple[str, int] | None) -> socket.socket:
    """Connect, through a proxy if there is one.

    Raises:
        OSError: nobody answers, or the proxy does not let this through.
    """
    line = socket.create_connection(proxy or (host, port), SECONDS)
    if proxy is None:
        return line
    line.sendall(f"CONNECT {host}:{port} HTTP/1.1\r\nHost: {host}:{port}\r\n\r\n".encode())
    answer = b""
    while b"\r\n\r\n" not in answer and len(answer) < 2**14:
        more = line.recv(1)
        if not more:
            break
        answer += more
    first = answer.split(b"\r\n")[0].decode(errors="replace")
    if " 200" not in first:
        line.close()
        raise OSError(f"the proxy answers {first or 'nothing'}")
    return line


def _wrap(kit: Path, plain: socket.socket, host: str) -> ssl.SSLSocket:
    """Begin TLS with the certificates of a kit."""
    startup = kit / "startup"
    context = ssl.create_default_context(cafile=str(startup / "rootCA.pem"))
    context.load_cert_chain(startup / "client.crt", startup / "client.key")
    context.set_alpn_protocols(["h2"])
    return context.wrap_socket(plain, server_hostname=host)
