"""The logs of a start: what they hold, several starts, stores that fail, planted secrets."""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Callable
from pathlib import Path
from time import monotonic
from typing import Any

import pytest

from pipeline import log_files, storage
from pipeline.errors import NoCapacity, StorageError
from pipeline.progress_samples import ProgressSample, read_progress
from pipeline.runs import log_writer, run_logs
from pipeline.runs.folder_watch import list_state
from pipeline.runs.run_logs import WORKER_ERROR, EarlyRecords, RunLogs
from tests.project_log import read_project_log

log = logging.getLogger("pipeline.tests")
SECRET = "hunter2-hunter2"


@pytest.fixture(autouse=True)
def _log_all(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)


def _read(folder: Path | str, kind: str) -> list[str]:
    """The texts of all files of a kind, in the order of the starts."""
    names = log_files.list_log_files(str(folder))
    return [
        storage.read(f"{folder}/logs/{name}").decode() for name in names if name.startswith(kind)
    ]


def _sample(elapsed: float, images: int) -> ProgressSample:
    return ProgressSample(elapsed, images)


def test_lines_errors_and_samples_are_written(tmp_path: Path) -> None:
    with RunLogs(str(tmp_path)) as logs:
        log.info("first %s", "line")
        log.warning("forged\nline")
        logs.record_error({"shard": 3, "rows": 4}, "Traceback\nValueError: no")
        logs.add_sample(_sample(1.0, 10))
        logs.add_lines("4 images in 1 shards, 0 failed")
        assert logs.list_names() == [f"logs/{n}" for n in sorted(_list_own_names(logs))]
    log.info("after the end")
    (text,) = _read(tmp_path, "driver")
    lines = text.splitlines()
    assert lines[0].partition(" ")[2].startswith("start 1 (")
    assert lines[1].partition(" ")[2].startswith("command: python")
    assert [line.partition(" ")[2] for line in lines[2:]] == [
        "first line",
        r"forged\nline",
        "4 images in 1 shards, 0 failed",
    ]
    (error,) = map(json.loads, _read(tmp_path, "errors"))
    assert (error["shard"], error["traceback"]) == (3, "Traceback\nValueError: no")
    assert read_progress(str(tmp_path))[0].lines[0].images == 10


def _list_own_names(logs: RunLogs) -> list[str]:
    assert logs._start is not None
    return [logs._start.name_file(kind) for kind in ("driver", "errors", "progress")]


def test_the_error_behind_a_message_is_kept_in_full(tmp_path: Path) -> None:
    with RunLogs(str(tmp_path)):
        error = RuntimeError("first line\nTraceback of the worker")
        log.warning("a detector did not start: %s", "first line", extra={WORKER_ERROR: error})
    (kept,) = map(json.loads, _read(tmp_path, "errors"))
    assert kept["error"] == "a detector did not start: first line"
    assert kept["traceback"] == "first line\nTraceback of the worker"
    assert "Traceback" not in _read(tmp_path, "driver")[0]


@pytest.mark.parametrize(
    ("error", "ending"),
    [
        (NoCapacity("no core:\nwait"), "error: no core: wait"),
        (KeyboardInterrupt(), "stopped"),
        (ZeroDivisionError("a defect"), "ZeroDivisionError: a defect"),
    ],
)
def test_the_last_line_says_how_it_ended(tmp_path: Path, error: BaseException, ending: str) -> None:
    with pytest.raises(type(error)), RunLogs(str(tmp_path)):
        raise error
    (text,) = _read(tmp_path, "driver")
    assert text.splitlines()[-1].endswith(ending)
    assert ("Traceback" in text) == isinstance(error, ZeroDivisionError)


def test_a_start_without_errors_has_no_file_of_errors(tmp_path: Path) -> None:
    with RunLogs(str(tmp_path)):
        pass
    assert [name.partition("-")[0] for name in log_files.list_log_files(str(tmp_path))] == [
        "driver"
    ]


def test_two_drivers_at_once_and_a_later_start_keep_their_own_files(tmp_path: Path) -> None:
    with RunLogs(str(tmp_path)) as first, RunLogs(str(tmp_path)) as second:
        first.add_lines("of the first")
        second.add_lines("of the second")
    with RunLogs(str(tmp_path)) as third:
        third.add_lines("of the third")
        assert len(third.list_names()) == 3
    texts = _read(tmp_path, "driver")
    assert len(texts) == 3
    assert all(sum(f"of the {who}" in text for text in texts) == 1 for who in ("first", "second"))
    assert "of the third" in texts[-1]
    assert "start 2 (" in texts[-1]


def test_the_oldest_starts_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_logs, "KEPT_STARTS", 3)
    for _ in range(5):
        with RunLogs(str(tmp_path)) as logs:
            logs.add_sample(_sample(1.0, 1))
    starts = log_files.find_starts(log_files.list_log_files(str(tmp_path)))
    assert [start.index for start in starts] == [3, 4, 5]
    assert len(list((tmp_path / "logs").iterdir())) == 6


def test_records_from_before_the_output_was_open_come_first(tmp_path: Path) -> None:
    early = EarlyRecords()
    logging.getLogger().addHandler(early)
    try:
        log.info("the checkpoint lacks a class")
        with RunLogs(str(tmp_path)):
            log.info("begun")
    finally:
        logging.getLogger().removeHandler(early)
    lines = _read(tmp_path, "driver")[0].splitlines()
    assert [line.partition(" ")[2] for line in lines[2:]] == [
        "the checkpoint lacks a class",
        "begun",
    ]


