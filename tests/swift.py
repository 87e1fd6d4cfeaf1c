"""A real object store for tests: OpenStack Swift with its S3 API, as four processes on loopback.

Address and keys are settled before the store starts, so that the one Ray of the test session, which may
be older than the store, hands them to its workers all the same.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator
from importlib import util
from pathlib import Path

import fsspec
import pytest

ACCOUNT, USER = "tests", "runner"
MODULES = {"account": "account", "container": "container", "object": "obj", "proxy": "proxy"}
START_SECONDS = 90
NO_ATTRIBUTES = "no folder whose file system keeps user attributes, as Swift needs"
PIPELINE = (
    "catch_errors proxy-logging cache listing_formats bulk s3api tempauth slo dlo "
    "versioned_writes proxy-logging proxy-server"
)
FILTERS = (
    "catch_errors",
    "proxy-logging",
    "listing_formats",
    "bulk",
    "s3api",
    "slo",
    "dlo",
    "versioned_writes",
)


class Swift:
    """The four servers; they can be killed and started again on what they kept."""

    def __init__(self, port: int, secret: str) -> None:
        """Prepare a store whose S3 API listens on `port`; it starts with the `with` block.

        Raises:
            RuntimeError: it cannot run here.
        """
        folder = folder_with_attributes()
        if folder is None:
            raise RuntimeError(NO_ATTRIBUTES)
        self.folder = folder
        self.ports = {name: free_port() for name in ("account", "container", "object")}
        write_configuration(folder, self.ports)
        self.ports["proxy"] = port
        write_proxy_configuration(folder, port, secret)
        self.servers: list[subprocess.Popen[bytes]] = []

    @staticmethod
    def missing() -> str | None:
        """Why Swift cannot run here, if so."""
        if util.find_spec("swift") is None:
            return "Swift is not installed"
        folder = folder_with_attributes()
        if folder is None:
            return NO_ATTRIBUTES
        folder.rmdir()
        return None

    def __enter__(self) -> Swift:
        try:
            self.start()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *reason: object) -> None:
        self.stop()
        shutil.rmtree(self.folder, ignore_errors=True)

    def start(self) -> None:
        """Start the servers and wait until they answer."""
        for name in MODULES:
            self.servers.append(started(name, self.folder))
        for name, port in self.ports.items():
            await_answer(name, port, self.folder)

    def kill(self) -> None:
        """SIGKILL: whatever was being written stays as it is."""
        for server in self.servers:
            server.kill()
            server.wait()
        self.servers.clear()

    def stop(self) -> None:
        """End the servers as an operator would."""
        for server in self.servers:
            server.terminate()
        for server in self.servers:
            with contextlib.suppress(subprocess.TimeoutExpired):
                server.wait(10)
        self.kill()


@pytest.fixture(scope="session")
def store_environment() -> dict[str, str]:
    """Where the S3 store of this test session is, or will be."""
    return environment_of(free_port())


def environment_of(port: int) -> dict[str, str]:
    """What the environment of a store's clients says: where it is, and fresh keys."""
    return {
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}",
        "AWS_ACCESS_KEY_ID": f"{ACCOUNT}:{USER}",
        "AWS_SECRET_ACCESS_KEY": secrets.token_hex(16),
        "AWS_DEFAULT_REGION": "us-east-1",
    }


@pytest.fixture(scope="session")
def swift_store(store_environment: dict[str, str]) -> Iterator[dict[str, str]]:
    """The running store, as its clients' environment; a skip where Swift cannot run."""
    why = Swift.missing()
    if why is not None:
        pytest.skip(why)
    port = int(store_environment["AWS_ENDPOINT_URL"].rpartition(":")[2])
    with Swift(port, store_environment["AWS_SECRET_ACCESS_KEY"]):
        yield store_environment


@pytest.fixture(scope="session")
def s3_bucket(swift_store: dict[str, str]) -> str:
    """A bucket for the tests of this session."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        enter(swift_store, monkeypatch)
        forget_clients()
        fsspec.filesystem("s3").mkdir("tests-bucket")
    return "tests-bucket"


@pytest.fixture
def s3_folder(
    s3_bucket: str, swift_store: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> Iterator[str]:
    """The URI of an empty folder, for this process and for the workers of `ray_cluster`."""
    enter(swift_store, monkeypatch)
    yield f"s3://{s3_bucket}/{uuid.uuid4().hex[:8]}"
    if any(os.environ.get(name) != value for name, value in swift_store.items()):
        forget_clients()  # they are of the environment that the test changed


def enter(environment: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Make this the environment of S3 clients, whatever the machine's own is."""
    for variable in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(variable)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    for name in ("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"):
        monkeypatch.setenv(name, "/nowhere")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")


