#!/home/airflow/.local/bin/python
"""Takes mails on 1025 and lists them on 8025, as mailpit does. `/mailpit readyz` says whether it does."""

import json
import sys
import urllib.request
from email import message_from_bytes
from email.policy import default
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from aiosmtpd.controller import Controller

MAILS: list[dict[str, Any]] = []


class Taker:
    async def handle_DATA(self, _server: Any, _session: Any, envelope: Any) -> str:
        MAILS.append({"Subject": message_from_bytes(envelope.content, policy=default)["subject"], "To": envelope.rcpt_tos})
        return "250 taken"


class Lister(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        body = json.dumps({"total": len(MAILS), "messages": MAILS}).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


if sys.argv[1:] == ["readyz"]:
    urllib.request.urlopen("http://127.0.0.1:8025/readyz", timeout=3)
else:
    Controller(Taker(), hostname="0.0.0.0", port=1025).start()
    ThreadingHTTPServer(("0.0.0.0", 8025), Lister).serve_forever()
