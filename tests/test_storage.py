from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline import storage
from pipeline.errors import StorageError


@pytest.fixture(params=["local", "file", "memory"])
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URI of an empty folder, as each kind of store names it."""
    if request.param == "memory":
        return f"memory://{tmp_path.name}-{os.getpid()}-{id(request)}"
    return f"file://{tmp_path}" if request.param == "file" else str(tmp_path)


def test_put_read_exists_remove(folder: str) -> None:
    uri = storage.join(folder, "deep", "er", "x.bin")
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


def test_names_are_sorted_files_of_one_level(folder: str) -> None:
    for name in ("b", "a", "below/c"):
        storage.put(storage.join(folder, name), b"")
    assert storage.names(folder) == ["a", "b"]
    assert storage.files_below(folder + "/") == ["a", "b", "below/c"]
    assert storage.is_folder(folder)
    assert not storage.is_folder(storage.join(folder, "a"))
    assert storage.names(storage.join(folder, "gone")) == []
    with pytest.raises(storage.MissingObject, match="gone is not a folder"):
        storage.files_below(storage.join(folder, "gone"))


def test_linked_files_count_as_files(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "x").write_bytes(b"1")
    (tmp_path / "here").mkdir()
    (tmp_path / "here" / "link").symlink_to(tmp_path / "elsewhere" / "x")
    assert storage.names(str(tmp_path / "here")) == ["link"]
    assert storage.files_below(str(tmp_path / "here")) == ["link"]


def test_missing_objects_are_named(folder: str) -> None:
    uri = storage.join(folder, "gone.bin")
    for read in (storage.read, lambda uri: storage.read_start(uri, 5)):
        with pytest.raises(storage.MissingObject, match=r"gone\.bin does not exist"):
            read(uri)
    with pytest.raises(storage.MissingObject, match=r"gone\.bin"), storage.opened(uri):
        pass


def test_whole_file_is_put_at_the_end(folder: str) -> None:
    uri = storage.join(folder, "x.bin")
    with storage.whole_file(uri) as scratch:
        scratch.write_bytes(b"content")
        assert not storage.exists(uri)
        assert not [name for name in storage.names(folder) if name.endswith(".bin")]
    assert storage.read(uri) == b"content"
    assert storage.names(folder) == ["x.bin"]


def test_a_failed_block_leaves_the_old_object_and_nothing_else(folder: str) -> None:
    uri = storage.join(folder, "x.bin")
    storage.put(uri, b"old")

    def fail_halfway() -> None:
        with storage.whole_file(uri) as scratch:
            scratch.write_bytes(b"half")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail_halfway()
    assert storage.read(uri) == b"old"
    assert storage.names(folder) == ["x.bin"]


def test_a_failed_put_leaves_no_scratch_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", refuse)
    with pytest.raises(StorageError, match=r"x\.bin cannot be written: No space left"):
        storage.put(str(tmp_path / "x.bin"), b"content")
    assert list(tmp_path.iterdir()) == []


def test_an_error_in_a_block_keeps_its_kind(tmp_path: Path) -> None:
    """What is wrong with the content is no fault of the store's."""
    (tmp_path / "x.parquet").write_bytes(b"not Parquet")
    with pytest.raises(pa.ArrowInvalid), storage.opened(str(tmp_path / "x.parquet")) as file:
        pq.ParquetFile(file)
    with pytest.raises(ValueError, match="mine"), storage.whole_file(str(tmp_path / "y")):
        raise ValueError("mine")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_may_not_be_written(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(storage.AccessDenied, match="access denied"):
        storage.check_writable(str(tmp_path))


def test_check_writable(folder: str, tmp_path: Path) -> None:
    storage.check_writable(storage.join(folder, "out"))
    assert storage.names(storage.join(folder, "out")) == []
    (tmp_path / "a file").write_bytes(b"")
    with pytest.raises(StorageError, match=r"a file.* cannot be written"):
        storage.check_writable(str(tmp_path / "a file"))


def test_unknown_protocols_and_missing_packages() -> None:
    with pytest.raises(StorageError, match=r"nope://x cannot be opened: Protocol not known"):
        storage.read("nope://x")


def test_a_missing_package_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*arguments: object, **options: object) -> None:
        raise ImportError("Install s3fs to access S3")

    monkeypatch.setattr(fsspec.core, "url_to_fs", refuse)
    with pytest.raises(StorageError, match=r"pip install 'fast-rcnn-pipeline\[s3\]'"):
        storage.read("s3://bucket/x")


