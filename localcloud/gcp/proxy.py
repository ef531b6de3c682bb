"""The one port that clients see: a proxy that leads to Google's hosts, all of which are this very machine, and nowhere else.

A connection begins with `CONNECT host:443`, after which this proxy is that host: TLS, then HTTP/2 to the gRPC server and HTTP/1.1
to the HTTP server. Or it begins with a request to the cloud itself, in the clear: its control interface and its metadata server.
"""

from __future__ import annotations

import asyncio
import re
import socket
import ssl
import threading
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from localcloud.gcp.certificates import DOMAINS

# One label only, as a certificate's wildcard has it.
GOOGLE = re.compile(rf"[a-z0-9-]+\.({'|'.join(map(re.escape, DOMAINS))}):443")
SIZE = 1 << 16


@dataclass(frozen=True)
class Servers:
    """Where the proxy leads to: sockets that nobody else can open."""

    plain: Path
    https: Path
    grpc: Path


class Proxy:
    """Serves a socket that listens already."""

    def __init__(self, listening: socket.socket, context: ssl.SSLContext, servers: Servers) -> None:
        self._socket, self._context, self._servers = listening, context, servers
        self._asked: Counter[tuple[str, bool]] = Counter()
        self._loop = asyncio.new_event_loop()
        self._end = asyncio.Event()
        self._lock = threading.Lock()

    def asked(self) -> list[dict[str, Any]]:
        """Every host that was asked for, and whether it was let through, which is to say: led back to this machine."""
        with self._lock:
            return [{"host": host, "let_through": through, "times": times} for (host, through), times in self._asked.items()]

    def forget(self) -> None:
        with self._lock:
            self._asked.clear()

    def serve_forever(self) -> None:
        self._loop.run_until_complete(self._serve())

    def shutdown(self) -> None:
        self._loop.call_soon_threadsafe(self._end.set)

    async def _serve(self) -> None:
        server = await asyncio.start_server(self._connection, sock=self._socket)
        await self._end.wait()
        server.close()
        open_still = asyncio.all_tasks() - {asyncio.current_task()}
        for task in open_still:
            task.cancel()
        await asyncio.gather(*open_still, return_exceptions=True)

    async def _connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await self._led(reader, writer)
        except (OSError, EOFError, asyncio.LimitOverrunError):
            pass  # the client has gone, or does not trust us: it is the one to say why
        finally:
            writer.close()

    async def _led(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        verb, _, rest = head.partition(b"\r\n")[0].decode("latin-1").partition(" ")
        target = rest.rpartition(" ")[0]
        if verb != "CONNECT" and target.startswith("/"):
            await _spliced(reader, writer, self._servers.plain, head)
            return
        through = verb == "CONNECT" and GOOGLE.fullmatch(target.lower()) is not None
        with self._lock:
            self._asked[target, through] += 1
        if not through:
            writer.write(_no(target))
            await writer.drain()
            return
        writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
        await writer.drain()
        await writer.start_tls(self._context)
        http2 = writer.get_extra_info("ssl_object").selected_alpn_protocol() == "h2"
        await _spliced(reader, writer, self._servers.grpc if http2 else self._servers.https)


def _no(target: str) -> bytes:
    led = " and ".join(f"*.{domain}:443" for domain in DOMAINS)
    words = f"the local cloud leads to {led} only, not to {target[:200]}: nothing leaves this machine\n"
    head = (
        "HTTP/1.1 502 Not a host of the local cloud",
        "Content-Type: text/plain; charset=utf-8",
        f"Content-Length: {len(words.encode())}",
        "Connection: close",
    )
    return "\r\n".join((*head, "", words)).encode()


async def _spliced(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, server: Path, begin: bytes = b"") -> None:
    """Carry what one side says to the other, until one has no more to say and the other has answered."""
    inner_reader, inner_writer = await asyncio.open_unix_connection(str(server))
    inner_writer.write(begin)
    asking = asyncio.create_task(_carried(reader, inner_writer))
    try:
        await _carried(inner_reader, writer)
    finally:
        asking.cancel()
        with suppress(asyncio.CancelledError, OSError):
            await asking
        inner_writer.close()


async def _carried(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while piece := await reader.read(SIZE):
            writer.write(piece)
            await writer.drain()
    finally:
        with suppress(OSError, RuntimeError):
            if writer.can_write_eof():
                writer.write_eof()
