"""The output folder of a run: overwritten at any moment of its way, shared by two drivers, refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline import schema, shards, storage
from pipeline.errors import MismatchedOutput, UnreadableDataset
from pipeline.manifests import Manifest, ManifestRow, open_manifest, write_manifest
from pipeline.run_record import RunRecord
from pipeline.runs import output
from pipeline.runs.options import RunOptions
from pipeline.runs.output import RunOutput

IMAGES = 10


class Killed(BaseException):
    """Stands for SIGKILL: nothing in the project catches it."""


@pytest.fixture
def manifest(tmp_path: Path) -> Manifest:
    uri = str(tmp_path / "manifest.parquet")
    write_manifest(uri, (ManifestRow(f"p{i}", f"/{i}", 1, 1, None) for i in range(IMAGES)), None)
    return open_manifest(uri)


def _opened(
    folder: str,
    manifest: Manifest,
    setting: str,
    size: int,
    look: Callable[[], None] = lambda: None,
    **options: Any,
) -> RunOutput:
    told = RunOptions(shard_size=size, **options)
    cut = output.plan_cut(manifest, folder, told)
    record = RunRecord("test", {"dataset": cut.dataset, "setting": setting})
    return output.open_run(folder, record, cut, told, look)


def _run(folder: str, manifest: Manifest, setting: str, size: int, **options: Any) -> None:
    """A run whose rows say with which setting they were made."""
    ready = _opened(folder, manifest, setting, size, **options)
    for shard in ready.todo:
        _commit(ready, shard, setting)
    ready.finish({"setting": setting})


def _commit(ready: RunOutput, shard: shards.Shard, setting: str) -> None:
    numbers = range(shard.first_row, shard.first_row + shard.rows)
    rows = {"image_id": [f"p{i}" for i in numbers], "setting": [setting] * shard.rows}
    shards.put_part(ready.uri, shard, pa.table(rows))


def _settings(folder: str) -> set[str]:
    """The settings that any part in the folder was made with."""
    found: set[str] = set()
    for path in Path(folder).glob("part-*.parquet"):
        found.update(pq.read_table(path)["setting"].to_pylist())
    return found


def _read(folder: str) -> list[tuple[str, str]]:
    return [
        (row["image_id"], row["setting"])
        for table in shards.open_parts(folder).tables()
        for row in table.to_pylist()
    ]


def _refusal(action: Callable[[], object]) -> str:
    """What a user is told; nothing where it went well."""
    try:
        action()
    except (MismatchedOutput, UnreadableDataset) as error:
        return str(error)
    return ""


def _kill_at(count: int, patch: pytest.MonkeyPatch, *, done: bool) -> None:
    """SIGKILL at the `count`-th change of the folder: before it, or once it is `done`."""
    left = [count]

    def dying(change: Callable[..., Any]) -> Callable[..., Any]:
        def changed(*arguments: Any) -> Any:
            left[0] -= 1
            if left[0] == 0 and not done:
                raise Killed
            result = change(*arguments)
            if left[0] == 0:
                raise Killed
            return result

        return changed

    for name in ("put", "remove"):
        patch.setattr(storage, name, dying(getattr(storage, name)))


@pytest.mark.parametrize("done", [False, True])
def test_overwriting_is_safe_at_every_step(manifest: Manifest, tmp_path: Path, done: bool) -> None:
    """Killed anywhere, an output is the old one, whole, or one that readers refuse; never a mixture."""
    whole = {name: [(f"p{i}", name) for i in range(IMAGES)] for name in ("old", "new")}
    for step in range(1, 100):
        folder = str(tmp_path / f"output-{step}-{done}")
        _run(folder, manifest, "old", 4)
        with pytest.MonkeyPatch.context() as patch:
            _kill_at(step, patch, done=done)
            try:
                _run(folder, manifest, "new", 3, overwrite=True)
            except Killed:
                pass
            else:
                break
        assert len(_settings(folder)) <= 1, f"a mixture after step {step}"
        read = _refusal(lambda folder=folder: _read(folder))
        assert "shards" in read if read else _read(folder) in whole.values()
        # The same command without --overwrite goes on, or says that the old run's record is there.
        refusal = _refusal(lambda folder=folder: _run(folder, manifest, "new", 3))
        if refusal:
            assert 'setting: "old" there, "new" now' in refusal
            _run(folder, manifest, "new", 3, overwrite=True)
        assert _read(folder) == whole["new"]
        assert _settings(folder) == {"new"}
    assert step > 10, "the overwriting run changed the folder in fewer steps than it has parts"


@pytest.mark.parametrize("done", [False, True])
def test_a_run_killed_at_every_step_is_finished_by_the_next(
    manifest: Manifest, tmp_path: Path, done: bool
) -> None:
    for step in range(1, 100):
        folder = str(tmp_path / f"output-{step}-{done}")
        with pytest.MonkeyPatch.context() as patch:
            _kill_at(step, patch, done=done)
            try:
                _run(folder, manifest, "new", 3)
            except Killed:
                pass
            else:
                break
        _run(folder, manifest, "new", 4)  # the cut that is there is kept
        assert _read(folder) == [(f"p{i}", "new") for i in range(IMAGES)]
    assert step > 6


def test_the_images_are_looked_at_before_anything_is_changed_where_there_is_work(
    manifest: Manifest, tmp_path: Path
) -> None:
    folder = tmp_path / "output"
    before: list[dict[str, bytes]] = []

    def files() -> dict[str, bytes]:
        return {path.name: path.read_bytes() for path in folder.glob("*")}

    def look() -> None:
        before.append(files())
        raise UnreadableDataset("have they moved?")

    def refused(**options: Any) -> None:
        there = files()
        with pytest.raises(UnreadableDataset, match="have they moved"):
            _opened(str(folder), manifest, "same", 3, look, **options)
        assert before.pop() == files() == there

    refused()
    _run(str(folder), manifest, "same", 3)
    _opened(str(folder), manifest, "same", 3, look)  # nothing is left to do
    refused(overwrite=True)
    next(folder.glob("part-*")).unlink()
    refused()


def test_two_drivers_of_one_cut_do_no_harm(manifest: Manifest, tmp_path: Path) -> None:
    folder = str(tmp_path / "output")
    first, second = (_opened(folder, manifest, "same", 3) for _ in range(2))
    for ready in (second, first):
        for shard in ready.todo:
            _commit(ready, shard, "same")
    first.finish({})
    second.finish({})
    assert _read(folder) == [(f"p{i}", "same") for i in range(IMAGES)]


def test_a_driver_leaves_an_output_that_another_took_over(
    manifest: Manifest, tmp_path: Path
) -> None:
    """It would remove the other's parts as strays and call the output done."""
    folder = str(tmp_path / "output")
    first = _opened(folder, manifest, "old", 3)
    second = _opened(folder, manifest, "new", 4, overwrite=True)
    for ready, setting in ((first, "old"), (second, "new")):
        for shard in ready.todo:
            _commit(ready, shard, setting)
    with pytest.raises(MismatchedOutput, match="another run with other settings began here"):
        first.finish({})
    second.finish({})
    assert _read(folder) == [(f"p{i}", "new") for i in range(IMAGES)]
    assert _settings(folder) == {"new"}


