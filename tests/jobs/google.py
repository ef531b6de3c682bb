"""As much of Google as a prediction container sees: a metadata server, and Cloud Storage behind a proxy, with TLS of its own."""

from __future__ import annotations

import json
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

STORAGE = "storage.googleapis.com"
TOKEN = "ya29.of-the-job"


@dataclass
class Google:
    objects: dict[str, bytes]  # by bucket/name
    environment: dict[str, str] = field(default_factory=dict)
    faults: list[int | str] = field(default_factory=list)  # answers to come first: an HTTP status, or "cut"
    asked: list[str] = field(default_factory=list)  # through the proxy


def certificate(folder: Path) -> Path:
    """A certificate of Cloud Storage that vouches for itself, and its key, in one file."""
    key = ec.generate_private_key(ec.SECP256R1())
    name, now = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "tests")]), datetime.now(UTC)
    built = (
        x509
        .CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(STORAGE)]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    private = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    path = folder / "google.pem"
    path.write_bytes(built.public_bytes(serialization.Encoding.PEM) + private)
    return path


@contextmanager
def google(objects: dict[str, bytes], folder: Path) -> Iterator[Google]:
    """Google on this machine; its environment is what a container must have to find it."""
    cloud, pem = Google(objects), certificate(folder)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pem)

    class Proxy(BaseHTTPRequestHandler):
        """Every connection through it ends at Cloud Storage."""

        protocol_version = "HTTP/1.1"

        def do_CONNECT(self) -> None:
            cloud.asked.append(self.path)
            self.send_response(200)
            self.end_headers()
            self.connection = context.wrap_socket(self.connection, server_side=True)
            self.rfile, self.wfile = self.connection.makefile("rb"), self.connection.makefile("wb", 0)
            self.close_connection = False

        def do_GET(self) -> None:
            cloud.asked.append(self.path)
            status, content = self._found()
            fault = cloud.faults.pop(0) if cloud.faults else None
            self.send_response(fault if isinstance(fault, int) else status)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content[: len(content) // 2] if fault == "cut" else content)
            self.close_connection = True

        def _found(self) -> tuple[int, bytes]:
            parts = urlsplit(self.path)
            pieces = parts.path.split("/")
            if self.headers["Authorization"] != f"Bearer {TOKEN}" or self.headers["Host"] != STORAGE:
                return 401, b"{}"
            if pieces[:4] != ["", "storage", "v1", "b"] or pieces[5:-1] != ["o"] or parse_qs(parts.query) != {"alt": ["media"]}:
                return 501, b"{}"
            content = cloud.objects.get(f"{pieces[4]}/{unquote(pieces[6])}")
            return (404, b"{}") if content is None else (200, content)

        def log_message(self, *_: Any) -> None: ...

    class Metadata(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            known = self.path == "/computeMetadata/v1/instance/service-accounts/default/token"
            self.send_response(200 if known and self.headers["Metadata-Flavor"] == "Google" else 403)
            self.end_headers()
            self.wfile.write(json.dumps({"access_token": TOKEN, "expires_in": 3600, "token_type": "Bearer"}).encode())

        def log_message(self, *_: Any) -> None: ...

    with ThreadingHTTPServer(("127.0.0.1", 0), Proxy) as proxy, ThreadingHTTPServer(("127.0.0.1", 0), Metadata) as metadata:
        servers = (proxy, metadata)
        threads = [threading.Thread(target=one.serve_forever, kwargs={"poll_interval": 0.01}) for one in servers]
        for thread in threads:
            thread.start()
        through = f"http://127.0.0.1:{proxy.server_port}"
        # The metadata server is asked without a proxy, whatever there is.
        cloud.environment |= {"HTTPS_PROXY": through, "https_proxy": through, "HTTP_PROXY": through, "http_proxy": through}
        cloud.environment |= {"NO_PROXY": "", "no_proxy": "", "SSL_CERT_FILE": str(pem)}
        cloud.environment["GCE_METADATA_HOST"] = f"127.0.0.1:{metadata.server_port}"
        try:
            yield cloud
        finally:
            for one in servers:
                one.shutdown()
            for thread in threads:
                thread.join()
