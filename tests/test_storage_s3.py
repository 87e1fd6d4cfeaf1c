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
from pipeline.errors import AccessDenied, MissingObject, StorageError, UnusableObject
from pipeline.sources import listing
from tests.swift import find_free_port, forget_clients

ACTIONS: dict[str, Callable[[str], object]] = {
    "read": lambda folder: storage.read(f"{folder}/x"),
    "read_start": lambda folder: storage.read_start(f"{folder}/x", 5),
    "open_file": lambda folder: storage.open_file(f"{folder}/x").__enter__(),
    "exists": lambda folder: storage.exists(f"{folder}/x"),
    "is_folder": storage.is_folder,
    "list_names": storage.list_names,
    "put": lambda folder: storage.put(f"{folder}/x", b"new"),
    "remove": lambda folder: storage.remove(f"{folder}/x"),
    "check_writable": storage.check_writable,
}


def run_in_process(code: str, *arguments: str) -> str:
    """Run `code`, which may use `storage`, in another process and return what it prints."""
    command = [sys.executable, "-c", f"import sys; from pipeline import storage; {code}"]
    done = subprocess.run([*command, *arguments], capture_output=True, text=True, check=True)
    return done.stdout.strip()


def test_an_object_is_put_replaced_read_and_removed(s3_folder: str) -> None:
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
    assert storage.read(uri, max_bytes=6) == b"second"
    with pytest.raises(UnusableObject, match=r"x\.bin has more than 5e-06 MB"):
        storage.read(uri, max_bytes=5)
    storage.put(f"{s3_folder}/empty", b"")
    assert storage.read(f"{s3_folder}/empty", max_bytes=6) == b""
    with pytest.raises(MissingObject, match="gone does not exist"):
        storage.read(f"{s3_folder}/gone", max_bytes=6)
    with storage.open_file(uri) as file:
        file.seek(2)
        assert file.read(2) == b"co"
    storage.remove(uri)
    storage.remove(uri)
    assert not storage.exists(uri)


def test_listings_hold_sorted_files(s3_folder: str) -> None:
    assert storage.list_names(s3_folder) == []
    for name in ("b", "a", "below/c"):
        storage.put(f"{s3_folder}/{name}", b"1")
    storage.put(f"{s3_folder}-beside/d", b"1")
    assert storage.list_names(s3_folder) == ["a", "b"]
    assert storage.is_folder(s3_folder)
    assert not storage.is_folder(f"{s3_folder}/a")


def test_objects_of_another_process_are_visible(s3_folder: str) -> None:
    """A listing or size in the client's cache would hide them."""
    storage.put(f"{s3_folder}/a", b"old")
    assert storage.list_names(s3_folder) == ["a"]
    run_in_process(
        "storage.put(sys.argv[1] + '/a', b'newer, longer'); storage.put(sys.argv[1] + '/b', b'')",
        s3_folder,
    )
    with storage.open_file(f"{s3_folder}/a") as file:
        assert file.read() == b"newer, longer"
    assert storage.read(f"{s3_folder}/a") == b"newer, longer"
    assert storage.exists(f"{s3_folder}/b")
    assert storage.list_names(s3_folder) == ["a", "b"]


def test_a_forked_process_opens_its_own_connection(s3_folder: str) -> None:
    code = (
        "import multiprocessing as m; storage.put(sys.argv[1] + '/a', b'parent');"
        "pool = m.get_context('fork').Pool(1);"
        "print(pool.apply_async(storage.read, (sys.argv[1] + '/a',)).get(20))"
    )
    assert run_in_process(code, s3_folder) == "b'parent'"


