"""Addresses of clusters: each wrong one fails within seconds, with what to do."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from typing import Literal

import grpc
import pytest

from pipeline.engine import named_cluster, ray_address
from pipeline.errors import InvalidConfiguration
from tests.swift import find_free_port


@pytest.mark.parametrize("address", ["http://127.0.0.1:9999/", "https://head.example"])
def test_the_address_of_a_dashboard_is_explained(address: str) -> None:
    with pytest.raises(InvalidConfiguration, match="is the address of a dashboard, which `ray job"):
        ray_address.check_address(address)


@pytest.mark.parametrize(
    "address",
    ["127.0.0.1", "head", "head:", ":6379", "head:0", "head:99999", "ray://head", "a://h:1"],
)
def test_other_forms_are_rejected_with_the_right_ones(address: str) -> None:
    with pytest.raises(InvalidConfiguration, match=f"{address} is not the address of .*host:6379"):
        ray_address.check_address(address)


@pytest.mark.parametrize("form", ["{}", "ray://{}"])
def test_an_address_where_nothing_answers_fails_at_once(form: str) -> None:
    address = form.format(f"127.0.0.1:{find_free_port()}")
    message = f"RAY_ADDRESS {address}: nothing answers: Connection refused; start the cluster"
    with pytest.raises(InvalidConfiguration, match=message):
        ray_address.check_address(address)


class _QuietHandler(SimpleHTTPRequestHandler):
    def log_message(self, *arguments: object) -> None:
        pass


@pytest.fixture
def ports() -> Iterator[tuple[int, int]]:
    """A web server, and a server that accepts and says nothing."""
    web = ThreadingHTTPServer(("127.0.0.1", 0), _QuietHandler)
    threading.Thread(target=web.serve_forever, daemon=True).start()
    with socket.create_server(("127.0.0.1", 0)) as silent:
        yield web.server_port, silent.getsockname()[1]
    web.shutdown()
    web.server_close()


def test_another_service_is_no_cluster(
    ports: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ray_address, "ANSWER_SECONDS", 0.5)
    for port in ports:
        with pytest.raises(InvalidConfiguration, match="does not answer as a Ray cluster"):
            ray_address.check_address(f"127.0.0.1:{port}")


Outcome = grpc.StatusCode | Literal["silence"] | None
"""How a method ends: with a code, never, or with an answer."""


@pytest.fixture
def grpc_server() -> Iterator[Callable[[str, Outcome], int]]:
    """Starts gRPC servers with one method each, which answers, fails with a code, or stays silent."""
    servers = []
    is_over = threading.Event()

    def start(method: str, code: Outcome) -> int:
        def answer(request: bytes, context: grpc.ServicerContext) -> bytes:
            if isinstance(code, str):
                is_over.wait()
            elif code is not None:
                context.abort(code, "")
            return request

        service, _, name = method.strip("/").partition("/")
        handlers = {name: grpc.unary_unary_rpc_method_handler(answer)}
        server = grpc.server(ThreadPoolExecutor(1))
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, handlers),))
        port = server.add_insecure_port("127.0.0.1:0")
        server.start()
        servers.append(server)
        return int(port)

    yield start
    is_over.set()
    for server in servers:
        server.stop(None)


GrpcServer = Callable[[str, Outcome], int]


@pytest.mark.parametrize("method", ray_address.METHODS)
@pytest.mark.parametrize("code", [None, grpc.StatusCode.UNAUTHENTICATED])
def test_a_server_of_ray_is_accepted(
    grpc_server: GrpcServer, method: str, code: grpc.StatusCode | None
) -> None:
    ray_address.check_address(f"127.0.0.1:{grpc_server(method, code)}")


def test_a_grpc_service_of_another_program_is_no_cluster(grpc_server: GrpcServer) -> None:
    port = grpc_server("/helloworld.Greeter/SayHello", None)
    with pytest.raises(InvalidConfiguration, match="does not answer as a Ray cluster"):
        ray_address.check_address(f"127.0.0.1:{port}")


def test_a_grpc_service_that_stays_silent_is_no_cluster(
    grpc_server: GrpcServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ray_address, "ANSWER_SECONDS", 0.5)
    port = grpc_server(ray_address.METHODS[0], "silence")
    began = time.monotonic()
    with pytest.raises(InvalidConfiguration, match="does not answer as a Ray cluster"):
        ray_address.check_address(f"127.0.0.1:{port}")
    assert time.monotonic() - began < 5


def test_local_and_auto_are_no_addresses() -> None:
    for address in ("local", "auto"):
        ray_address.check_address(address)


def test_an_empty_variable_means_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    for value in ("", "  "):
        monkeypatch.setenv("RAY_ADDRESS", value)
        assert named_cluster.get_address() == "local"
