"""A proxy in front of an object store that lets its clients see a store in trouble.

It passes whole TCP connections through and, while a fault is set, answers or treats each further
request as a store in that trouble does. Requests are told by their first line, so connections that are
kept open are no way around a fault.
"""

from __future__ import annotations

import contextlib
import random
import select
import socket
import socketserver
import struct
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

Kind = Literal["pass", "500", "503", "slow", "reset", "silent"]
METHODS = (b"GET ", b"PUT ", b"HEAD ", b"POST ", b"DELETE ")
ANSWERS = {
    "500": ("500 Internal Server Error", "InternalError"),
    "503": ("503 Slow Down", "SlowDown"),
}
PATIENCE = 120.0


@dataclass(frozen=True)
class Fault:
    """What happens to requests, and to which share of them."""

    kind: Kind = "pass"
    share: float = 1.0
    seconds: float = 2.0
    """How long a request is held back at most, of kind `slow`."""


class FaultProxy:
    """Listens on loopback and forwards to `target`; `fault` may be changed at any time."""

    def __init__(self, target: int, seed: int = 0) -> None:
        """Prepare a proxy in front of a port of loopback; it starts with the `with` block."""
        self.target = target
        self.fault = Fault()
        self.requests = 0
        self.troubled = 0
        """Requests that met a fault."""
        self._random = random.Random(seed)
        self._lock = threading.Lock()
        proxy = self

        class Handler(socketserver.BaseRequestHandler):
            def handle(self) -> None:
                with contextlib.suppress(OSError):
                    proxy._forward(self.request)

        class Server(socketserver.ThreadingTCPServer):
            allow_reuse_address = True
            daemon_threads = True
            request_queue_size = 128

        self._server = Server(("127.0.0.1", 0), Handler)
        self.port = int(self._server.server_address[1])

    def __enter__(self) -> FaultProxy:
        threading.Thread(target=self._server.serve_forever, args=(0.1,), daemon=True).start()
        return self

    def __exit__(self, *reason: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    @contextlib.contextmanager
    def trouble(self, kind: Kind, share: float = 1.0, seconds: float = 2.0) -> Iterator[None]:
        """The fault while the block runs."""
        self.fault = Fault(kind, share, seconds)
        try:
            yield
        finally:
            self.fault = Fault()

    def _forward(self, client: socket.socket) -> None:
        with socket.create_connection(("127.0.0.1", self.target), timeout=10) as store:
            store.settimeout(PATIENCE)
            client.settimeout(PATIENCE)
            cut = False
            while True:
                readable, _, _ = select.select([client, store], [], [], PATIENCE)
                if not readable:
                    return
                if client in readable:
                    data = client.recv(1 << 16)
                    if not data:
                        return
                    fault = self._fault_of(data)
                    if fault in ANSWERS:
                        answer(client, *ANSWERS[fault], data)
                        return
                    if fault == "silent":
                        time.sleep(PATIENCE)
                        return
                    if fault == "slow":
                        time.sleep(self._random.uniform(0.2, 1.0) * self.fault.seconds)
                    cut = fault == "reset"
                    store.sendall(data)
                if store in readable:
                    data = store.recv(1 << 16)
                    if cut:
                        client.sendall(data[: len(data) // 2])
                        reset(client)
                        return
                    if not data:
                        return
                    client.sendall(data)

    def _fault_of(self, data: bytes) -> Kind:
        if not data.startswith(METHODS):  # the rest of a request that was let through
            return "pass"
        with self._lock:
            self.requests += 1
            fault = self.fault
            if fault.kind == "pass" or self._random.random() >= fault.share:
                return "pass"
            self.troubled += 1
            return fault.kind


def answer(client: socket.socket, status: str, code: str, request: bytes) -> None:
    """Answer in the store's stead with an S3 error and close."""
    body = b"" if request.startswith(b"HEAD") else f"<Error><Code>{code}</Code></Error>".encode()
    head = f"HTTP/1.1 {status}\r\nContent-Type: application/xml\r\nContent-Length: {len(body)}\r\n"
    client.sendall(head.encode() + b"Connection: close\r\n\r\n" + body)
    client.shutdown(socket.SHUT_WR)
    client.settimeout(1)
    with contextlib.suppress(
        OSError
    ):  # read what is still sent, or the answer would be lost to a reset
        while client.recv(1 << 16):
            pass


def reset(client: socket.socket) -> None:
    """Close so that the other side sees the connection reset."""
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    client.close()
