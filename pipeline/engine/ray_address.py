"""The address of a Ray cluster, checked before Ray sees it, which would wait for minutes."""

from __future__ import annotations

import os
import socket

import grpc

from pipeline.errors import InvalidConfiguration

ANSWER_SECONDS = 10.0
"""How long a cluster may take to accept a connection, and then to answer as Ray does."""

METHODS = ("/ray.rpc.NodeInfoGcsService/CheckAlive", "/ray.rpc.RayletDriver/ClusterInfo")
"""Methods that change nothing, of the server at host:6379 and of the one at ray://host:10001."""

NO_ANSWER = (grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.UNAVAILABLE)
"""Codes of the client itself: the server is silent, or closes the connection."""

FORMS = (
    "expected host:6379 (the address that `ray start` prints), ray://host:10001, auto, or nothing for a "
    "Ray of this machine"
)


def check_address(address: str) -> None:
    """Reject an address that Ray does not take, or where no Ray cluster answers.

    Raises:
        InvalidConfiguration: the address has another form, nothing listens there, or something that is no
            server of Ray.
    """
    if address in ("local", "auto"):
        return
    host, port = _split_address(address)
    try:
        socket.create_connection((host, port), timeout=ANSWER_SECONDS).close()
    except OSError as error:
        raise InvalidConfiguration(
            f"RAY_ADDRESS {address}: nothing answers: {error.strerror or error}; start the cluster, "
            "or unset RAY_ADDRESS to run on this machine"
        ) from error
    if not _is_ray(host, port):
        raise InvalidConfiguration(
            f"RAY_ADDRESS {address}: what listens there does not answer as a Ray cluster within "
            f"{ANSWER_SECONDS:g} s; {FORMS}"
        )


def _split_address(address: str) -> tuple[str, int]:
    protocol, _, place = address.rpartition("://")
    if protocol in ("http", "https"):
        raise InvalidConfiguration(
            f"RAY_ADDRESS {address} is the address of a dashboard, which `ray job submit --address` takes; "
            + FORMS
        )
    host, _, port = place.rpartition(":")
    is_port = port.isascii() and port.isdigit() and 0 < int(port) < 2**16
    if protocol not in ("", "ray") or not host or not is_port:
        raise InvalidConfiguration(
            f"RAY_ADDRESS {address} is not the address of a cluster; {FORMS}"
        )
    return host.strip("[]"), int(port)


def _is_ray(host: str, port: int) -> bool:
    """Whether the server speaks gRPC and has a method of Ray's; this needs no credentials of the cluster."""
    target = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    if os.environ.get("RAY_USE_TLS", "0").lower() in ("1", "true"):
        return True  # its certificates are Ray's affair
    with grpc.insecure_channel(target, options=[("grpc.enable_http_proxy", 0)]) as channel:
        try:
            grpc.channel_ready_future(channel).result(timeout=ANSWER_SECONDS)
        except grpc.FutureTimeoutError:
            return False
        return _answers_as_ray(channel)


def _answers_as_ray(channel: grpc.Channel) -> bool:
    """Whether the server has one of Ray's methods; a server that lacks one says so at once."""
    for method in METHODS:
        call = channel.unary_unary(method, request_serializer=None, response_deserializer=None)
        try:
            call(b"", timeout=ANSWER_SECONDS)
        except grpc.RpcError as error:  # a cluster with a token says UNAUTHENTICATED
            if error.code() in NO_ANSWER:
                return False
            if error.code() == grpc.StatusCode.UNIMPLEMENTED:
                continue
        return True
    return False
