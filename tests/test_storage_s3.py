"""`storage` on a real object store through its S3 API."""

from __future__ import annotations

import socket
import subprocess
import sys
import time
from collections.abc import Callable

import pytest
import s3fs

from pipeline import storage
from pipeline.errors import StorageError
from tests.swift import forget_clients, free_port

ACTIONS: dict[str, Callable[[str], object]] = {
    "read": lambda folder: storage.read(f"{folder}/x"),
    "read_start": lambda folder: storage.read_start(f"{folder}/x", 5),
    "opened": lambda folder: storage.opened(f"{folder}/x").__enter__(),
    "exists": lambda folder: storage.exists(f"{folder}/x"),
    "is_folder": storage.is_folder,
    "names": storage.names,
    "files_below": storage.files_below,
    "put": lambda folder: storage.put(f"{folder}/x", b"new"),
    "remove": lambda folder: storage.remove(f"{folder}/x"),
    "check_writable": storage.check_writable,
}


def elsewhere(code: str, *arguments: str) -> str:
    """What another process prints that runs `code` with `storage` at hand."""
    command = [sys.executable, "-c", f"import sys; from pipeline import storage; {code}"]
    done = subprocess.run([*command, *arguments], capture_output=True, text=True, check=True)
    return done.stdout.strip()


def test_put_read_exists_remove(s3_folder: str) -> None:
    uri = f"{s3_folder}/deep/er/x.bin"
    assert not storage.exists(uri)
    storage.put(uri, b"first")
    storage.put(uri, b"second")
    assert storage.exists(uri)
    assert storage.read(uri) == b"second"
    assert storage.read_start(uri, 3) == b"sec"
    assert storage.read_start(uri, 100) == b"second"
    assert storage.read_end(uri, 3) == b"ond"
    assert storage.read_end(uri, 100) == b"second"
    with storage.opened(uri) as file:
        file.seek(2)
        assert file.read(2) == b"co"
    storage.remove(uri)
    storage.remove(uri)
    assert not storage.exists(uri)


def test_listings(s3_folder: str) -> None:
    assert storage.names(s3_folder) == []
    for name in ("b", "a", "below/c"):
        storage.put(f"{s3_folder}/{name}", b"1")
    storage.put(f"{s3_folder}-beside/d", b"1")
    assert storage.names(s3_folder) == ["a", "b"]
    assert storage.files_below(s3_folder + "/") == ["a", "b", "below/c"]
    assert storage.is_folder(s3_folder)
    assert not storage.is_folder(f"{s3_folder}/a")
    with pytest.raises(storage.MissingObject, match=r"/gone is not a folder"):
        storage.files_below(f"{s3_folder}/gone")


def test_what_another_process_writes_is_seen(s3_folder: str) -> None:
    """A listing or size that the client kept would hide it."""
    storage.put(f"{s3_folder}/a", b"old")
    assert storage.names(s3_folder) == ["a"]
    elsewhere(
        "storage.put(sys.argv[1] + '/a', b'newer, longer'); storage.put(sys.argv[1] + '/b', b'')",
        s3_folder,
    )
    with storage.opened(f"{s3_folder}/a") as file:
        assert file.read() == b"newer, longer"
    assert storage.read(f"{s3_folder}/a") == b"newer, longer"
    assert storage.exists(f"{s3_folder}/b")
    assert storage.names(s3_folder) == ["a", "b"]


def test_a_forked_process_opens_the_store_anew(s3_folder: str) -> None:
    code = (
        "import multiprocessing as m; storage.put(sys.argv[1] + '/a', b'parent');"
        "pool = m.get_context('fork').Pool(1);"
        "print(pool.apply_async(storage.read, (sys.argv[1] + '/a',)).get(20))"
    )
    assert elsewhere(code, s3_folder) == "b'parent'"


def test_a_commit_is_one_request(s3_folder: str, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []
    original = s3fs.S3FileSystem._call_s3

    async def counted(self: s3fs.S3FileSystem, method: str, *args: object, **kw: object) -> object:
        calls.append(method)
        return await original(self, method, *args, **kw)

    monkeypatch.setattr(s3fs.S3FileSystem, "_call_s3", counted)
    storage.put(f"{s3_folder}/part", bytes(3_000_000))
    assert calls == ["put_object"]
    calls.clear()
    with storage.whole_file(f"{s3_folder}/manifest") as scratch:
        scratch.write_bytes(bytes(3_000_000))
        assert calls == []
    assert calls == ["put_object"]


def test_a_failed_block_writes_nothing(s3_folder: str) -> None:
    def fail_halfway() -> None:
        with storage.whole_file(f"{s3_folder}/x") as scratch:
            scratch.write_bytes(b"half")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail_halfway()
    assert not storage.exists(f"{s3_folder}/x")


def test_check_writable(s3_folder: str) -> None:
    storage.check_writable(s3_folder)
    assert storage.names(s3_folder) == []
    with pytest.raises(StorageError) as caught:
        storage.check_writable("s3://no-such-bucket/out")
    assert (
        str(caught.value) == "s3://no-such-bucket/out cannot be written: no bucket no-such-bucket"
    )


def test_a_missing_object_is_named(s3_folder: str) -> None:
    for uri in (f"{s3_folder}/gone", "s3://no-such-bucket/gone"):
        for action in (storage.read, lambda uri: storage.read_start(uri, 5)):
            with pytest.raises(storage.MissingObject) as caught:
                action(uri)
            assert str(caught.value) == f"{uri} does not exist"
    storage.check_reachable("s3://no-such-bucket/gone")  # the store answers


def test_wrong_keys(s3_folder: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "hunter2")
    forget_clients()
    for action in ACTIONS.values():
        with pytest.raises(storage.AccessDenied, match=rf"^{s3_folder}.*access denied$") as caught:
            action(s3_folder)
        assert "hunter2" not in str(caught.value)
    storage.check_reachable(s3_folder)  # what is allowed is not its business


def test_no_credentials(s3_folder: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    forget_clients()
    for action in (*ACTIONS.values(), storage.check_reachable):
        with pytest.raises(StorageError, match=rf"^{s3_folder}.*Unable to locate credentials$"):
            action(s3_folder)


def test_an_endpoint_where_nothing_listens(s3_folder: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{free_port()}")
    forget_clients()
    for action in (ACTIONS["read"], storage.check_writable):
        start = time.monotonic()
        with pytest.raises(StorageError, match=rf"^{s3_folder}.*Could not connect to the endpoint"):
            action(s3_folder)
        assert time.monotonic() - start < 20


def test_an_endpoint_that_never_answers(s3_folder: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:  # connects, and says nothing
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{server.getsockname()[1]}")
        forget_clients()
        start = time.monotonic()
        with pytest.raises(
            StorageError, match=rf"^{s3_folder}: its store did not answer within 1 s"
        ):
            storage.check_reachable(s3_folder, seconds=1)
        assert time.monotonic() - start < 10
