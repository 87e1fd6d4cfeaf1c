from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline import storage, uris
from pipeline.errors import AccessDenied, MissingObject, StorageError, UnusableObject


@pytest.fixture(params=["local", "file", "memory"])
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URI of an empty folder in each kind of store."""
    if request.param == "memory":
        return f"memory://{tmp_path.name}-{os.getpid()}-{id(request)}"
    return f"file://{tmp_path}" if request.param == "file" else str(tmp_path)


def test_an_object_is_put_replaced_read_and_removed(folder: str) -> None:
    uri = uris.join(folder, "deep", "er", "x.bin")
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
    with pytest.raises(UnusableObject, match=r"x\.bin has more than 5e-06 MB, the limit"):
        storage.read(uri, max_bytes=5)
    with storage.open_file(uri) as file:
        file.seek(2)
        assert file.read(2) == b"co"
    storage.remove(uri)
    storage.remove(uri)
    assert not storage.exists(uri)


def test_listings_hold_sorted_files(folder: str) -> None:
    for name in ("b", "a", "below/c"):
        storage.put(uris.join(folder, name), b"")
    assert storage.list_names(folder) == ["a", "b"]
    assert storage.is_folder(folder)
    assert not storage.is_folder(uris.join(folder, "a"))
    assert storage.list_names(uris.join(folder, "gone")) == []


def test_linked_files_count_as_files(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "x").write_bytes(b"1")
    (tmp_path / "here").mkdir()
    (tmp_path / "here" / "link").symlink_to(tmp_path / "elsewhere" / "x")
    assert storage.list_names(str(tmp_path / "here")) == ["link"]


def test_missing_objects_are_named(folder: str) -> None:
    uri = uris.join(folder, "gone.bin")
    for read in (storage.read, lambda uri: storage.read_start(uri, 5)):
        with pytest.raises(MissingObject, match=r"gone\.bin does not exist"):
            read(uri)
    with pytest.raises(MissingObject, match=r"gone\.bin"), storage.open_file(uri):
        pass


def test_only_regular_files_are_read(tmp_path: Path) -> None:
    """A FIFO without a writer and a device without an end would hold the reader for ever."""
    os.mkfifo(tmp_path / "fifo.jpg")
    (tmp_path / "device.jpg").symlink_to("/dev/zero")
    bound = socket.socket(socket.AF_UNIX)
    previous = Path.cwd()
    os.chdir(tmp_path)  # the path of a socket is short
    try:
        bound.bind("socket.jpg")
    finally:
        os.chdir(previous)
    for name, kind in (("fifo", "a FIFO"), ("device", "a device"), ("socket", "a socket")):
        uri = f"{tmp_path}/{name}.jpg"
        message = rf"{name}\.jpg is {kind}, not a regular file"
        for read in (storage.read, lambda uri: storage.read_start(uri, 5)):
            with pytest.raises(UnusableObject, match=message):
                read(uri)
        with pytest.raises(UnusableObject, match=message), storage.open_file(uri):
            pass
    bound.close()


def test_a_disk_that_does_not_answer_is_not_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "x").write_bytes(b"1")
    answer = threading.Event()
    monkeypatch.setattr("pipeline.local_files._read", lambda *_: answer.wait(60))
    monkeypatch.setattr(storage, "ANSWER_SECONDS", 0.2)
    with pytest.raises(
        StorageError, match=r"x cannot be read: the disk did not answer within 0\.2 s"
    ):
        storage.read(f"{tmp_path}/x")
    answer.set()


def test_a_file_without_a_size_is_read_up_to_the_limit() -> None:
    """Files of /proc say that they are empty."""
    assert storage.read("/proc/self/status", max_bytes=100_000)
    with pytest.raises(UnusableObject, match="has more than"):
        storage.read("/proc/self/status", max_bytes=10)


def test_a_whole_file_is_put_at_the_end_of_the_block(folder: str) -> None:
    uri = uris.join(folder, "x.bin")
    with storage.write_whole(uri) as scratch:
        scratch.write_bytes(b"content")
        assert not storage.exists(uri)
        assert not [name for name in storage.list_names(folder) if name.endswith(".bin")]
    assert storage.read(uri) == b"content"
    assert storage.list_names(folder) == ["x.bin"]


def test_a_failed_block_leaves_the_old_object_and_nothing_else(folder: str) -> None:
    uri = uris.join(folder, "x.bin")
    storage.put(uri, b"old")

    def fail_halfway() -> None:
        with storage.write_whole(uri) as scratch:
            scratch.write_bytes(b"half")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail_halfway()
    assert storage.read(uri) == b"old"
    assert storage.list_names(folder) == ["x.bin"]


def test_a_stream_is_put_whole_or_not_at_all(folder: str) -> None:
    uri = uris.join(folder, "sub/x.bin")
    with storage.write_stream(uri) as file:
        file.write(b"con")
        file.write(bytearray(b"tent"))
        assert not storage.exists(uri)
    assert storage.read(uri) == b"content"

    def fail_halfway() -> None:
        with storage.write_stream(uri) as file:
            file.write(b"half")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail_halfway()
    assert storage.read(uri) == b"content"
    assert storage.list_names(uris.join(folder, "sub")) == ["x.bin"]


def test_a_failed_put_leaves_no_scratch_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(StorageError, match=r"x\.bin cannot be written: No space left"):
        storage.put(str(tmp_path / "x.bin"), b"content")
    assert list(tmp_path.iterdir()) == []


def test_an_error_of_the_block_itself_keeps_its_type(tmp_path: Path) -> None:
    """Errors in the content are not errors of the store."""
    (tmp_path / "x.parquet").write_bytes(b"not Parquet")
    with pytest.raises(pa.ArrowInvalid), storage.open_file(str(tmp_path / "x.parquet")) as file:
        pq.ParquetFile(file)
    with pytest.raises(ValueError, match="own error"), storage.write_whole(str(tmp_path / "y")):
        raise ValueError("own error")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_without_write_permission_is_named(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(AccessDenied, match="access denied"):
        storage.check_writable(str(tmp_path))


def test_check_writable_leaves_nothing_and_names_the_folder(folder: str, tmp_path: Path) -> None:
    storage.check_writable(uris.join(folder, "out"))
    assert storage.list_names(uris.join(folder, "out")) == []
    (tmp_path / "a file").write_bytes(b"")
    with pytest.raises(StorageError, match=r"a file.* cannot be written"):
        storage.check_writable(str(tmp_path / "a file"))


def test_an_unknown_protocol_is_named() -> None:
    with pytest.raises(StorageError, match=r"nope://x cannot be opened: Protocol not known"):
        storage.read("nope://x")


def test_a_missing_package_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*arguments: object, **options: object) -> None:
        raise ImportError("Install s3fs to access S3")

    monkeypatch.setattr(fsspec.core, "url_to_fs", fail)
    with pytest.raises(StorageError, match=r"run pip install '\.\[s3\]' in the clone"):
        storage.read("s3://bucket/x")


def test_errors_hide_credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*arguments: object, **options: object) -> None:
        raise OSError("no answer from https://u:hunter2@host/x?X-Amz-Signature=hunter2 today")

    monkeypatch.setattr(fsspec.core, "url_to_fs", fail)
    with pytest.raises(StorageError) as caught:
        storage.read("s3://key:hun/ter2@bucket/x")
    assert (
        str(caught.value) == "s3://bucket/x cannot be opened: no answer from https://host/x today"
    )


def test_an_error_of_any_client_becomes_a_storage_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """All fsspec stores are supported, and each raises its own errors."""

    class LoginError(Exception):
        pass

    def fail(*arguments: object, **options: object) -> None:
        raise LoginError("530 login incorrect for ftp://user:hunter2@host/a")

    monkeypatch.setattr(fsspec.implementations.memory.MemoryFileSystem, "cat_file", fail)
    with pytest.raises(StorageError, match="memory://a cannot be read: 530 login") as caught:
        storage.read("memory://a")
    assert "hunter2" not in str(caught.value)
    assert not isinstance(caught.value, MissingObject)


def test_impossible_names_are_missing_objects(tmp_path: Path) -> None:
    """A retry cannot help, so an image with such a name fails rather than its shard."""
    (tmp_path / "file").write_bytes(b"")
    for uri, message in {
        str(tmp_path): "Is a directory",
        f"{tmp_path}/file/x": "Not a directory",
        f"{tmp_path}/{'a' * 300}": "File name too long",
        f"{tmp_path}/null\0byte": "embedded null byte",
        "nope://x": "Protocol not known: nope",
        "": "Is a directory",
    }.items():
        with pytest.raises(MissingObject, match=message):
            storage.read(uri)
    with pytest.raises(MissingObject, match="embedded null byte"):
        storage.get_size(f"{tmp_path}/null\0byte")
    with pytest.raises(StorageError, match="Is a directory"):
        storage.put(str(tmp_path), b"")


@pytest.fixture
def web_server() -> Iterator[str]:
    """The address of a web server that answers `/403` with that status, and `/` without a length."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            status = int(self.path.strip("/") or 200)
            self.send_response(status)
            self.end_headers()

        do_HEAD = do_GET  # noqa: N815

        def log_message(self, *arguments: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.mark.parametrize(
    ("status", "error_type"),
    [
        (401, AccessDenied),
        (403, AccessDenied),
        (404, MissingObject),
        (400, MissingObject),
        (410, MissingObject),
        (402, AccessDenied),
        (408, StorageError),
        (429, StorageError),
        (451, AccessDenied),
        (500, StorageError),
        (503, StorageError),
    ],
)
def test_a_web_servers_status_blames_the_object_or_the_server(
    web_server: str, status: int, error_type: type[StorageError]
) -> None:
    """An error of the object fails its image; an error of the server is retried."""
    with pytest.raises(StorageError, match=f"{web_server}/{status}") as caught:
        storage.read(f"{web_server}/{status}")
    assert type(caught.value) is error_type


def test_a_web_server_that_reports_no_size_is_named(web_server: str) -> None:
    with pytest.raises(StorageError, match="does not report its size"):
        storage.get_size(f"{web_server}/")


def test_a_store_that_does_not_answer_in_time_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    storage.check_reachable(str(tmp_path / "gone"))
    with pytest.raises(StorageError, match="Protocol not known"):
        storage.check_reachable("nope://x")

    def deny(uri: str) -> bool:
        raise AccessDenied(uri)

    monkeypatch.setattr(storage, "exists", deny)
    storage.check_reachable("s3://bucket/x")
    monkeypatch.setattr(storage, "exists", lambda uri: time.sleep(20))
    start = time.monotonic()
    with pytest.raises(
        StorageError, match=r"^s3://bucket/x: its store did not answer within 0.1 s"
    ):
        storage.check_reachable("s3://key:hunter2@bucket/x", seconds=0.1)
    assert time.monotonic() - start < 10


@pytest.mark.parametrize("name", ["cam::01.jpg", "zip::a.jpg", "a::b::c"])
@pytest.mark.parametrize("place", ["local", "memory"])
def test_colons_in_a_name_are_no_chain(tmp_path: Path, place: str, name: str) -> None:
    uri = f"{tmp_path}/{name}" if place == "local" else f"memory://{tmp_path.name}/{name}"
    storage.put(uri, b"data")
    assert storage.read(uri) == b"data"
    assert storage.exists(uri)


def test_special_files_are_rejected_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "zero").symlink_to("/dev/zero")
    for name in ("fifo", "zero"):
        for read in (storage.read, lambda uri: storage.read_start(uri, 10)):
            with pytest.raises(MissingObject, match=rf"{name} is a .*, not a regular file"):
                read(f"{tmp_path}/{name}")
        with (
            pytest.raises(MissingObject, match="not a regular file"),
            storage.open_file(f"{tmp_path}/{name}"),
        ):
            pass


def test_a_missing_package_is_found_without_a_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    def find_class(kind: str) -> type:
        if kind == "gs":
            raise ImportError("Please install gcsfs")
        return type("Store", (), {})

    monkeypatch.setattr(storage.fsspec, "get_filesystem_class", find_class)
    for uri in ("gs://bucket/a.jpg", "zip://a.jpg::gs://bucket/a.zip"):
        with pytest.raises(
            StorageError, match=r"pip install '\.\[gcs\]' in the clone|install gcsfs"
        ):
            storage.check_packages(uri)
    for uri in ("/a/b.jpg", "s3://bucket/gs::a.jpg"):
        storage.check_packages(uri)


def test_an_unknown_protocol_needs_no_package() -> None:
    storage.check_packages("nowhere://a/b.jpg")
