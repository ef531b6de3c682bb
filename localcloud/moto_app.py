"""The one place that touches moto: its WSGI application, which answers for S3, SQS, SNS, SES, CloudWatch, STS and KMS."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any

from moto.moto_server.werkzeug_app import DomainDispatcherApplication, MotoRequestHandler, create_backend_app
from werkzeug.test import run_wsgi_app

ACCOUNT = "123456789012"  # moto's own

# What make_environ() of it adds: metadata of S3 objects whose names have an underscore are kept.
RequestHandler = MotoRequestHandler

Answer = tuple[int, list[tuple[str, str]], bytes]
Application = Callable[..., Any]


def application() -> Application:
    made: Application = DomainDispatcherApplication(create_backend_app)
    return made


def forward(app: Application, environ: dict[str, Any], body: bytes) -> Answer:
    """Let moto answer a request whose body has been read."""
    environ = {key: value for key, value in environ.items() if key not in ("HTTP_TRANSFER_ENCODING", "wsgi.input_terminated")}
    environ.update({"wsgi.input": io.BytesIO(body), "CONTENT_LENGTH": str(len(body))})
    chunks, status, headers = run_wsgi_app(app, environ, buffered=True)
    return int(status.split()[0]), headers.to_wsgi_list(), b"".join(chunks)


def reset(app: Application, url: str) -> None:
    """Forget all buckets, queues and logs."""
    environ = {
        "REQUEST_METHOD": "POST",
        "PATH_INFO": "/moto-api/reset",
        "SERVER_NAME": "127.0.0.1",
        "SERVER_PORT": url.rpartition(":")[2],
        "SERVER_PROTOCOL": "HTTP/1.1",
        "wsgi.url_scheme": "http",
    }
    status, _, body = forward(app, environ, b"")
    if status != 200:
        raise RuntimeError(f"moto could not be reset: {body[:200]!r}")
