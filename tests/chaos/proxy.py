"""A proxy that makes an object store look faulty to its clients.

It forwards TCP connections. While a fault is set, it treats each further request as a store with that
fault does. It recognises requests by their first line, so that connections that stay open meet the fault
too.
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

from tests.chaos.late_listing import LateListing, find_listing, list_late

Kind = Literal["pass", "500", "503", "slow", "reset", "silent", "late"]
METHODS = (b"GET ", b"PUT ", b"HEAD ", b"POST ", b"DELETE ")
ANSWERS = {
    "500": ("500 Internal Server Error", "InternalError"),
    "503": ("503 Slow Down", "SlowDown"),
}
PATIENCE = 120.0


@dataclass(frozen=True)
class Fault:
    """What happens to requests, and to what share of them."""

    kind: Kind = "pass"
    share: float = 1.0
    seconds: float = 2.0
    """Longest delay of a request, for kind `slow`; how late listings are, for kind `late`."""


class FaultProxy:
    """Listens on loopback and forwards to `target`; `fault` may change at any time."""

    def __init__(self, target: int, seed: int = 0) -> None:
        """Prepare a proxy in front of a loopback port; the `with` block starts it."""
        self.target = target
        self.fault = Fault()
        self.requests = 0
        self.faulty_requests = 0
        """Requests that met a fault."""
        self._listing = LateListing()
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
    def inject(self, kind: Kind, share: float = 1.0, seconds: float = 2.0) -> Iterator[None]:
        """Inject a fault while the block runs."""
        self.fault = Fault(kind, share, seconds)
        try:
            yield
        finally:
            self.fault = Fault()

    def _forward(self, client: socket.socket) -> None:
        with socket.create_connection(("127.0.0.1", self.target), timeout=10) as store:
            store.settimeout(PATIENCE)
            client.settimeout(PATIENCE)
            cuts_answer = False
            while True:
                readable, _, _ = select.select([client, store], [], [], PATIENCE)
                if not readable:
                    return
                if client in readable:
                    data = client.recv(1 << 16)
                    if not data:
                        return
                    self._listing.note_change(data)
                    fault = self._choose_fault(data)
                    if fault == "late":
                        target = find_listing(data) or ""
                        seconds = self.fault.seconds
                        client.sendall(list_late(store, data, self._listing, target, seconds))
                        continue
                    if fault in ANSWERS:
                        send_error(client, *ANSWERS[fault], data)
                        return
                    if fault == "silent":
                        time.sleep(PATIENCE)
                        return
                    if fault == "slow":
                        time.sleep(self._random.uniform(0.2, 1.0) * self.fault.seconds)
                    cuts_answer = fault == "reset"
                    store.sendall(data)
                if store in readable:
                    data = store.recv(1 << 16)
                    if cuts_answer:
                        client.sendall(data[: len(data) // 2])
                        reset_connection(client)
                        return
                    if not data:
                        return
                    client.sendall(data)

    def _choose_fault(self, data: bytes) -> Kind:
        if not data.startswith(METHODS):  # the rest of a request that already passed
            return "pass"
        with self._lock:
            self.requests += 1
            fault = self.fault
            if fault.kind == "pass" or self._random.random() >= fault.share:
                return "pass"
            if fault.kind == "late" and find_listing(data) is None:
                return "pass"
            self.faulty_requests += 1
            return fault.kind


def send_error(client: socket.socket, status: str, code: str, request: bytes) -> None:
    """Answer with an S3 error instead of the store, and close the connection."""
    body = b"" if request.startswith(b"HEAD") else f"<Error><Code>{code}</Code></Error>".encode()
    head = f"HTTP/1.1 {status}\r\nContent-Type: application/xml\r\nContent-Length: {len(body)}\r\n"
    client.sendall(head.encode() + b"Connection: close\r\n\r\n" + body)
    client.shutdown(socket.SHUT_WR)
    client.settimeout(1)
    # Read the rest of the request: unread data would reset the connection and lose the answer.
    with contextlib.suppress(OSError):
        while client.recv(1 << 16):
            pass


def reset_connection(client: socket.socket) -> None:
    """Close the connection so that the client sees a reset."""
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    client.close()
