"""Listings of an S3 store as one gives them that lists late: without new objects, with removed ones."""

from __future__ import annotations

import html
import http.client
import re
import socket
import threading
import time
from urllib.parse import parse_qs, unquote, urlsplit

_CHANGE = re.compile(rb"(PUT|DELETE) (\S+) HTTP")
_LISTING = re.compile(rb"GET (\S+\?\S*list-type=2\S*) HTTP")
_ENTRY = re.compile(r"<Contents>.*?</Contents>", re.DOTALL)
_KEY = re.compile(r"<Key>(.*?)</Key>", re.DOTALL)
_PER_CONNECTION = ("content-length", "transfer-encoding", "connection")


class LateListing:
    """Remembers when objects change, and edits listings so that they show the changes late."""

    def __init__(self) -> None:
        self._changes: dict[str, float] = {}
        """When each object was put or removed the last time, by `/bucket/key`."""
        self._entries: dict[str, str] = {}
        """The latest entry of each object in a listing."""
        self._lock = threading.Lock()

    def note_change(self, request: bytes) -> None:
        """Note a request that puts or removes an object."""
        if match := _CHANGE.match(request):
            path = unquote(urlsplit(match[2].decode()).path)
            with self._lock:
                self._changes[path] = time.monotonic()

    def edit(self, target: str, body: str, seconds: float) -> str:
        """A listing as it was about `seconds` ago.

        Args:
            target: path and query of the request.
            body: the store's answer.
            seconds: how late listings are.
        """
        parts = urlsplit(target)
        bucket = f"/{unquote(parts.path).strip('/')}/"
        query = parse_qs(parts.query)
        prefix, delimiter = query.get("prefix", [""])[0], query.get("delimiter", [""])[0]
        now = time.monotonic()
        with self._lock:
            listed = {
                bucket + html.unescape(_KEY.findall(entry)[0]): entry
                for entry in _ENTRY.findall(body)
            }
            self._entries |= listed
            recent = {path for path, when in self._changes.items() if now - when < seconds}
            removed = [
                self._entries[path]
                for path in recent - listed.keys()
                if path in self._entries and path.startswith(bucket + prefix)
                if not delimiter or delimiter not in path.removeprefix(bucket + prefix)
            ]
        for path in recent & listed.keys():
            body = body.replace(listed[path], "")
        return body.replace("</ListBucketResult>", "".join(removed) + "</ListBucketResult>")


def find_listing(request: bytes) -> str | None:
    """The path and query of a request that lists objects; None for other requests."""
    match = _LISTING.match(request)
    return match[1].decode() if match else None


def list_late(
    store: socket.socket, request: bytes, listing: LateListing, target: str, seconds: float
) -> bytes:
    """Send a request for a listing to the store, and build the late answer."""
    store.sendall(request)
    answer = http.client.HTTPResponse(store, method="GET")
    answer.begin()
    body = answer.read()
    if answer.status == http.HTTPStatus.OK:
        body = listing.edit(target, body.decode(), seconds).encode()
    head = f"HTTP/1.1 {answer.status} {answer.reason}\r\n"
    for name, value in answer.getheaders():
        if name.lower() not in _PER_CONNECTION:
            head += f"{name}: {value}\r\n"
    return f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body
