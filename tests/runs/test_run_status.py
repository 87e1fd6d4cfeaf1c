"""The state of a run over shards, from its output alone."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pipeline import run_record
from pipeline.errors import MismatchedOutput, UnreadableDataset
from pipeline.log_files import Start
from pipeline.run_record import RunRecord
from pipeline.runs.run_status import OutputStatus, Rate, open_record, read_shard_status
from tests.runs.reuse_outputs import open_output, write_images, write_output

NAMES = [f"i{row}" for row in range(10)]


def _read(folder: Path) -> OutputStatus:
    record = run_record.read_record(str(folder))
    assert record is not None
    return read_shard_status(str(folder), record)


def test_a_finished_output(tmp_path: Path) -> None:
    write_output(str(tmp_path / "out"), write_images(tmp_path, NAMES), failed=["i3", "i4"])
    status = _read(tmp_path / "out")
    assert (status.state, status.total, status.committed, status.left) == ("finished", 10, 10, 0)
    assert (status.shards, status.shards_committed) == (3, 3)
    assert status.failed == {"propose: UnreadableImage": 2}
    assert status.rate == Rate(12.5, "images", "mean of the last start, summary.json")
    assert status.settings["proposals"] == {"algorithm": "selective_search", "seed": 0}
    assert json.loads(json.dumps(status.as_json()))["left"] == 0


def test_an_unfinished_output_with_a_damaged_part(tmp_path: Path) -> None:
    ready = write_output(str(tmp_path / "out"), write_images(tmp_path, NAMES))
    first, second, _ = [tmp_path / "out" / shard.part_name for shard in ready.shards]
    first.unlink()
    second.write_bytes(second.read_bytes()[:-1])
    (tmp_path / "out" / "summary.json").unlink()
    logs = tmp_path / "out" / "logs"
    logs.mkdir()
    for index, images in ((1, 3), (2, 8)):
        start = Start(index, f"{index:08x}")
        lines = [
            {"elapsed": seconds, "images": images * seconds / 4, "images_per_second": 1.0}
            for seconds in (0, 4)
        ]
        text = "".join(json.dumps(line | {"images": int(line["images"])}) + "\n" for line in lines)
        (logs / start.name_file("progress")).write_text(text)
        (logs / start.name_file("driver")).write_text(f"start {index}\nlast of {index}\n\n")
    status = _read(tmp_path / "out")
    assert (status.state, status.committed, status.left) == ("unfinished", 2, 8)
    assert (status.shards, status.shards_committed) == (3, 1)
    assert list(status.faults) == [second.name]
    assert (status.starts, status.last_line) == (2, "last of 2")
    assert status.rate == Rate(2.0, "images", "mean of start 2, after 4 s of it, logs")


def test_an_output_whose_summary_is_missing_is_not_finished(tmp_path: Path) -> None:
    write_output(str(tmp_path / "out"), write_images(tmp_path, NAMES))
    (tmp_path / "out" / "summary.json").unlink()
    status = _read(tmp_path / "out")
    assert (status.state, status.left) == ("unfinished", 0)
    assert "rerun the command" in status.notes[0]
    assert status.rate is None


def test_an_output_that_has_not_begun(tmp_path: Path) -> None:
    open_output(str(tmp_path / "out"), write_images(tmp_path, NAMES))
    (tmp_path / "out" / "shards.parquet").unlink()
    status = _read(tmp_path / "out")
    assert (status.state, status.total, status.committed) == ("not begun", 10, 0)


def test_what_is_no_output_is_said(tmp_path: Path) -> None:
    with pytest.raises(UnreadableDataset, match="none does not exist"):
        open_record(str(tmp_path / "none"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(UnreadableDataset, match="no run began here"):
        open_record(str(tmp_path / "empty"))
    (tmp_path / "empty" / "a.txt").write_text("")
    with pytest.raises(UnreadableDataset, match="it holds 1 files, the first is a"):
        open_record(str(tmp_path / "empty"))
    (tmp_path / "empty" / "run.json").write_text("[]")
    with pytest.raises(MismatchedOutput, match="is not a run's record"):
        open_record(str(tmp_path / "empty"))
    RunRecord("propose", {}).write(str(tmp_path / "empty"))
    assert open_record(str(tmp_path / "empty")).job == "propose"