def test_a_commit_is_one_request(s3_folder: str, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []
    original = s3fs.S3FileSystem._call_s3

    async def count_call(
        self: s3fs.S3FileSystem, method: str, *args: object, **kw: object
    ) -> object:
        calls.append(method)
        return await original(self, method, *args, **kw)

    monkeypatch.setattr(s3fs.S3FileSystem, "_call_s3", count_call)
    storage.put(f"{s3_folder}/part", bytes(3_000_000))
    assert calls == ["put_object"]
    calls.clear()
    with storage.write_whole(f"{s3_folder}/manifest") as scratch:
        scratch.write_bytes(bytes(3_000_000))
        assert calls == []
    assert calls == ["put_object"]


def test_a_failed_block_writes_nothing(s3_folder: str) -> None:
    def fail_halfway() -> None:
        with storage.write_whole(f"{s3_folder}/x") as scratch:
            scratch.write_bytes(b"half")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail_halfway()
    assert not storage.exists(f"{s3_folder}/x")


@pytest.mark.parametrize("size", [0, 1000, 36_000_000])
def test_a_stream_is_one_object_or_none(size: int, s3_folder: str) -> None:
    """The largest is uploaded in several pieces."""
    piece = bytes(range(250))

    def write(uri: str, fails: bool = False) -> None:
        with storage.write_stream(uri) as file:
            for start in range(0, size, 1_000_000):
                file.write(piece * (min(1_000_000, size - start) // len(piece)))
            assert not storage.exists(uri)
            if fails:
                raise ZeroDivisionError

    write(f"{s3_folder}/x")
    assert storage.get_size(f"{s3_folder}/x") == size
    assert storage.read_end(f"{s3_folder}/x", 250) == (piece if size else b"")
    with pytest.raises(ZeroDivisionError):
        write(f"{s3_folder}/y", fails=True)
    assert storage.list_names(s3_folder) == ["x"]
    store = storage.get_filesystem(s3_folder)[0]
    bucket = s3_folder.split("/")[2]
    assert not store.call_s3("list_multipart_uploads", Bucket=bucket).get("Uploads")


def test_check_writable_leaves_nothing_and_names_the_bucket(s3_folder: str) -> None:
    storage.check_writable(s3_folder)
    assert storage.list_names(s3_folder) == []
    with pytest.raises(StorageError) as caught:
        storage.check_writable("s3://no-such-bucket/out")
    assert (
        str(caught.value) == "s3://no-such-bucket/out cannot be written: no bucket no-such-bucket"
    )


def test_a_missing_object_is_named(s3_folder: str) -> None:
    for uri in (f"{s3_folder}/gone", "s3://no-such-bucket/gone"):
        for action in (storage.read, lambda uri: storage.read_start(uri, 5)):
            with pytest.raises(MissingObject) as caught:
                action(uri)
            assert str(caught.value) == f"{uri} does not exist"
    storage.check_reachable("s3://no-such-bucket/gone")  # the store answers


def test_wrong_keys_are_access_denied(s3_folder: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "hunter2")
    forget_clients()
    for action in ACTIONS.values():
        with pytest.raises(AccessDenied, match=rf"^{s3_folder}.*access denied$") as caught:
            action(s3_folder)
        assert "hunter2" not in str(caught.value)
    storage.check_reachable(s3_folder)  # it does not check permissions


def test_missing_credentials_are_named(s3_folder: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    forget_clients()
    for action in (*ACTIONS.values(), storage.check_reachable):
        with pytest.raises(StorageError, match=rf"^{s3_folder}.*Unable to locate credentials$"):
            action(s3_folder)


def test_an_endpoint_without_a_server_fails_soon(
    s3_folder: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{find_free_port()}")
    forget_clients()
    for action in (ACTIONS["read"], storage.check_writable):
        start = time.monotonic()
        with pytest.raises(StorageError, match=rf"^{s3_folder}.*Could not connect to the endpoint"):
            action(s3_folder)
        assert time.monotonic() - start < 20


def test_an_endpoint_that_never_answers_fails_in_time(
    s3_folder: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:  # accepts connections and never answers
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{server.getsockname()[1]}")
        forget_clients()
        start = time.monotonic()
        with pytest.raises(
            StorageError, match=rf"^{s3_folder}: its store did not answer within 1 s"
        ):
            storage.check_reachable(s3_folder, seconds=1)
        assert time.monotonic() - start < 10


def test_a_folder_is_listed_page_by_page(s3_folder: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listing, "_TAKEN_TOGETHER", 2)
    for name in ("a.jpg", "a/b.jpg", "a/é.jpg", "b/.hidden.jpg", "b/c d.jpg"):
        storage.put(f"{s3_folder}/images/{name}", b"x")
    bucket, _, key = s3_folder.removeprefix("s3://").partition("/")
    s3fs.S3FileSystem().call_s3("put_object", Bucket=bucket, Key=f"{key}/images/empty/", Body=b"")
    for uri in (f"{s3_folder}/images", f"s3://{bucket}//{key}/images/"):
        listed = listing.list_files(uri, hidden=False)
        assert listed.files == ("a.jpg", "a/b.jpg", "a/é.jpg", "b/c d.jpg")
        assert listed.left_out == {"hidden": 1}
        assert storage.read(f"{listed.root}/{listed.files[1]}") == b"x"
    assert len(listing.list_files(f"{s3_folder}/images/b", hidden=True).files) == 2
    with pytest.raises(MissingObject, match="gone is not a folder"):
        listing.list_files(f"{s3_folder}/gone", hidden=False)