def forget_clients() -> None:
    """The next use of S3 looks at the environment again."""
    import s3fs

    s3fs.S3FileSystem.clear_instance_cache()


def free_port() -> int:
    """A port of loopback that nothing listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def folder_with_attributes() -> Path | None:
    """A new folder on a file system with user attributes: /tmp may be one that has none."""
    for parent in (tempfile.gettempdir(), "/var/tmp", Path.home(), Path.cwd()):
        with contextlib.suppress(OSError):
            folder = Path(tempfile.mkdtemp(prefix="swift-", dir=parent))
            try:
                os.setxattr(folder, "user.swift.probe", b"x" * 1000)
            except OSError:
                folder.rmdir()
            else:
                return folder
    return None


def write_configuration(folder: Path, ports: dict[str, int]) -> None:
    """Configuration and ring of the servers that keep things, all on one device."""
    from swift.common.ring import RingBuilder

    (folder / "swift.conf").write_text("[swift-hash]\nswift_hash_path_suffix = tests\n")
    (folder / "node" / "disk").mkdir(parents=True)
    for name, port in ports.items():
        builder = RingBuilder(part_power=4, replicas=1, min_part_hours=0)
        place = {"region": 1, "zone": 1, "ip": "127.0.0.1", "port": port, "device": "disk"}
        builder.add_dev(place | {"weight": 1})
        builder.rebalance()
        builder.get_ring().save(str(folder / f"{name}.ring.gz"))
        (folder / f"{name}.conf").write_text(
            f"{defaults(folder, port)}devices = {folder / 'node'}\nmount_check = false\n"
            f"fallocate_reserve = 0\n[pipeline:main]\npipeline = {name}-server\n"
            f"[app:{name}-server]\nuse = egg:swift#{name}\n"
        )


def write_proxy_configuration(folder: Path, port: int, secret: str) -> None:
    """The proxy with its S3 API and one user."""
    sections = [defaults(folder, port), f"[pipeline:main]\npipeline = {PIPELINE}\n"]
    for name in FILTERS:
        sections.append(f"[filter:{name}]\nuse = egg:swift#{name.replace('-', '_')}\n")
    sections += [
        f"[filter:tempauth]\nuse = egg:swift#tempauth\nuser_{ACCOUNT}_{USER} = {secret} .admin\n"
    ]
    # Nothing listens at the cache's address, so that each lookup misses at once.
    sections += ["[filter:cache]\nuse = egg:swift#memcache\n"]
    sections += [f"memcache_servers = 127.0.0.1:{free_port()}\n"]
    sections += ["[app:proxy-server]\nuse = egg:swift#proxy\naccount_autocreate = true\n"]
    (folder / "proxy.conf").write_text("".join(sections))


def defaults(folder: Path, port: int) -> str:
    """The first section of a server's configuration; without workers it needs no other user."""
    return (
        f"[DEFAULT]\nbind_ip = 127.0.0.1\nbind_port = {port}\nworkers = 0\nswift_dir = {folder}\n"
        "log_level = ERROR\n"
    )


def started(name: str, folder: Path) -> subprocess.Popen[bytes]:
    """One server, which logs into the folder."""
    command = [sys.executable, "-m", f"swift.{MODULES[name]}.server", f"{folder / name}.conf", "-v"]
    with (folder / f"{name}.log").open("ab") as log:
        return subprocess.Popen(
            command, cwd=folder, stdin=subprocess.DEVNULL, stdout=log, stderr=log
        )


def await_answer(name: str, port: int, folder: Path) -> None:
    """Wait until a server accepts connections."""
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=5):
            return
        time.sleep(0.1)
    told = (folder / f"{name}.log").read_text()[-2000:]
    raise TimeoutError(f"Swift's {name} server did not answer within {START_SECONDS} s: {told}")
