"""A real object store for tests: OpenStack Swift with its S3 API, as four processes on loopback.

Address and keys are chosen before the store starts, because the test session's only Ray passes them to
its workers and may start earlier.
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
NO_ATTRIBUTES = "no folder on a file system with user attributes, which Swift needs"
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
    """The four servers; they can be killed and started again with the objects that they stored."""

    def __init__(self, port: int, secret: str) -> None:
        """Prepare a store whose S3 API listens on `port`; the `with` block starts it.

        Raises:
            RuntimeError: it cannot run on this machine.
        """
        folder = make_folder_with_attributes()
        if folder is None:
            raise RuntimeError(NO_ATTRIBUTES)
        self.folder = folder
        self.ports = {name: find_free_port() for name in ("account", "container", "object")}
        write_configuration(folder, self.ports)
        self.ports["proxy"] = port
        write_proxy_configuration(folder, port, secret)
        self.servers: list[subprocess.Popen[bytes]] = []

    @staticmethod
    def find_obstacle() -> str | None:
        """Why Swift cannot run on this machine, or None if it can."""
        if util.find_spec("swift") is None:
            return "Swift is not installed"
        folder = make_folder_with_attributes()
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
            self.servers.append(start_server(name, self.folder))
        for name, port in self.ports.items():
            wait_for_answer(name, port, self.folder)

    def kill(self) -> None:
        """SIGKILL the servers, even in the middle of a write."""
        for server in self.servers:
            server.kill()
            server.wait()
        self.servers.clear()

    def stop(self) -> None:
        """Terminate the servers as an operator would."""
        for server in self.servers:
            server.terminate()
        for server in self.servers:
            with contextlib.suppress(subprocess.TimeoutExpired):
                server.wait(10)
        self.kill()


@pytest.fixture(scope="session")
def store_environment() -> dict[str, str]:
    """The environment of clients of this session's S3 store, which may start later."""
    return make_environment(find_free_port())


def make_environment(port: int) -> dict[str, str]:
    """Make the environment of a store's clients: its address and fresh keys."""
    return {
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}",
        "AWS_ACCESS_KEY_ID": f"{ACCOUNT}:{USER}",
        "AWS_SECRET_ACCESS_KEY": secrets.token_hex(16),
        "AWS_DEFAULT_REGION": "us-east-1",
    }


@pytest.fixture(scope="session")
def swift_store(store_environment: dict[str, str]) -> Iterator[dict[str, str]]:
    """Run the store and return its clients' environment; skip the test if Swift cannot run."""
    obstacle = Swift.find_obstacle()
    if obstacle is not None:
        pytest.skip(obstacle)
    port = int(store_environment["AWS_ENDPOINT_URL"].rpartition(":")[2])
    with Swift(port, store_environment["AWS_SECRET_ACCESS_KEY"]):
        yield store_environment


@pytest.fixture(scope="session")
def s3_bucket(swift_store: dict[str, str]) -> str:
    """A bucket for the tests of this session."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        apply_environment(swift_store, monkeypatch)
        forget_clients()
        fsspec.filesystem("s3").mkdir("tests-bucket")
    return "tests-bucket"


@pytest.fixture
def s3_folder(
    s3_bucket: str, swift_store: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> Iterator[str]:
    """The URI of an empty folder, which this process and the workers of `ray_cluster` can access."""
    apply_environment(swift_store, monkeypatch)
    yield f"s3://{s3_bucket}/{uuid.uuid4().hex[:8]}"
    if any(os.environ.get(name) != value for name, value in swift_store.items()):
        forget_clients()  # they hold the environment that the test changed


def apply_environment(environment: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Set the environment of S3 clients, without the machine's own variables."""
    for variable in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(variable)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    for name in ("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"):
        monkeypatch.setenv(name, "/nowhere")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")


def forget_clients() -> None:
    """Make the next use of S3 read the environment again."""
    import s3fs

    s3fs.S3FileSystem.clear_instance_cache()


def find_free_port() -> int:
    """A free port of the loopback interface."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def make_folder_with_attributes() -> Path | None:
    """Make a folder on a file system with user attributes, which that of /tmp may lack."""
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
    """Write the configuration and rings of the storage servers, all on one device."""
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
            f"{format_defaults(folder, port)}devices = {folder / 'node'}\nmount_check = false\n"
            f"fallocate_reserve = 0\n[pipeline:main]\npipeline = {name}-server\n"
            f"[app:{name}-server]\nuse = egg:swift#{name}\n"
        )


def write_proxy_configuration(folder: Path, port: int, secret: str) -> None:
    """Write the configuration of the proxy with its S3 API and one user."""
    sections = [format_defaults(folder, port), f"[pipeline:main]\npipeline = {PIPELINE}\n"]
    for name in FILTERS:
        sections.append(f"[filter:{name}]\nuse = egg:swift#{name.replace('-', '_')}\n")
    sections += [
        f"[filter:tempauth]\nuse = egg:swift#tempauth\nuser_{ACCOUNT}_{USER} = {secret} .admin\n"
    ]
    # Nothing listens on the cache's port, so that each lookup misses at once.
    sections += ["[filter:cache]\nuse = egg:swift#memcache\n"]
    sections += [f"memcache_servers = 127.0.0.1:{find_free_port()}\n"]
    sections += ["[app:proxy-server]\nuse = egg:swift#proxy\naccount_autocreate = true\n"]
    (folder / "proxy.conf").write_text("".join(sections))


def format_defaults(folder: Path, port: int) -> str:
    """Format the first section of a server's configuration; without workers it needs no other user."""
    return (
        f"[DEFAULT]\nbind_ip = 127.0.0.1\nbind_port = {port}\nworkers = 0\nswift_dir = {folder}\n"
        "log_level = ERROR\n"
    )


def start_server(name: str, folder: Path) -> subprocess.Popen[bytes]:
    """Start one server, which logs into the folder."""
    command = [sys.executable, "-m", f"swift.{MODULES[name]}.server", f"{folder / name}.conf", "-v"]
    with (folder / f"{name}.log").open("ab") as log:
        return subprocess.Popen(
            command, cwd=folder, stdin=subprocess.DEVNULL, stdout=log, stderr=log
        )


def wait_for_answer(name: str, port: int, folder: Path) -> None:
    """Wait until a server accepts connections."""
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=5):
            return
        time.sleep(0.1)
    log = (folder / f"{name}.log").read_text()[-2000:]
    raise TimeoutError(f"Swift's {name} server did not answer within {START_SECONDS} s: {log}")