def test_a_driver_that_loses_the_race_for_the_cut_stops_before_its_work(
    manifest: Manifest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both found no table; the other's, of another cut, is put right after ours."""
    folder = str(tmp_path / "output")
    write_table = shards.write_table

    def and_the_other_one(uri: str, planned: list[shards.Shard]) -> None:
        write_table(uri, planned)
        write_table(uri, shards.cut(manifest, 5).shards("other"))

    monkeypatch.setattr(shards, "write_table", and_the_other_one)
    with pytest.raises(MismatchedOutput, match="another run began here at the same time"):
        _opened(folder, manifest, "new", 3)


def test_a_driver_that_loses_the_race_for_the_record_stops_before_its_work(
    manifest: Manifest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both found an empty folder: the table is ours in the end, the record the other's."""
    folder = str(tmp_path / "output")
    write_table = shards.write_table

    def after_the_other_one(uri: str, planned: list[shards.Shard]) -> None:
        RunRecord("test", {"setting": "other"}).write(uri)
        write_table(uri, planned)

    monkeypatch.setattr(shards, "write_table", after_the_other_one)
    with pytest.raises(
        MismatchedOutput, match=r"run\.json is not of this run: another run with other"
    ):
        _opened(folder, manifest, "new", 3)


def test_a_record_that_another_run_put_since_is_no_end(manifest: Manifest, tmp_path: Path) -> None:
    folder = str(tmp_path / "output")
    ready = _opened(folder, manifest, "new", 3)
    for shard in ready.todo:
        _commit(ready, shard, "new")
    RunRecord("test", {"setting": "other"}).write(folder)
    with pytest.raises(MismatchedOutput, match=r"run\.json is not of this run"):
        ready.finish({})
    assert not (tmp_path / "output" / output.SUMMARY_NAME).exists()


def test_what_auto_came_to_stays_with_the_output(manifest: Manifest, tmp_path: Path) -> None:
    folder = str(tmp_path / "output")
    first, second = (_opened(folder, manifest, "same", 3) for _ in range(2))
    assert not first.record.resolved
    first.settle({"precision": "bf16"})
    first.settle({"precision": "bf16"})
    with pytest.raises(MismatchedOutput, match=r"begun with .*bf16.* this run has .*fp32"):
        second.settle({"precision": "fp32"})
    for shard in first.todo:
        _commit(first, shard, "same")
    with pytest.raises(MismatchedOutput, match="begun with"):
        second.finish({})
    first.finish({})
    assert _opened(folder, manifest, "same", 3).record.resolved == {"precision": "bf16"}
    assert not _opened(folder, manifest, "same", 3, overwrite=True).record.resolved


@pytest.mark.parametrize("kind", ["propose", "detect", "no statistics", "a long footer"])
def test_failed_rows_are_found_by_the_footer_and_without_its_help(
    tmp_path: Path, kind: str
) -> None:
    target = schema.DETECTIONS if kind == "detect" else schema.PROPOSALS
    if kind == "a long footer":
        target = schema.with_metadata(target, {"provenance": "x" * 2 * output.FOOTER})
    planned = [shards.Shard(ordinal, f"{ordinal:024x}", 3 * ordinal, 3) for ordinal in range(3)]
    for shard in planned:
        bad = shard.ordinal == 1
        rows = [{"image_id": "i", "uri": "u", "status": "ok", "error_type": None} for _ in range(3)]
        if bad:
            rows[2] |= {"status": "failed", "error_type": "Gone"}
            if kind == "detect":
                rows[2]["stage"] = "read"
        table = pa.Table.from_pylist(rows, schema=target)
        place = tmp_path / shard.part_name
        pq.write_table(table, place, write_statistics=kind != "no statistics", compression="zstd")
        assert output._all_ok(str(place)) == (not bad and kind in ("propose", "detect"))
    found = output.failed_rows(str(tmp_path), planned)
    stage = "read" if kind == "detect" else "propose"
    assert found == {planned[1]: {2: f"{stage}: Gone"}}