def test_no_planted_secret_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOME_TOKEN", SECRET)
    monkeypatch.setattr("sys.argv", ["jobs/detect.py", f"s3://user:{SECRET}@host/manifest"])

    def work() -> None:
        with RunLogs(str(tmp_path)) as logs:
            log.info("read https://host/image.jpg?signature=%s", "0123456789abcdef" * 2)
            try:
                raise ValueError(SECRET)
            except ValueError:
                log.exception("failed with %s", SECRET)
            logs.record_error({"error": SECRET}, f"Traceback\n  key={SECRET!r}")
            raise NoCapacity(f"node with {SECRET}")

    with pytest.raises(NoCapacity):
        work()
    texts = [path.read_text() for path in (tmp_path / "logs").iterdir()]
    assert len(texts) == 2
    assert not [text for text in texts if SECRET in text or "0123456789abcdef" in text]
    assert "ValueError: ***" in _read(tmp_path, "driver")[0]


def test_what_changed_is_put_while_the_job_works(tmp_path: Path) -> None:
    with RunLogs(str(tmp_path), put_every=0.05) as logs:
        logs.add_lines("so far")
        assert _wait(lambda: any("so far" in text for text in _read(tmp_path, "driver")))
        assert not _read(tmp_path, "progress")
        logs.add_sample(_sample(1.0, 10))
        assert _wait(lambda: bool(_read(tmp_path, "progress")))


def _wait(condition: Callable[[], bool], seconds: float = 20.0) -> bool:
    deadline = monotonic() + seconds
    while not condition() and monotonic() < deadline:
        threading.Event().wait(0.02)
    return condition()


def test_what_has_not_changed_is_not_put_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put, names = storage.put, []

    def count(uri: str, data: bytes) -> None:
        names.append(uri.rpartition("/")[2].partition("-")[0])
        put(uri, data)

    monkeypatch.setattr(storage, "put", count)
    with RunLogs(str(tmp_path), put_every=0.01) as logs:
        logs.add_sample(_sample(1.0, 1))
        assert _wait(lambda: len(names) > 5)
    assert set(names) == {"driver", "progress"}
    assert names.count("progress") == 1


def test_a_silent_driver_shows_that_it_lives(tmp_path: Path) -> None:
    """`status --watch` takes an output whose objects do not change for that of a dead driver."""
    with RunLogs(str(tmp_path), put_every=0.01) as logs:
        assert _wait(lambda: "still at work after 0 s" in "".join(_read(tmp_path, "driver")))
        before = list_state(str(tmp_path))
        assert _wait(lambda: list_state(str(tmp_path)) != before)
        assert not logs.list_names()[1:]


def test_a_store_that_fails_costs_a_warning_and_recovers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    put, attempts = storage.put, []

    def fail_at_first(uri: str, data: bytes) -> None:
        attempts.append(uri)
        if len(attempts) <= 3:
            raise StorageError("s3://b/out: SlowDown")
        put(uri, data)

    monkeypatch.setattr(storage, "put", fail_at_first)
    with RunLogs(str(tmp_path), put_every=0.01):
        assert _wait(lambda: bool(_read(tmp_path, "driver")))
    warnings = [line for line in read_project_log(caplog) if "cannot be written" in line]
    assert warnings == ["the logs cannot be written, the run goes on without: s3://b/out: SlowDown"]
    assert warnings[0] in _read(tmp_path, "driver")[0]


@pytest.mark.parametrize("fault", ["list", "put", "defect"])
def test_a_store_that_keeps_failing_does_not_harm_the_job(
    tmp_path: Path,
    fault: str,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    def fail(*_: Any) -> Any:
        raise OSError("strange") if fault == "defect" else StorageError("s3://b: no answer")

    monkeypatch.setattr(storage, "list_names" if fault == "list" else "put", fail)
    with RunLogs(str(tmp_path), put_every=0.01) as logs:
        threading.Event().wait(0.1)
        assert [name.partition("-")[0] for name in logs.list_names()] == ["logs/driver"]
    text = " ".join(read_project_log(caplog))
    assert ("earlier logs cannot be listed" in text) == (fault == "list")
    assert ("could not be written" in text) == (fault != "list")


def test_a_store_that_never_answers_delays_the_end_by_seconds_at_most(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    released = threading.Event()
    monkeypatch.setattr(storage, "put", lambda *_: released.wait(60))
    monkeypatch.setattr(log_writer, "LAST_PUT_SECONDS", 0.2)
    began = monotonic()
    try:
        with RunLogs(str(tmp_path), put_every=0.01) as logs:
            logs.add_lines("a line")
        assert monotonic() - began < 20
        assert "could not be written in time" in " ".join(read_project_log(caplog))
    finally:
        released.set()


def test_on_an_object_store(s3_folder: str) -> None:
    for images in (10, 20):
        with RunLogs(s3_folder) as logs:
            logs.add_sample(_sample(2.0, images))
    progress = read_progress(s3_folder)
    assert [(p.start.index, p.lines[0].images_per_second) for p in progress] == [
        (1, 5.0),
        (2, 10.0),
    ]
    assert [text.count("start") for text in _read(s3_folder, "driver")] == [1, 1]
