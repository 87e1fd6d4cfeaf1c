"""`storage` on a faulty store: it reports the fault, never a missing object, and recovers afterwards."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from pipeline import storage
from pipeline.errors import AccessDenied, MissingObject, StorageError
from tests.chaos.proxy import FaultProxy, Kind
from tests.swift import forget_clients
from tests.test_storage_s3 import ACTIONS


@pytest.fixture(scope="module")
def proxy(swift_store: dict[str, str]) -> Iterator[FaultProxy]:
    with FaultProxy(int(swift_store["AWS_ENDPOINT_URL"].rpartition(":")[2])) as running:
        yield running


@pytest.fixture
def folder(proxy: FaultProxy, s3_folder: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """A folder with an object `x`, accessed through the proxy."""
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{proxy.port}")
    impatient = {"config_kwargs": {"read_timeout": 1, "retries": {"max_attempts": 0}}}
    monkeypatch.setitem(storage._IMPATIENT, "s3", impatient)
    forget_clients()
    storage.put(f"{s3_folder}/x", b"old")
    return s3_folder


@pytest.mark.parametrize("kind", ["500", "503", "reset", "silent"])
@pytest.mark.parametrize("action", ACTIONS)
def test_a_faulty_store_is_never_reported_as_a_missing_object(
    action: str, kind: Kind, folder: str, proxy: FaultProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    if kind == "silent" and action not in ("read", "put"):
        pytest.skip(
            "only read and put have a time limit of their own; the rest waits for the client's"
        )
    if kind == "silent":
        monkeypatch.setattr(storage, "ANSWER_SECONDS", 5.0)
    before = proxy.faulty_requests
    with proxy.inject(kind), pytest.raises(StorageError) as caught:
        ACTIONS[action](folder)
    assert proxy.faulty_requests > before
    assert not isinstance(caught.value, MissingObject | AccessDenied)
    assert str(caught.value).startswith(folder)
    if action == "remove":  # the store may have removed it before the reset
        storage.remove(f"{folder}/x")
    else:
        assert storage.read(f"{folder}/x") in (b"old", b"new")


def test_a_slow_answer_is_awaited(folder: str, proxy: FaultProxy) -> None:
    with proxy.inject("slow", seconds=0.5):
        assert storage.read(f"{folder}/x") == b"old"


def test_late_listings_lack_new_objects_and_hold_removed_ones(
    folder: str, proxy: FaultProxy
) -> None:
    with proxy.inject("late", seconds=60):
        assert storage.list_names(folder) == []
        assert storage.read(f"{folder}/x") == b"old"
        assert storage.exists(f"{folder}/x")
    assert storage.list_names(folder) == ["x"]
    storage.put(f"{folder}/y", b"new")
    storage.remove(f"{folder}/x")
    assert storage.list_names(folder) == ["y"]
    with proxy.inject("late", seconds=60):
        assert storage.list_names(folder) == ["x"]
        with pytest.raises(MissingObject):
            storage.read(f"{folder}/x")
    with proxy.inject("late", seconds=0):
        assert storage.list_names(folder) == ["y"]