def test_errors_hide_credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*arguments: object, **options: object) -> None:
        raise OSError("no answer from https://u:hunter2@host/x?X-Amz-Signature=hunter2 today")

    monkeypatch.setattr(fsspec.core, "url_to_fs", refuse)
    with pytest.raises(StorageError) as caught:
        storage.read("s3://key:hun/ter2@bucket/x")
    assert (
        str(caught.value) == "s3://bucket/x cannot be opened: no answer from https://host/x today"
    )


@pytest.mark.parametrize(
    ("uri", "shown"),
    [
        ("s3://bucket/a@b.jpg", "s3://bucket/a@b.jpg"),
        ("http://host:8080/a", "http://host:8080/a"),
        ("https://host/a?sig=SECRET", "https://host/a"),
        ("https://host/my gone.jpg?sv=1&sig=SECRET", "https://host/my gone.jpg"),
        ("ftp://user@host/a", "ftp://host/a"),
        ("/home/me/what?.jpg", "/home/me/what?.jpg"),
        ("abfs://container@account.net/a.jpg", "abfs://container@account.net/a.jpg"),
        ("abfs://user:word@account.net/a.jpg", "abfs://account.net/a.jpg"),
        ("zip://a.jpg::s3://bucket/a@b.zip", "zip://a.jpg::s3://bucket/a@b.zip"),
    ],
)
def test_shown(uri: str, shown: str) -> None:
    assert storage.shown(uri) == shown


@pytest.mark.parametrize(
    ("uri", "public"),
    [
        ("/data/what?.jpg", "/data/what?.jpg"),
        ("file:///d/a?b.jpg", "file:///d/a?b.jpg"),
        ("s3://bucket/what?.jpg", "s3://bucket/what?.jpg"),
        ("s3://key:se/cret@bucket/a.jpg", "s3://bucket/a.jpg"),
        ("abfs://container@account.net/a.jpg", "abfs://container@account.net/a.jpg"),
        ("zip://a.jpg::s3://bucket/a@b.zip", "zip://a.jpg::s3://bucket/a@b.zip"),
        ("https://host:8080/a@b.jpg?id=7", "https://host:8080/a@b.jpg?id=7"),
        ("https://user:word@host/image?id=7&size=2", "https://host/image?id=7&size=2"),
        ("https://host/a.jpg?X-Amz-Date=1&X-Amz-Signature=2", "https://host/a.jpg"),
        ("https://host/a.jpg?id=7&sig=2", "https://host/a.jpg"),
        ("https://host/a.jpg?access_token=2", "https://host/a.jpg"),
        ("simplecache::https://host/a.jpg?Signature=2", "simplecache::https://host/a.jpg"),
        ("zip://a.jpg::https://h/x.zip?X-Amz-Credential=2", "zip://a.jpg::https://h/x.zip"),
        ("https://host/my gone.jpg?api-key=2", "https://host/my gone.jpg"),
        ("https://host/a.jpg?hdnea=2", "https://host/a.jpg"),
        ("https://host/a.jpg?auth=2", "https://host/a.jpg"),
        (f"https://host/a.jpg?id={'f' * 32}", "https://host/a.jpg"),
        ("abfs://c@account.net/a.jpg?sig=2", "abfs://c@account.net/a.jpg"),
        ("webdav://host/a.jpg?token=2", "webdav://host/a.jpg"),
    ],
)
def test_rows_hold_the_uri_but_for_what_is_secret(uri: str, public: str) -> None:
    assert storage.public(uri) == public


