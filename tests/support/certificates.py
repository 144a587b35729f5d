"""Certificates as hospitals have them, and TLS servers that refuse in the ways real ones do."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
import trustme
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from tests.support.faulty_server import unused_port

__all__ = ["Authority", "locked", "nginx", "openssl", "self_signed", "tls_server"]

Format = serialization.PrivateFormat


@dataclass
class Authority:
    """An authority of the tests with its files."""

    folder: Path
    ca: trustme.CA = field(default_factory=trustme.CA)

    def __post_init__(self) -> None:
        self.folder.mkdir(exist_ok=True)
        self.ca_file = self.folder / "ca.pem"
        self.ca.cert_pem.write_to_path(self.ca_file)

    def server(
        self,
        *names: str,
        wants_client: bool = False,
        not_before: datetime | None = None,
        not_after: datetime | None = None,
    ) -> ssl.SSLContext:
        """Return what a server needs that answers to these names."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.ca.issue_cert(*names, not_before=not_before, not_after=not_after).configure_cert(context)
        if wants_client:
            self.ca.configure_trust(context)
            context.verify_mode = ssl.CERT_REQUIRED
        return context

    def client_files(self, password: bytes | None = None, form: Format = Format.PKCS8) -> tuple[Path, Path]:
        """Return a client certificate and its key, in files of their own."""
        cert = self.ca.issue_cert("client@hospital.example")
        certificate, key = self.folder / "client.pem", self.folder / "client.key"
        certificate.write_bytes(b"".join(blob.bytes() for blob in cert.cert_chain_pems))
        key.write_bytes(cert.private_key_pem.bytes() if password is None else locked(cert, password, form))
        return certificate, key

    def server_files(self, *names: str) -> tuple[Path, Path]:
        """Return a server's certificate with its chain, and its key."""
        cert = self.ca.issue_cert(*names)
        certificate, key = self.folder / "server.pem", self.folder / "server.key"
        certificate.write_bytes(b"".join(blob.bytes() for blob in cert.cert_chain_pems))
        key.write_bytes(cert.private_key_pem.bytes())
        return certificate, key


def locked(cert: trustme.LeafCert, password: bytes, form: Format = Format.PKCS8) -> bytes:
    """Return a certificate's key, encrypted."""
    return load_pem_private_key(cert.private_key_pem.bytes(), None).private_bytes(
        serialization.Encoding.PEM, form, serialization.BestAvailableEncryption(password)
    )


def openssl(*arguments: str | Path) -> None:
    """Run the command."""
    program = shutil.which("openssl") or pytest.skip("openssl is not installed")
    subprocess.run([program, *map(str, arguments)], check=True, capture_output=True, timeout=60)


def self_signed(folder: Path, subject: str, *extensions: str) -> tuple[Path, ssl.SSLContext]:
    """Make a certificate as ``openssl req -x509`` does by itself: CA:TRUE; return its file and a server's context."""
    certificate, key = folder / "self.pem", folder / "self.key"
    added = [part for one in extensions for part in ("-addext", one)]
    made = ["-subj", subject, "-out", str(certificate), "-keyout", str(key), *added]
    openssl("req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "30", *made)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    return certificate, context


# --- servers --------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def tls_server(
    context: ssl.SSLContext, then: Callable[[ssl.SSLSocket, socket.socket], None] = lambda _tls, _raw: None
) -> Iterator[str]:
    """Run a server of blocking sockets; give its address.

    A handshake that fails is told the client in an alert, which asyncio's servers do not do, and what the client sends
    all the same is read, so that the alert gets there.
    """
    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.settimeout(0.1)
        ended = threading.Event()

        def serve() -> None:
            while not ended.is_set():
                with contextlib.suppress(TimeoutError):
                    _serve_one(listening.accept()[0], context, then)

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield f"https://127.0.0.1:{listening.getsockname()[1]}"
        finally:
            ended.set()
            thread.join(10)


def _serve_one(
    raw: socket.socket, context: ssl.SSLContext, then: Callable[[ssl.SSLSocket, socket.socket], None]
) -> None:
    raw.settimeout(5)
    # A second handle on the connection: the first closes it when the handshake fails.
    with contextlib.suppress(OSError), socket.socket(fileno=os.dup(raw.fileno())) as other:
        other.settimeout(2)
        with contextlib.suppress(OSError), context.wrap_socket(raw, server_side=True) as secure:
            then(secure, other)
        other.shutdown(socket.SHUT_WR)
        while other.recv(65536):
            pass


_NGINX = """
daemon off; pid {folder}/pid; error_log {folder}/errors; worker_processes 1; events {{}}
http {{
  access_log off; client_body_temp_path {folder}/1; proxy_temp_path {folder}/2; fastcgi_temp_path {folder}/3;
  uwsgi_temp_path {folder}/4; scgi_temp_path {folder}/5;
  server {{
    listen 127.0.0.1:{port} ssl; ssl_certificate {certificate}; ssl_certificate_key {key};
    {more}
    location / {{ return 204; }}
  }}
}}
"""


@contextlib.contextmanager
def nginx(folder: Path, authority: Authority, more: str) -> Iterator[int]:
    """Run nginx as a TLS server with these directives; give its port."""
    program = shutil.which("nginx", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
    if program is None:
        pytest.skip("nginx is not installed")
    folder.mkdir()
    certificate, key = authority.server_files("127.0.0.1")
    port = unused_port()
    values: dict[str, Any] = {"folder": folder, "port": port, "certificate": certificate, "key": key, "more": more}
    (folder / "conf").write_text(_NGINX.format(**values))
    command = [program, "-p", str(folder), "-c", str(folder / "conf"), "-e", str(folder / "errors")]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        try:
            _wait_for(port, process)
            yield port
        finally:
            process.terminate()


def _wait_for(port: int, process: subprocess.Popen[bytes]) -> None:
    until = time.monotonic() + 10
    while time.monotonic() < until:
        assert process.poll() is None, "nginx ended"
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return
        time.sleep(0.02)
    raise AssertionError("nginx does not listen")