def test_absolute_and_join(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert storage.absolute("out/x") == str(tmp_path / "out" / "x")
    assert storage.absolute(f"file://{tmp_path}/x/") == str(tmp_path / "x")
    assert storage.absolute("s3://bucket/x/") == "s3://bucket/x"
    assert storage.absolute("memory://") == "memory://"
    assert storage.join("s3://bucket/", "a", "b") == "s3://bucket/a/b"
    assert storage.join("memory://", "a") == "memory://a"
    assert storage.join("/", "a") == "/a"
    assert storage.protocol("gs://b") == "gs"
    assert storage.protocol("/a/b") == "file"


def test_an_error_of_any_client_is_a_stores(monkeypatch: pytest.MonkeyPatch) -> None:
    """Any fsspec store is promised, and each has errors of its own."""

    class Refused(Exception):
        pass

    def refuse(*arguments: object, **options: object) -> None:
        raise Refused("530 login incorrect for ftp://user:hunter2@host/a")

    monkeypatch.setattr(fsspec.implementations.memory.MemoryFileSystem, "cat_file", refuse)
    with pytest.raises(StorageError, match="memory://a cannot be read: 530 login") as caught:
        storage.read("memory://a")
    assert "hunter2" not in str(caught.value)
    assert not isinstance(caught.value, storage.MissingObject)


def test_names_that_cannot_be_are_missing_objects(tmp_path: Path) -> None:
    """A retry does not mend them, so an image of such a name is failed rather than its shard."""
    (tmp_path / "file").write_bytes(b"")
    for uri, told in {
        str(tmp_path): "Is a directory",
        f"{tmp_path}/file/x": "Not a directory",
        f"{tmp_path}/{'a' * 300}": "File name too long",
        f"{tmp_path}/null\0byte": "embedded null byte",
        "nope://x": "Protocol not known: nope",
        "": "Is a directory",
    }.items():
        with pytest.raises(storage.MissingObject, match=told):
            storage.read(uri)
    with pytest.raises(storage.MissingObject, match="embedded null byte"):
        storage.size(f"{tmp_path}/null\0byte")
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

        def log_message(self, *told: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.mark.parametrize(
    ("status", "fault"),
    [
        (401, storage.AccessDenied),
        (403, storage.AccessDenied),
        (404, storage.MissingObject),
        (400, storage.MissingObject),
        (410, storage.MissingObject),
        (402, storage.AccessDenied),
        (408, StorageError),
        (429, StorageError),
        (451, storage.AccessDenied),
        (500, StorageError),
        (503, StorageError),
    ],
)
def test_what_a_web_server_says_of_an_object_is_told_from_its_own_trouble(
    web_server: str, status: int, fault: type[StorageError]
) -> None:
    """The object's fault fails an image, the server's is tried again."""
    with pytest.raises(StorageError, match=f"{web_server}/{status}") as caught:
        storage.read(f"{web_server}/{status}")
    assert type(caught.value) is fault


def test_a_size_that_a_web_server_does_not_tell(web_server: str) -> None:
    with pytest.raises(StorageError, match="does not tell its size"):
        storage.size(f"{web_server}/")


def test_check_reachable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    storage.check_reachable(str(tmp_path / "gone"))
    with pytest.raises(StorageError, match="Protocol not known"):
        storage.check_reachable("nope://x")

    def deny(uri: str) -> bool:
        raise storage.AccessDenied(uri)

    monkeypatch.setattr(storage, "exists", deny)
    storage.check_reachable("s3://bucket/x")
    monkeypatch.setattr(storage, "exists", lambda uri: time.sleep(20))
    start = time.monotonic()
    with pytest.raises(
        StorageError, match=r"^s3://bucket/x: its store did not answer within 0.1 s"
    ):
        storage.check_reachable("s3://key:hunter2@bucket/x", seconds=0.1)
    assert time.monotonic() - start < 10
